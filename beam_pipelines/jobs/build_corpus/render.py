"""Render source rows: every template of a dataset over every row of a unit -> instructions."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.formats.base import AsWritten
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.build_corpus.variables import Variables, holds
from beam_pipelines.templates.compile import SENTINEL, CompiledTemplate, Rendered, RenderError, check_label
from beam_pipelines.templates.mixture import Dataset
from beam_pipelines.transforms.results import Result, reject_row, unreadable_rows
from schemas.chunks import from_columns, pieces
from schemas.ids import instruction_ids, seed_for
from schemas.records import INSTRUCTION
from schemas.stats import Stats, count_lengths

LABEL_COLUMN = "label"
EXAMPLE_CHARACTERS = 1_000
"""Longest text of an example in the report."""
EXAMPLE_CHOICES = 20
"""Most answer choices of one."""


@dataclass(frozen=True)
class RenderSpec:
    """How one dataset is rendered, as sent to workers.

    Args:
        dataset: the dataset with its templates.
        truncate: characters per rendered value on the input side, or None.
        seed: random seed.
        keep: (row, template) pairs whose 64-bit hash is below this are kept (see `threshold`).
        as_written: how text columns of text files were read, by the name of their variable (see `ReadSpec`).
    """

    dataset: Dataset
    truncate: int | None
    seed: int
    keep: int
    as_written: Mapping[str, AsWritten] = field(default_factory=dict)


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


class Attempt(NamedTuple):
    """A row under a template: what it renders to, None where the template does not apply, or the error."""

    template_id: str
    example_id: str
    outcome: Rendered | RenderError | None


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
        variables = self._variables(unit)
        faults: list[_Fault] = []
        columns: dict[str, list[Any]] = {name: [] for name in INSTRUCTION.names}
        for number, (row, error) in enumerate(self._rows(unit, variables)):
            if error is None:
                self._render_row(unit, number, row, columns, faults, stats)
            else:
                faults.append(_Fault(number, "check", error.reason, error.detail))
        lost = len(unit.bad) + sum(fault.stage == "check" for fault in faults)
        rejects = unreadable_rows(unit, origin=label)
        rejects += [self._reject(unit, variables, fault) for fault in faults]
        stats.counts["rows", label] += unit.rows.num_rows + len(unit.bad)
        for template in self._templates:
            stats.counts["templates", label, template.id, "rejected"] += lost
        self._sample(columns, stats)
        batch = from_columns(self._complete(columns), INSTRUCTION)
        count_lengths(stats, ("lengths", "instruction", label), pc.utf8_length(batch["instruction"]).to_numpy())
        return Result(f"part-{unit.name}", list(pieces(batch)), INSTRUCTION, rejects, stats)

    def attempts(self, unit: Unit) -> Iterator[Attempt]:
        """Yield what becomes of each row of a unit under each template, as `render` decides it, without sampling."""
        for bad in unit.bad:
            error = RenderError(bad.reason, bad.detail)
            yield from (Attempt(template.id, "", error) for template in self._templates)
        for number, (row, fault) in enumerate(self._rows(unit, self._variables(unit))):
            example_id = f"{unit.file.name}{unit.position(number)}"
            for template in self._templates:
                outcome: Rendered | RenderError | None = fault
                if fault is None:
                    try:
                        outcome = template.compiled.render(row, example_id)
                    except RenderError as error:
                        outcome = error
                yield Attempt(template.id, example_id, outcome)

    def _variables(self, unit: Unit) -> Variables:
        names = [self.spec.dataset.variable(column) for column in unit.rows.schema.names]
        return Variables(unit.rows.rename_columns(names), self.spec.as_written)

    def _rows(self, unit: Unit, variables: Variables) -> Iterator[tuple[dict[str, Any], RenderError | None]]:
        """Yield the rows by the names of template variables, each with the reason why no template can use it."""
        suspicious = _may_hold(unit.rows, SENTINEL)
        for row in variables.rows():
            fault = None
            try:
                if suspicious and holds(row, SENTINEL):
                    raise RenderError("reserved_character", "holds U+FDD0, a noncharacter that templates are cut at")
                if self._uses_label:
                    check_label(row)
            except RenderError as error:
                fault = error
            yield row, fault

    def _render_row(
        self,
        unit: Unit,
        number: int,
        row: dict[str, Any],
        columns: dict[str, list[Any]],
        faults: list["_Fault"],
        stats: Stats,
    ) -> None:
        label, example_id = self.spec.dataset.label, f"{unit.file.name}{unit.position(number)}"
        for template in self._templates:
            try:
                outcome = self._render_template(template, row, example_id, columns)
            except RenderError as error:
                outcome, detail = "rejected", f"template {template.name!r}: {error.detail}"
                faults.append(_Fault(number, "render", error.reason, detail))
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

    def _sample(self, columns: Mapping[str, list[Any]], stats: Stats) -> None:
        """Offer the first instruction of each template as its example; that with the smallest hash is kept."""
        first: dict[str, int] = {}
        for number, template_id in enumerate(columns["template_id"]):
            if len(first) == len(self._templates):
                break
            first.setdefault(template_id, number)
        for template_id, number in first.items():
            choices = columns["choices"][number]
            example = {
                "example_id": columns["example_id"][number],
                "instruction": _cut(columns["instruction"][number]),
                "target": _cut(columns["references"][number][0]),
                "choices": choices and [_cut(choice) for choice in choices[:EXAMPLE_CHOICES]],
            }
            hashed = int(columns["instruction_id"][number], 16)
            stats.sample(example_key(self.spec.dataset.label, template_id), hashed, example)

    def _complete(self, columns: dict[str, list[Any]]) -> Mapping[str, Sequence[Any]]:
        """Add the columns that are constant in a dataset."""
        entry, count = self.spec.dataset.entry, len(columns["instruction"])
        constant = {"dataset": entry.name, "subset": entry.subset, "split": entry.split}
        return {**columns, **{name: [value] * count for name, value in constant.items()}}

    def _reject(self, unit: Unit, variables: Variables, fault: "_Fault") -> dict[str, Any]:
        number, stage, reason, detail = fault
        return reject_row(
            unit,
            int(unit.positions[number]),
            origin=self.spec.dataset.label,
            stage=stage,
            reason=reason,
            detail=detail,
            excerpt=variables.excerpt(number),
        )


class _Fault(NamedTuple):
    """Why a row of a unit, by its number there, cannot be used at all (`check`) or under a template (`render`)."""

    number: int
    stage: str
    reason: str
    detail: str


def example_key(dataset: str, template_id: str) -> str:
    """Return the key of a template's example among the samples of `Stats`."""
    return f"template {template_id} of {dataset}"


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]}…"


def _may_hold(chunk: pa.RecordBatch, text: str) -> bool:
    """Return whether the buffers of a chunk contain `text`, or its escape in JSON. Buffers may hold other rows, too."""
    pattern = re.compile(re.escape(text.encode()) + rb"|(?i:\\u%04x)" % ord(text))
    buffers = (buffer for column in chunk.columns for buffer in column.buffers() if buffer)
    return any(pattern.search(buffer) for buffer in buffers)


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
