"""What the page of every job shows: what was rejected, the settings, and the files read and written."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipelines.report import text as words
from beam_pipelines.report.frame import Column, KeyFigure, Row, Table, first_rows
from beam_pipelines.report.plots import Bar, Histogram, histogram_rows, longest, stacked_bars

MOST_FILES = 200
MOST_REASONS = 12
MOST_BINS = 80
COARSER = (1, 2, 4, 5, 10, 20, 40, 50, 100, 200)
"""By how much bins are widened until they can be told apart."""

_NBSP = "\u00a0"
WORDY = 440
"""Width of long labels, in pixels."""


def content(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the macros `rejects` and `run` of parts.html.j2 are given."""
    return {
        "reject_reasons": reject_reasons(manifest),
        "settings": list(words.flatten(manifest["configuration"])),
        "inputs": inputs(manifest),
        "files": files(manifest),
    }


def rejected_in_words(manifest: Mapping[str, Any]) -> str:
    """The sentence that says whether anything was rejected."""
    rejected = manifest["rejects"]["rows"]
    if not rejected:
        return "Nothing was rejected."
    return f"There {'are' if rejected > 1 else 'is'} {words.plural(rejected, 'reject row')}."


def last_figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    """The key figures with which every row of them ends: rejects, and bytes written."""
    rejects, written = manifest["rejects"], manifest["files"]
    return [
        KeyFigure(words.number(rejects["rows"]), "reject rows", f"{words.share(rejects['rate'], 1)} reject rate"),
        KeyFigure(words.size(sum(file["bytes"] for file in written)), "written", words.plural(len(written), "file")),
    ]


def reject_reasons(manifest: Mapping[str, Any]) -> Markup | None:
    """Reject rows by stage and reason; None where there is none."""
    reasons = [
        Bar(f"{words.human(stage)}: {words.human(reason)}", {"reject": count})
        for stage, by_reason in manifest["rejects"]["by_reason"].items()
        for reason, count in by_reason.items()
        if count
    ]
    bars = longest(reasons, "reason", MOST_REASONS)
    return stacked_bars(bars, title="Reject rows by reason", label_width=WORDY) if bars else None


def score_histograms(
    scores: Mapping[str, Any], rows: Mapping[str, tuple[str, str]], *, axis: str = "score", unit: str = "score"
) -> Markup | None:
    """Histograms of raw scores in bins wide enough to see, one for each of `rows`: their labels and colours by name.

    `scores` holds sparse counts by name and number of bin, the number of `bins`, and `bins_per_score`. None: no score.
    `axis` names what is scored with, `unit` what is counted.
    """
    found = {name: {int(number): count for number, count in scores[name].items()} for name in rows}
    used = [number for counts in found.values() for number in counts]
    if not used:
        return None
    width = next(width for width in COARSER if max(used) // width - min(used) // width < MOST_BINS)
    first, last = min(used) // width, max(used) // width
    drawn = []
    for name, (label, colour) in rows.items():
        counts = [0] * (last - first + 1)
        for number, count in found[name].items():
            counts[number // width - first] += count
        drawn.append(Histogram(label, counts, colour, unit))
    low, high = ((number * width - scores["bins"] // 2) / scores["bins_per_score"] for number in (first, last + 1))
    title = f"Histograms of the {axis}: {', '.join(label for label, _ in rows.values())}"
    return histogram_rows(drawn, title=title, axis=axis, low=low, high=high)


def accounting(label: str, whole: int, **parts: int) -> Table:
    """What became of all that was read: `whole` = the sum of the `parts`, checked."""
    signs = ["=", *("+" for _ in parts)]
    columns = [Column(f"{sign}{_NBSP}{name}") for sign, name in zip(signs, parts, strict=False)]
    return Table(
        [Column(label), *columns, Column("", "check")], [Row([whole, *parts.values(), whole == sum(parts.values())])]
    )


def inputs(manifest: Mapping[str, Any]) -> Table:
    """The files that were read, by dataset where the job has several."""
    entries = manifest["inputs"]
    columns = {
        "name": Column("File", "code"),
        "size": Column("Size", "bytes"),
        "rows": Column("Rows"),
        "ends": Column("Hash of its ends", "code"),
    }
    if any("dataset" in entry for entry in entries):
        columns = {"dataset": Column("Dataset", "text"), **columns}
    return _listing(columns, entries)


def files(manifest: Mapping[str, Any]) -> Table:
    """The files that were written."""
    columns = {
        "path": Column("File", "code"),
        "rows": Column("Rows"),
        "bytes": Column("Size", "bytes"),
        "digest": Column("blake2b-128", "code"),
    }
    return _listing(columns, manifest["files"])


def _listing(columns: Mapping[str, Column], entries: Sequence[Mapping[str, Any]]) -> Table:
    shown, left_out = first_rows([Row([entry[key] for key in columns]) for entry in entries], MOST_FILES)
    return Table(list(columns.values()), shown, left_out, "file")
