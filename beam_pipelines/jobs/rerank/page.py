"""The page of a rerank run."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipelines.report import tables, text
from beam_pipelines.report.frame import KeyFigure, Page, count
from beam_pipelines.report.plots import Dots, dot_rows

_SERIES = {"random": "quiet", "first": "mismatch", "best": "accent"}
"""The compared choices with their colours. The manifest calls the expected score of a random choice `mean`."""

_SCORES = {"all": ("All candidates", "quiet"), "best": ("Best of a group", "accent")}


def page(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of a rerank run."""
    totals, gain = manifest["totals"], manifest["gain"]
    selected, candidates = text.plural(totals["selected"], "response"), text.plural(totals["candidates"], "candidate")
    return Page(
        title="rerank",
        headline=f"{selected} selected from {candidates} in {text.plural(totals['groups'], 'group')}",
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **tables.content(manifest),
            "gain": _gain(gain["by_size"]),
            "unmeasured": gain["all"]["groups"] - gain["all"]["measured"],
            "series": [(colour, name) for name, colour in _SERIES.items()],
            "scores": tables.score_histograms(manifest["scores"], _SCORES),
            "outermost": tables.outermost_bins(manifest["scores"], "all"),
            "accounting": tables.accounting(
                "Candidates", totals["candidates"], compared=totals["compared"], rejected=totals["rejected"]
            ),
            "samples": manifest["samples"]["selections"],
        },
    )


def _lead(manifest: Mapping[str, Any]) -> str:
    totals, gain = manifest["totals"], manifest["gain"]["all"]
    sentences = [f"Candidates are compared by the column {manifest['configuration']['columns']['score']}."]
    if gain["measured"]:
        best, mean, first = (text.decimal(gain[name]) for name in ("best", "mean", "first"))
        sentences.append(
            f"The best candidate of a group scores {best} on average, a random one {mean} and the first one {first}."
        )
    lost = text.plural(totals["rejected"], "candidate")
    sentences.append(f"{lost} could not be compared." if totals["rejected"] else "Every candidate was compared.")
    return " ".join(sentences)


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, gain = manifest["totals"], manifest["gain"]["all"]
    rows, files = text.plural(totals["rows"], "row"), text.plural(len(manifest["inputs"]), "input file")
    each = f"{totals['compared'] / totals['groups']:.1f} candidates per group" if totals["groups"] else ""
    top_k = manifest["configuration"]["top_k"]
    figures = [
        count(totals["candidates"], "candidate", f"{rows}, {files}"),
        count(totals["groups"], "group", each),
        KeyFigure(text.number(totals["selected"]), "selected", f"top {top_k:,} of each group"),
    ]
    if gain["measured"]:
        more = text.decimal(gain["best"] - gain["mean"], "+.3f")
        figures.append(KeyFigure(more, "mean score", "best minus random"))
    return figures + tables.last_figures(manifest)


def _gain(by_size: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw mean scores of the best, the first and a random candidate by group size; None without measured groups."""
    rows = []
    for entry in by_size:
        if entry["measured"]:
            low, high = entry["from"], entry["to"]
            size = text.plural(low, "candidate") if low == high else f"{low:,} to {high:,} candidates"
            values = {"random": entry["mean"], "first": entry["first"], "best": entry["best"]}
            rows.append(Dots(size, text.plural(entry["measured"], "group"), values))
    title = "Mean scores of a random, the first and the best candidate, by group size"
    return dot_rows(rows, _SERIES, title=title, axis="mean score") if rows else None
