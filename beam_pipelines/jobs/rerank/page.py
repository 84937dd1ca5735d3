"""The page of a rerank run."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from beam_pipelines.report import tables as common
from beam_pipelines.report import text as words
from beam_pipelines.report.frame import KeyFigure, Page
from beam_pipelines.report.plots import Dots, dot_rows

SERIES = {"random": "quiet", "first": "mismatch", "best": "accent"}
"""What is compared, each with its colour. In the manifest the score of a random choice is the mean."""

_SCORES = {"all": ("All candidates", "quiet"), "best": ("Best of a group", "accent")}


def rerank_page(manifest: Mapping[str, Any]) -> Page:
    """The page for the manifest of a rerank run."""
    totals = manifest["totals"]
    return Page(
        template="rerank.html.j2",
        title="rerank",
        headline=_headline(totals),
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **common.content(manifest),
            "gain": _gain(manifest["gain"]["by_size"]),
            "unmeasured": manifest["gain"]["all"]["groups"] - manifest["gain"]["all"]["measured"],
            "series": list(SERIES.items()),
            "scores": common.score_histograms(manifest["scores"], _SCORES),
            "accounting": common.accounting(
                "Candidates", totals["candidates"], compared=totals["compared"], rejected=totals["rejected"]
            ),
            "samples": manifest["samples"]["selections"],
        },
    )


def _headline(totals: Mapping[str, int]) -> str:
    selected, candidates = words.plural(totals["selected"], "response"), words.plural(totals["candidates"], "candidate")
    return f"{selected} selected from {candidates} in {words.plural(totals['groups'], 'group')}"


def _lead(manifest: Mapping[str, Any]) -> str:
    """What choosing is worth, and whether anything went wrong."""
    gain, totals = manifest["gain"]["all"], manifest["totals"]
    sentences = []
    if gain["measured"]:
        best, mean, first = (words.decimal(gain[name]) for name in ("best", "mean", "first"))
        sentences.append(
            f"The best candidate of a group scores {best} on average, a random one {mean} and the first one {first}."
        )
    lost = totals["rejected"]
    if lost:
        sentences.append(f"{words.plural(lost, 'candidate')} could not be compared.")
    else:
        sentences.append("Every candidate was compared.")
    return " ".join(sentences)


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, gain = manifest["totals"], manifest["gain"]["all"]
    each = f"{totals['compared'] / totals['groups']:.1f} per group" if totals["groups"] else ""
    inputs = words.plural(len(manifest["inputs"]), "input file")
    top_k = manifest["configuration"]["top_k"]
    chosen = "the best of each group" if top_k == 1 else f"the best {top_k:,} of each group"
    figures = [
        KeyFigure(words.number(totals["candidates"]), "candidates", f"{words.plural(totals['rows'], 'row')}, {inputs}"),
        KeyFigure(words.number(totals["groups"]), "groups", each),
        KeyFigure(words.number(totals["selected"]), "selected", chosen),
    ]
    if gain["measured"]:
        more = gain["best"] - gain["mean"]
        figures.append(KeyFigure(words.decimal(more, "+.3f"), "mean score", "the best over a random choice"))
    return figures + common.last_figures(manifest)


def _gain(by_size: list[dict[str, Any]]) -> Markup | None:
    """Mean scores of the best, the first and a random candidate, by size of group; None where no group is measured."""
    rows = []
    for entry in by_size:
        if entry["measured"]:
            low, high = entry["from"], entry["to"]
            size = words.plural(low, "candidate") if low == high else f"{low:,} to {high:,} candidates"
            values = {"random": entry["mean"], "first": entry["first"], "best": entry["best"]}
            rows.append(Dots(size, words.plural(entry["measured"], "group"), values))
    title = "Mean scores of a random, the first and the best candidate, by size of group"
    return dot_rows(rows, SERIES, title=title, axis="mean score") if rows else None
