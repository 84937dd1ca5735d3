"""Parts of every job's page: rejects, row counts, the configuration, and the files read and written."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipelines.report import text
from beam_pipelines.report.frame import Column, KeyFigure, Row, Table, count, first_rows
from beam_pipelines.report.plots import Bar, Histogram, histogram_rows, longest, stacked_bars

MOST_FILES = 200
MOST_REASONS = 12
MOST_BINS = 80
COARSER = (1, 2, 4, 5, 10, 20, 40, 50, 100, 200)
"""Factors by which bins are widened until they are few enough to tell apart."""

_NBSP = "\u00a0"
_WORDY = 440
"""The most width of long labels, in pixels."""


def content(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the macros `rejects` and `run` in parts.html.j2."""
    return {
        "reject_reasons": reject_reasons(manifest),
        "settings": list(text.flatten(manifest["configuration"])),
        "inputs": inputs(manifest),
        "files": files(manifest),
    }


def rejected_in_words(manifest: Mapping[str, Any]) -> str:
    """Return the sentence about reject rows."""
    rejected = manifest["rejects"]["rows"]
    if not rejected:
        return "Nothing was rejected."
    return f"There {'are' if rejected > 1 else 'is'} {text.plural(rejected, 'reject row')}."


def warnings_in_words(manifest: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each warning."""
    return [f"Warning: {warning}." for warning in manifest.get("warnings", ())]


def halved_in_words(tokens: Mapping[str, int], risk: str) -> list[str]:
    """Return the sentence about batches that did not fit in memory, and the `risk` to results; none if all fitted."""
    times = tokens["out_of_memory"]
    return [f"Memory ran out {text.plural(times, 'time')}: batches were halved, which {risk}."] if times else []


def last_figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    """Return the key figures that end every page's row of them: rejects, and bytes written."""
    rejects, written = manifest["rejects"], manifest["files"]
    return [
        count(rejects["rows"], "reject row", f"{text.share(rejects['rate'], 1)} reject rate"),
        KeyFigure(text.size(sum(file["bytes"] for file in written)), "written", text.plural(len(written), "file")),
    ]


def throughput(manifest: Mapping[str, Any], detail: str) -> list[KeyFigure]:
    """Return the key figures of tokens and tokens per second, for a job with a model."""
    tokens, seconds = manifest["tokens"], manifest["seconds"]
    rate = tokens["this_launch"] / seconds if seconds else 0.0
    launch = "including start-up" if tokens["this_launch"] == tokens["real"] else "in the last launch"
    return [
        KeyFigure(text.compact(tokens["real"]), text.noun(tokens["real"], "token"), detail),
        KeyFigure(text.number(round(rate)), "tokens per second", launch),
    ]


def reject_reasons(manifest: Mapping[str, Any]) -> Markup | None:
    """Draw reject rows by stage and reason; None if there are no rejects."""
    reasons = [
        Bar(f"{text.human(stage)}: {text.human(reason)}", {"reject": rows})
        for stage, by_reason in manifest["rejects"]["by_reason"].items()
        for reason, rows in by_reason.items()
        if rows
    ]
    return reason_bars(reasons, "reason", title="Reject rows by reason", axis="reject rows")


def reason_bars(bars: Sequence[Bar], noun: str, *, title: str, axis: str) -> Markup | None:
    """Draw the longest bars, with room for long labels; None without bars."""
    drawn = longest(bars, noun, MOST_REASONS)
    return stacked_bars(drawn, title=title, axis=axis, widest=_WORDY) if drawn else None


def score_histograms(
    scores: Mapping[str, Any], rows: Mapping[str, tuple[str, str]], *, axis: str = "score", unit: str = "score"
) -> Markup | None:
    """Draw histograms of raw scores, one for each of `rows` (name -> label, colour); None without scores.

    Args:
        scores: sparse counts {name: {bin: count}}, the number of `bins`, and `bins_per_score`.
        axis: the title of the horizontal axis.
        unit: the singular of what is counted.
    """
    found = {name: {int(number): times for number, times in scores[name].items()} for name in rows}
    used = [number for counts in found.values() for number in counts]
    if not used:
        return None
    width = next(width for width in COARSER if max(used) // width - min(used) // width < MOST_BINS)
    first, last = min(used) // width, max(used) // width
    drawn = []
    for name, (label, colour) in rows.items():
        counts = [0] * (last - first + 1)
        for number, times in found[name].items():
            counts[number // width - first] += times
        drawn.append(Histogram(label, counts, colour, unit))
    low, high = ((number * width - scores["bins"] // 2) / scores["bins_per_score"] for number in (first, last + 1))
    title = f"Histograms of the {axis}: {', '.join(label for label, _ in rows.values())}"
    return histogram_rows(drawn, title=title, axis=axis, low=low, high=high)


def outermost_bins(scores: Mapping[str, Any], name: str) -> int:
    """Return the number of scores in the first and the last bin, which take all scores beyond them."""
    return sum(times for number, times in scores[name].items() if int(number) in (0, scores["bins"] - 1))


def accounting(label: str, whole: int, **parts: int) -> Table:
    """Return a table of `whole` = the sum of the `parts`, with a check."""
    signs = ["=", *("+" for _ in parts)]
    columns = [Column(f"{sign}{_NBSP}{text.human(name)}") for sign, name in zip(signs, parts, strict=False)]
    return Table(
        [Column(label), *columns, Column("", "check")], [Row([whole, *parts.values(), whole == sum(parts.values())])]
    )


def inputs(manifest: Mapping[str, Any]) -> Table:
    """Return the table of files that were read, with a column for the dataset if the job has several.

    For a run whose input has grown, another column says when each was added.
    """
    entries, growth = manifest["inputs"], manifest.get("growth", ())
    columns = {
        "name": Column("File", "code"),
        "size": Column("Size", "bytes"),
        "rows": Column("Rows"),
        "ends": Column("Hash of head and tail", "code"),
    }
    if any("dataset" in entry for entry in entries):
        columns = {"dataset": Column("Dataset", "text"), **columns}
    if len(growth) > 1:
        columns["added"] = Column("Added", "text")
        times = [launch["begun"] for launch in growth for _ in range(launch["files"])]
        entries = [{**entry, "added": text.moment(time)} for entry, time in zip(entries, times, strict=True)]
    return _listing(columns, entries)


def files(manifest: Mapping[str, Any]) -> Table:
    """Return the table of files that were written."""
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
