"""Source rows -> instructions: every template of a dataset over every row of a unit."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import Unit, position_of
from beam_pipelines.templates.compile import SENTINEL, CompiledTemplate, RenderError, check_label
from beam_pipelines.templates.mixture import Dataset
from beam_pipelines.transforms.rejects import reject_at, unread, write_rejects
from schemas.chunks import from_columns, pieces
from schemas.ids import instruction_ids, seed_for
from schemas.records import INSTRUCTION
from schemas.stats import Stats, count_lengths

LABEL_COLUMN = "label"


@dataclass(frozen=True)
class RenderPlan:
    """How one dataset is rendered.

    `keep` is the share of (row, template) pairs kept, as a threshold of 2**64: T0's cap as a sample (see `threshold`).
    """

    dataset: Dataset
    truncate: int | None
    seed: int
    keep: int


def threshold(max_examples: int | None, templates: int, rows: int) -> int:
    """The 64-bit threshold under which a seeded hash keeps a row for a template.

    T0's cap: a dataset of more than `max_examples` rows gives each of its templates `max_examples // templates` rows,
    a smaller one all of its rows (t-zero's mixing rates; here a real sample, independent of order and workers).
    """
    if max_examples is None or rows <= max_examples:
        return 2**64
    return (max_examples // templates) * 2**64 // rows


class _Template(NamedTuple):
    compiled: CompiledTemplate
    id: str
    name: str
    instruction_id: Callable[[str], str]


class RenderedUnit(NamedTuple):
    """What came of a unit: its name, INSTRUCTION chunks in row order, REJECT rows, and counts."""

    name: str
    chunks: list[pa.RecordBatch]
    rejects: list[dict[str, Any]]
    stats: Stats


class UnitRenderer:
    """Renders the units of one dataset; compiles each template once."""

    def __init__(self, plan: RenderPlan) -> None:
        entry = plan.dataset.entry
        self.plan = plan
        self._templates = [
            _Template(
                CompiledTemplate(template, truncate=plan.truncate, seed=plan.seed),
                template.id,
                template.name,
                instruction_ids(entry.name, entry.subset, entry.split, template.id),
            )
            for template in plan.dataset.templates
        ]
        self._labelled = any(LABEL_COLUMN in template.compiled.variables for template in self._templates)

    def render(self, unit: Unit) -> RenderedUnit:
        """Rows x templates = rendered + sampled out + not applicable + rejected: a bad row counts once per template."""
        stats = Stats()
        rejects = unread(unit, origin=self.plan.dataset.label)
        lost = len(unit.bad)
        suspicious = _may_hold(unit.rows, SENTINEL)
        columns: dict[str, list[Any]] = {name: [] for name in INSTRUCTION.names}
        for position, row in zip(unit.positions.tolist(), self._rows(unit), strict=True):
            try:
                if suspicious and SENTINEL in _excerpt(row):
                    raise RenderError("reserved_character", "holds U+FDD0, a noncharacter that templates are cut at")
                if self._labelled:
                    check_label(row)
            except RenderError as error:
                rejects.append(self._reject(unit, position, row, "check", error.reason, error.detail))
                lost += 1
                continue
            self._render_row(unit, position, row, columns, rejects, stats)
        label = self.plan.dataset.label
        stats.counts["rows", label] += unit.rows.num_rows + len(unit.bad)
        for template in self._templates:
            stats.counts["templates", label, template.id, "rejected"] += lost
        batch = from_columns(self._complete(columns), INSTRUCTION)
        count_lengths(stats, ("lengths", "instruction", label), pc.utf8_length(batch["instruction"]).to_numpy())
        return RenderedUnit(f"part-{unit.name}", list(pieces(batch)), rejects, stats)

    def _rows(self, unit: Unit) -> list[dict[str, Any]]:
        names = [self.plan.dataset.variable(column) for column in unit.rows.schema.names]
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
        plan, label = self.plan, self.plan.dataset.label
        example_id = f"{unit.file.name}{position_of(unit.file, position)}"
        for template in self._templates:
            outcome = "rendered"
            if plan.keep < 2**64 and seed_for(plan.seed, template.id, example_id) >= plan.keep:
                outcome = "sampled_out"
            else:
                try:
                    rendered = template.compiled.render(row, example_id)
                except RenderError as error:
                    outcome, detail = "rejected", f"template {template.name!r}: {error.detail}"
                    rejects.append(self._reject(unit, position, row, "render", error.reason, detail))
                else:
                    if rendered is None:
                        outcome = "not_applicable"
                    else:
                        columns["instruction_id"].append(template.instruction_id(example_id))
                        columns["template_id"].append(template.id)
                        columns["template_name"].append(template.name)
                        columns["example_id"].append(example_id)
                        columns["instruction"].append(rendered.instruction)
                        columns["references"].append(rendered.references)
                        columns["choices"].append(rendered.choices)
            stats.counts["templates", label, template.id, outcome] += 1

    def _complete(self, columns: dict[str, list[Any]]) -> Mapping[str, Sequence[Any]]:
        entry, count = self.plan.dataset.entry, len(columns["instruction"])
        constant = {"dataset": entry.name, "subset": entry.subset, "split": entry.split}
        return {**columns, **{name: [value] * count for name, value in constant.items()}}

    def _reject(
        self, unit: Unit, position: int, row: Mapping[str, Any], stage: str, reason: str, detail: str
    ) -> dict[str, Any]:
        origin = self.plan.dataset.label
        return reject_at(
            unit, position, origin=origin, stage=stage, reason=reason, detail=detail, excerpt=_excerpt(row)
        )


def _may_hold(chunk: pa.RecordBatch, text: str) -> bool:
    """Whether the bytes of `text` stand in the buffers of a chunk; these may hold rows of its neighbours too."""
    buffers = (buffer for column in chunk.columns for buffer in column.buffers() if buffer)
    return any(text.encode() in buffer.to_pybytes() for buffer in buffers)


def _excerpt(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)


@dataclass
class RenderTemplates(beam.PTransform):
    """Units -> what came of them. `plans` is indexed by the group of a unit's file."""

    plans: Sequence[RenderPlan]

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        return units | "Render" >> beam.ParDo(_Render(self.plans))


class _Render(beam.DoFn):
    def __init__(self, plans: Sequence[RenderPlan]) -> None:
        self._plans = plans

    def setup(self) -> None:
        self._renderers: dict[int, UnitRenderer] = {}

    def process(self, unit: Unit) -> Iterator[RenderedUnit]:
        group = unit.file.group
        if group not in self._renderers:
            self._renderers[group] = UnitRenderer(self._plans[group])
        yield self._renderers[group].render(unit)


def write_instructions(rendered: RenderedUnit, folder: OutputDir) -> Stats:
    """Writes the instructions and the rejects of a unit under its name; its stats, with both files."""
    stats = Stats().add(rendered.stats).add(write_rejects(folder, rendered.name, rendered.rejects))
    path = f"instructions/{rendered.name}.parquet"
    stats.files.add(folder.write_parquet(path, rendered.chunks, INSTRUCTION))
    return stats


@dataclass
class WriteInstructions(beam.PTransform):
    """What came of units -> `instructions/` and `rejects/` files under the unit's name, and the stats of each unit."""

    folder: OutputDir

    def expand(self, rendered: beam.PCollection) -> beam.PCollection:
        return rendered | "Write" >> beam.Map(write_instructions, self.folder)
