"""Tables of a build-corpus report, each a function of the manifest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from beam_pipelines.jobs.build_corpus.sources import SOURCES
from beam_pipelines.report.frame import Column, Row, Table, first_rows
from schemas.records import OUTCOMES

Cells = Callable[[Mapping[str, Any], Mapping[str, Any]], list[int]]
"""Returns the numbers of a template's row, from the manifest's entries for its dataset and for the template."""

MOST_TEMPLATES = 700

_NBSP, _MINUS, _TIMES = "\u00a0", "\u2212", "\u00d7"


def merging(manifest: Mapping[str, Any]) -> Table:
    """Return the pairs made, merged and written by source, each row with a check: made - merged = written."""
    stages = ("made", "merged", "written")
    present = [(source.label, manifest["pairs"][source.key]) for source in SOURCES if source.key in manifest["pairs"]]
    rows = [Row([label, *(counts[stage] for stage in stages), _written_as_made(counts)]) for label, counts in present]
    total = {stage: sum(counts[stage] for _, counts in present) for stage in stages}
    rows.append(Row(["All pairs", *total.values(), _written_as_made(total)], "total"))
    columns = [
        Column("Label source", "text"),
        Column("Made"),
        Column(f"{_MINUS}{_NBSP}merged"),
        Column(f"={_NBSP}written"),
        Column("", "check"),
    ]
    return Table(columns, rows)


def _written_as_made(counts: Mapping[str, int]) -> bool:
    return counts["made"] - counts["merged"] == counts["written"]


def template_pairs(manifest: Mapping[str, Any]) -> Table:
    """Return the instructions, and the pairs of each source, by dataset and template."""
    present = [source for source in SOURCES if source.key in manifest["pairs"]]

    def cells(_: Mapping[str, Any], template: Mapping[str, Any]) -> list[int]:
        counts = [template["pairs"].get(source.key, 0) for source in present]
        return [template["rendered"], *counts, sum(counts)] if present else [template["rendered"]]

    shown, left_out = _with_total_last(_grouped(manifest, cells))
    columns = [Column("Dataset and template", "text"), Column("Instructions")]
    if present:
        columns += [*(Column(source.label) for source in present), Column("All pairs")]
    return Table(columns, shown, left_out)


def accounting(manifest: Mapping[str, Any], *, by_template: bool) -> Table:
    """Return the outcomes of every (row, template), by dataset or also by template, each row with a check."""

    def cells(dataset: Mapping[str, Any], template: Mapping[str, Any]) -> list[int]:
        return [dataset["rows"], *(template[outcome] for outcome in OUTCOMES)]

    rows = _grouped(manifest, cells)
    if not by_template:
        rows = [Row(row.cells, "total" if row.style == "total" else "") for row in rows if row.style != "member"]
    rows = [Row([*row.cells, _adds_up(*row.cells[1:])], row.style) for row in rows]
    shown, left_out = _with_total_last(rows)
    columns = [
        Column("Dataset and template" if by_template else "Dataset", "text"),
        Column(f"Rows {_TIMES} templates"),
        Column(f"={_NBSP}rendered"),
        Column(f"+{_NBSP}sampled out"),
        Column(f"+{_NBSP}not applicable"),
        Column(f"+{_NBSP}rejected"),
        Column("", "check"),
    ]
    return Table(columns, shown, left_out)


def _adds_up(whole: Any, *parts: Any) -> bool:
    return bool(whole == sum(parts))


def _grouped(manifest: Mapping[str, Any], cells: Cells) -> list[Row]:
    """Return a row for each dataset, its templates below it, and a total; sums of the numbers that `cells` returns."""
    rows: list[Row] = []
    every: list[list[int]] = []
    for label, dataset in manifest["datasets"].items():
        members = [(template["name"], cells(dataset, template)) for template in dataset["templates"].values()]
        if members:
            every.append(_sums(numbers for _, numbers in members))
            rows.append(Row([label, *every[-1]], "group"))
            rows += [Row([name, *numbers], "member") for name, numbers in members]
    return [*rows, Row(["All datasets", *_sums(every)], "total")] if every else []


def _with_total_last(rows: list[Row]) -> tuple[list[Row], int]:
    """Return at most `MOST_TEMPLATES` rows and the total, the last of `rows`; and how many are left out."""
    shown, left_out = first_rows(rows[:-1], MOST_TEMPLATES)
    return [*shown, *rows[-1:]], left_out


def _sums(rows: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
