"""The page of a score run."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from beam_pipelines.jobs.score.several_page import page_of_several
from beam_pipelines.report import tables, text
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table, count
from beam_pipelines.report.plots import Bar, Histogram, histogram_rows
from beam_pipelines.runs.data import data_entries

_SAMPLES = {"highest": "Highest scores", "lowest": "Lowest scores", "any": "Random rows"}


def page(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of a score run, of one scorer or of several."""
    if "scorers" in manifest:
        return page_of_several(manifest)
    totals, samples = manifest["totals"], manifest["samples"]
    written = sum(file["rows"] for file in data_entries(manifest))
    return Page(
        title="score",
        headline=f"{text.plural(totals['scored'], 'pair')} scored in {text.plural(totals['rows'], 'row')}",
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **tables.content(manifest),
            "score_column": manifest["configuration"]["score_column"],
            "model": list(text.flatten(manifest["model"])),
            "scores": tables.score_histograms(manifest["scores"], {"all": ("All pairs", "accent")}),
            "outermost": tables.outermost_bins(manifest["scores"], "all"),
            "lengths": _lengths(manifest["lengths"]),
            "errors": tables.reason_bars(
                [Bar(text.human(reason), {"reject": pairs}) for reason, pairs in manifest["errors"].items()],
                "reason",
                title="Pairs without a score, by reason",
                axis="pairs",
            ),
            "accounting": tables.accounting(
                "Rows read", totals["rows"], written=written, rejected=manifest["rejects"]["rows"]
            ),
            "tokens": _tokens(manifest),
            "samples": [(title, samples[key]) for key, title in _SAMPLES.items() if samples[key]],
        },
    )


def _lead(manifest: Mapping[str, Any]) -> str:
    totals, sentences = manifest["totals"], []
    if totals["scored"] and not manifest.get("warnings"):
        share = text.share(totals["truncated"], totals["scored"])
        sentences.append(f"{share} of the pairs were truncated to {manifest['model']['max_length']:,} tokens.")
    sentences += tables.warnings_in_words(manifest)
    if totals["unscored"]:
        sentences.append(f"{text.plural(totals['unscored'], 'pair')} could not be scored.")
    sentences += tables.halved_in_words(manifest["tokens"], "may change the last digits of scores")
    return " ".join([*sentences, tables.rejected_in_words(manifest)])


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, tokens = manifest["totals"], manifest["tokens"]
    padding = text.share(tokens["padding"], tokens["real"] + tokens["padding"])
    return [
        count(totals["rows"], "row", text.plural(len(manifest["inputs"]), "input file")),
        count(totals["distinct"], "distinct pair", "equal pairs of a unit are scored once"),
        *([count(totals["reused"], "reused pair", "with the score of an earlier run")] if "reused" in totals else []),
        *tables.throughput(manifest, f"plus {padding} padding"),
        *tables.last_figures(manifest),
    ]


def _lengths(lengths: Mapping[str, Any]) -> Markup | None:
    if not any(lengths["pairs"]):
        return None
    row = Histogram("All pairs", lengths["pairs"], "accent")
    high = len(lengths["pairs"]) * lengths["tokens_per_bin"]
    return histogram_rows([row], title="Lengths of pairs in tokens", axis="tokens", high=high)


def _tokens(manifest: Mapping[str, Any]) -> Table:
    totals, tokens = manifest["totals"], manifest["tokens"]
    cells = {
        "Pairs": totals["scored"],
        "Distinct": totals["distinct"],
        **({"Reused": totals["reused"]} if "reused" in totals else {}),
        "Truncated": totals["truncated"],
        "Tokens": tokens["real"],
        "Padding tokens": tokens["padding"],
        "Out of memory": tokens["out_of_memory"],
    }
    return Table([Column(label) for label in cells], [Row(list(cells.values()))])
