"""Render source rows: every template of a dataset over every row of a unit -> instructions."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.units import Unit, position_of
from beam_pipelines.templates.compile import SENTINEL, CompiledTemplate, RenderError, check_label
from beam_pipelines.templates.mixture import Dataset
from beam_pipelines.transforms.results import Result, reject_row, unreadable_rows
from schemas.chunks import from_columns, pieces
from schemas.ids import instruction_ids, seed_for
from schemas.records import INSTRUCTION
from schemas.stats import Stats, count_lengths

LABEL_COLUMN = "label"


@dataclass(frozen=True)
class RenderSpec:
    """How one dataset is rendered, as sent to workers.

    Args:
        dataset: the dataset with its templates.
        truncate: characters per rendered value on the input side, or None.
        seed: random seed.
        keep: (row, template) pairs whose 64-bit hash is below this are kept (see `threshold`).
    """

    dataset: Dataset
    truncate: int | None
    seed: int
    keep: int


def threshold(max_examples: int | None, templates: int, rows: int) -> int:
    """Return the threshold, in [0, 2**64], of the seeded hash of a (row, template) pair: it is kept below that.

    This is T0's cap (t-zero's mixing rates): of a dataset with more than `max_examples` rows each template renders
    about `max_examples // templates`, of a smaller one all. The sample depends neither on order nor on workers.
    """
    if max_examples is None or rows <= max_examples:
        return 2**64
    return (max_examples // templates) * 2**64 // rows


class _Template(NamedTuple):
    compiled: CompiledTemplate
    id: str
    name: str
    instruction_id: Callable[[str], str]


class UnitRenderer:
    """Renders the units of one dataset; compiles each template once."""

    def __init__(self, spec: RenderSpec) -> None:
        entry = spec.dataset.entry
        self.spec = spec
        self._templates = [
            _Template(
                CompiledTemplate(template, truncate=spec.truncate, seed=spec.seed),
                template.id,
                template.name,
                instruction_ids(entry.name, entry.subset, entry.split, template.id),
            )
            for template in spec.dataset.templates
        ]
        self._uses_label = any(LABEL_COLUMN in template.compiled.variables for template in self._templates)

    def render(self, unit: Unit) -> Result:
        """Return INSTRUCTION chunks: the rows of the unit in order, each under every template.

        Counts each (row, template) once, as rendered, sampled out, not applicable or rejected; a row that cannot be
        used is one reject row, and counts as rejected under every template.
        """
        stats, label = Stats(), self.spec.dataset.label
        rejects = unreadable_rows(unit, origin=label)
        lost = len(unit.bad)
        suspicious = _may_hold(unit.rows, SENTINEL)
        columns: dict[str, list[Any]] = {name: [] for name in INSTRUCTION.names}
        for position, row in zip(unit.positions.tolist(), self._rows(unit), strict=True):
            try:
                if suspicious and SENTINEL in _excerpt(row):
                    raise RenderError("reserved_character", "holds U+FDD0, a noncharacter that templates are cut at")
                if self._uses_label:
                    check_label(row)
            except RenderError as error:
                rejects.append(self._reject(unit, position, row, "check", error.reason, error.detail))
                lost += 1
                continue
            self._render_row(unit, position, row, columns, rejects, stats)
        stats.counts["rows", label] += unit.rows.num_rows + len(unit.bad)
        for template in self._templates:
            stats.counts["templates", label, template.id, "rejected"] += lost
        batch = from_columns(self._complete(columns), INSTRUCTION)
        count_lengths(stats, ("lengths", "instruction", label), pc.utf8_length(batch["instruction"]).to_numpy())
        return Result(f"part-{unit.name}", list(pieces(batch)), INSTRUCTION, rejects, stats)

    def _rows(self, unit: Unit) -> list[dict[str, Any]]:
        """Return the rows with the names of template variables."""
        names = [self.spec.dataset.variable(column) for column in unit.rows.schema.names]
        return unit.rows.rename_columns(names).to_pylist()

    def _render_row(
        self,
        unit: Unit,
        position: int,
        row: dict[str, Any],
        columns: dict[str, list[Any]],
        rejects: list[dict[str, Any]],
        stats: Stats,
    ) -> None:
        label, example_id = self.spec.dataset.label, f"{unit.file.name}{position_of(unit.file, position)}"
        for template in self._templates:
            try:
                outcome = self._render_template(template, row, example_id, columns)
            except RenderError as error:
                outcome, detail = "rejected", f"template {template.name!r}: {error.detail}"
                rejects.append(self._reject(unit, position, row, "render", error.reason, detail))
            stats.counts["templates", label, template.id, outcome] += 1

    def _render_template(
        self, template: _Template, row: dict[str, Any], example_id: str, columns: dict[str, list[Any]]
    ) -> str:
        """Append a row rendered by a template to `columns`; return the outcome. Raises RenderError."""
        keep, seed = self.spec.keep, self.spec.seed
        if keep < 2**64 and seed_for(seed, template.id, example_id) >= keep:
            return "sampled_out"
        rendered = template.compiled.render(row, example_id)
        if rendered is None:
            return "not_applicable"
        columns["instruction_id"].append(template.instruction_id(example_id))
        columns["template_id"].append(template.id)
        columns["template_name"].append(template.name)
        columns["example_id"].append(example_id)
        columns["instruction"].append(rendered.instruction)
        columns["references"].append(rendered.references)
        columns["choices"].append(rendered.choices)
        return "rendered"

    def _complete(self, columns: dict[str, list[Any]]) -> Mapping[str, Sequence[Any]]:
        """Add the columns that are constant in a dataset."""
        entry, count = self.spec.dataset.entry, len(columns["instruction"])
        constant = {"dataset": entry.name, "subset": entry.subset, "split": entry.split}
        return {**columns, **{name: [value] * count for name, value in constant.items()}}

    def _reject(
        self, unit: Unit, position: int, row: Mapping[str, Any], stage: str, reason: str, detail: str
    ) -> dict[str, Any]:
        origin, excerpt = self.spec.dataset.label, _excerpt(row)
        return reject_row(unit, position, origin=origin, stage=stage, reason=reason, detail=detail, excerpt=excerpt)


def _may_hold(chunk: pa.RecordBatch, text: str) -> bool:
    """Return whether the buffers of a chunk contain the bytes of `text`. Buffers may hold rows of other chunks, too."""
    buffers = (buffer for column in chunk.columns for buffer in column.buffers() if buffer)
    return any(text.encode() in buffer.to_pybytes() for buffer in buffers)


def _excerpt(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)


class RenderTemplates(beam.DoFn):
    """Render units: Unit -> Result. `specs` has the dataset of each input group."""

    def __init__(self, specs: Sequence[RenderSpec]) -> None:
        self._specs = specs

    def setup(self) -> None:
        """Start without renderers: a worker compiles the templates of the datasets that it meets."""
        self._renderers: dict[int, UnitRenderer] = {}

    def process(self, unit: Unit) -> Iterator[Result]:
        """Yield the result of a unit."""
        group = unit.file.group
        if group not in self._renderers:
            self._renderers[group] = UnitRenderer(self._specs[group])
        yield self._renderers[group].render(unit)
