"""Render the first rows of each dataset before a run: what templates make of them, and which make nothing."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from beam_pipelines.io.units import Unit, list_reads, read_units
from beam_pipelines.jobs.build_corpus.datasets import DatasetPlan
from beam_pipelines.jobs.build_corpus.render import Attempt, UnitRenderer
from beam_pipelines.report.text import plural, shorten
from beam_pipelines.templates.compile import Rendered
from schemas.errors import CappyError

SAMPLE_ROWS = 1_000
"""Most rows of a dataset that are looked at."""
_SAMPLE_RENDERINGS = 10_000  # about half a second
_FEWEST_ROWS = 20
_UNIT_ROWS = 50
_DETAIL = 300  # characters of an error in a warning
_SHOWN = 2_000  # characters of a text of an example
_UNPRINTABLE = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])  # Unicode's controls, formats, surrogates and separators
_KEPT = "\n\t\u200c\u200d"  # the last two join letters and emoji


@dataclass
class TemplatePreview:
    """What a template made of the rows looked at.

    Args:
      name: name of the template.
      examples: (example_id, rendered row) of the first rows that it renders.
      outcomes: number of the rows that it does not render by what became of them, in words.
    """

    name: str
    examples: list[tuple[str, Rendered]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    _details: dict[str, str] = field(default_factory=dict)

    def add(self, attempt: Attempt, examples: int) -> None:
        """Count a row under the template; keep it if there are fewer `examples`."""
        if isinstance(attempt.outcome, Rendered):
            if len(self.examples) < examples:
                self.examples.append((attempt.example_id, attempt.outcome))
        elif attempt.outcome is None:
            self.outcomes["not applicable"] += 1
        else:
            error = attempt.outcome
            detail = self._details.setdefault(error.reason, shorten(error.detail, _DETAIL))
            self.outcomes[f"rejected, {error.reason}: {detail}"] += 1

    @property
    def why_not(self) -> str:
        """What became of the rows that it does not render, the most frequent first."""
        return "; ".join(f"{plural(count, 'row')} {outcome}" for outcome, count in self.outcomes.most_common())


@dataclass
class DatasetPreview:
    """The first `rows` rows of a dataset under its templates; `whole`: whether these are all of its rows."""

    label: str
    templates: list[TemplatePreview]
    rows: int = 0
    whole: bool = False


def preview(planned: DatasetPlan, *, examples: int) -> DatasetPreview:
    """Render the first rows of a dataset until each template has so many examples, or enough rows are seen.

    Raises UnreadableFile for a file that cannot be opened.
    """
    found = {template.id: TemplatePreview(template.name) for template in planned.dataset.templates}
    result = DatasetPreview(planned.dataset.label, list(found.values()))
    most = max(_FEWEST_ROWS, min(SAMPLE_ROWS, _SAMPLE_RENDERINGS // len(found)))
    renderer = UnitRenderer(planned.render)
    for unit in _first_units(planned, most):
        for attempt in renderer.attempts(unit):
            found[attempt.template_id].add(attempt, examples)
        result.rows += unit.rows.num_rows + len(unit.bad)
        if all(len(template.examples) >= examples for template in result.templates):
            break
    result.whole = result.rows >= planned.input.rows
    return result


def _first_units(planned: DatasetPlan, rows: int) -> Iterator[Unit]:
    """Yield small units of the first rows of a dataset."""
    spec = planned.read._replace(unit_rows=min(_UNIT_ROWS, rows))
    for file in planned.input.files:
        count = min(rows, file.rows)
        for read in list_reads(replace(file, rows=count, limit=count), spec) if count else ():
            yield from read_units(read, spec)
        rows -= count
        if not rows:
            return


def silent_in(previews: Sequence[DatasetPreview]) -> list[str]:
    """Return a sentence for each template that renders none of the rows looked at.

    Raises CappyError if these are all rows, and no template renders any of them.
    """
    sentences = [
        f"dataset {dataset.label}: template {template.name!r} renders none of its "
        f"{'' if dataset.whole else 'first '}{plural(dataset.rows, 'row')}: {template.why_not}"
        for dataset in previews
        for template in dataset.templates
        if dataset.rows and not template.examples
    ]
    if any(template.examples for dataset in previews for template in dataset.templates):
        return sentences
    if all(dataset.whole for dataset in previews):
        why = sentences[0] if sentences else "the input files have no rows"
        raise CappyError(f"the corpus would be empty: no template renders any row. {why[0].upper()}{why[1:]}")
    return [*sentences, "no template renders any of the rows looked at; the corpus may be empty"]


def show(planned: DatasetPlan, count: int) -> str:
    """Return `count` rendered examples of each template of a dataset, readable on a terminal."""
    found = preview(planned, examples=count)
    parts = []
    for template in found.templates:
        parts.append(f"{found.label}: template {template.name!r}")
        parts += [_describe(example_id, rendered) for example_id, rendered in template.examples]
        if len(template.examples) < count:
            more = f": {template.why_not}" if template.outcomes else ""
            parts.append(f"  {plural(len(template.examples), 'example')} in {plural(found.rows, 'row')}{more}")
    return "\n\n".join(map(printable, parts))


def _describe(example_id: str, rendered: Rendered) -> str:
    texts = [("instruction", rendered.instruction), *(("target", text) for text in rendered.references)]
    if rendered.choices is not None:
        texts.append(("choices", "\n".join(rendered.choices)))
    shown = [f"  {example_id}"]
    for name, text in texts:
        head = text[:_SHOWN] + (f"… ({len(text):,} characters)" if len(text) > _SHOWN else "")
        first, *rest = head.split("\n")
        shown += [f"  {name:11}  {first}", *(f"  {'':11}  {line}" for line in rest)]
    return "\n".join(shown)


def printable(text: str) -> str:
    """Escape what would move the cursor or change the colours of a terminal; lines, tabs and joiners stay."""
    return "".join(
        letter if letter in _KEPT or unicodedata.category(letter) not in _UNPRINTABLE else repr(letter)[1:-1]
        for letter in text
    )
