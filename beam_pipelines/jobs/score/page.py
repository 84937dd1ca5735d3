"""The page of a score run."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from beam_pipelines.report import tables as common
from beam_pipelines.report import text as words
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table
from beam_pipelines.report.plots import Bar, Histogram, histogram_rows, longest, stacked_bars

SAMPLES = {"highest": "Highest scores", "lowest": "Lowest scores", "any": "Any rows"}


def score_page(manifest: Mapping[str, Any]) -> Page:
    """The page for the manifest of a score run."""
    totals = manifest["totals"]
    written = sum(file["rows"] for file in manifest["files"] if "/" not in file["path"])
    return Page(
        template="score.html.j2",
        title="score",
        headline=_headline(manifest),
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **common.content(manifest),
            "columns": _columns(manifest["configuration"]),
            "model": list(words.flatten(manifest["model"])),
            "scores": common.score_histograms(manifest["scores"], {"all": ("All pairs", "accent")}),
            "lengths": _lengths(manifest["lengths"]),
            "errors": _errors(manifest["errors"]),
            "accounting": common.accounting(
                "Rows read", totals["rows"], written=written, rejected=manifest["rejects"]["rows"]
            ),
            "work": _work(manifest),
            "samples": [
                (title, manifest["samples"][key]) for key, title in SAMPLES.items() if manifest["samples"][key]
            ],
        },
    )


def _columns(configuration: Mapping[str, Any]) -> dict[str, str]:
    return {name: configuration[f"{name}_column"] for name in ("instruction", "response", "score")}


def _headline(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    return f"{words.plural(totals['scored'], 'pair')} scored in {words.plural(totals['rows'], 'row')}"


def _lead(manifest: Mapping[str, Any]) -> str:
    totals, tokens = manifest["totals"], manifest["tokens"]
    sentences = []
    if totals["scored"]:
        cut = words.share(totals["truncated"], totals["scored"])
        sentences.append(f"{cut} of the pairs were cut to {manifest['model']['max_length']:,} tokens.")
    if totals["unscored"]:
        sentences.append(f"{words.plural(totals['unscored'], 'pair')} could not be scored.")
    if tokens["out_of_memory"]:
        often = words.plural(tokens["out_of_memory"], "time")
        sentences.append(f"Memory ran out {often}: batches were halved, which may move last digits.")
    return " ".join([*sentences, common.rejected_in_words(manifest)])


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, tokens = manifest["totals"], manifest["tokens"]
    files = words.plural(len(manifest["inputs"]), "input file")
    rate = tokens["this_launch"] / manifest["seconds"] if manifest["seconds"] else 0.0
    launch = "with start-up" if tokens["this_launch"] == tokens["real"] else "of the last launch"
    return [
        KeyFigure(words.number(totals["rows"]), "rows", files),
        KeyFigure(words.number(totals["distinct"]), "distinct pairs", "equal ones are scored once"),
        KeyFigure(words.compact(tokens["real"]), "tokens", f"{_padding(tokens)} of padding beside them"),
        KeyFigure(words.number(round(rate)), "tokens per second", launch),
        *common.last_figures(manifest),
    ]


def _padding(tokens: Mapping[str, int]) -> str:
    return words.share(tokens["padding"], tokens["real"] + tokens["padding"])


def _lengths(lengths: Mapping[str, Any]) -> Markup | None:
    if not any(lengths["pairs"]):
        return None
    row = Histogram("All pairs", lengths["pairs"], "accent")
    high = len(lengths["pairs"]) * lengths["tokens_per_bin"]
    return histogram_rows([row], title="Lengths of pairs in tokens", axis="tokens", high=high)


def _errors(errors: Mapping[str, int]) -> Markup | None:
    bars = longest([Bar(words.human(reason), {"reject": count}) for reason, count in errors.items()], "reason", 12)
    return stacked_bars(bars, title="Pairs without a score, by reason", label_width=common.WORDY) if bars else None


def _work(manifest: Mapping[str, Any]) -> Table:
    totals, tokens = manifest["totals"], manifest["tokens"]
    columns = [Column(label) for label in ("Pairs", "Distinct", "Cut", "Tokens", "Tokens of padding", "Out of memory")]
    cells = [
        totals["scored"],
        totals["distinct"],
        totals["truncated"],
        tokens["real"],
        tokens["padding"],
        tokens["out_of_memory"],
    ]
    return Table(columns, [Row(cells)])
