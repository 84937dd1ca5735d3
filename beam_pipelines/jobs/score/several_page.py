"""The page of a run with several scorers."""

from collections.abc import Mapping
from typing import Any

from beam_pipelines.jobs.score.scorers import SCORERS, folder_of
from beam_pipelines.report import tables, text
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table, count
from beam_pipelines.report.plots import Bar
from beam_pipelines.runs.data import data_entries
from schemas.manifest import REPORT


def page_of_several(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of a run with several scorers."""
    totals, runs = manifest["totals"], manifest["scorers"]
    return Page(
        title="score",
        headline=f"{text.plural(totals['rows'], 'row')} scored by {text.plural(len(runs), 'scorer')}",
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            **tables.content(manifest),
            "scorers": _scorers(runs),
            "runs": [_run(name, run) for name, run in runs.items()],
            "accounting": tables.accounting(
                "Rows read",
                totals["rows"],
                written=sum(entry["rows"] for entry in data_entries(manifest)),
                rejected=manifest["rejects"]["rows"],
            ),
            "rows": manifest["samples"]["any"],
        },
    )


def _lead(manifest: Mapping[str, Any]) -> str:
    sentences = tables.warnings_in_words(manifest)
    for name, run in manifest["scorers"].items():
        unscored = run["totals"]["unscored"]
        if unscored:
            sentences.append(f"{text.plural(unscored, 'pair')} could not be scored by {name}.")
        sentences += tables.halved_in_words(run["tokens"], f"may change the last digits of {name}")
    return " ".join([*sentences, tables.rejected_in_words(manifest)])


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals, runs = manifest["totals"], manifest["scorers"]
    tokens = sum(run["tokens"]["real"] for run in runs.values())
    seconds = sum(run["seconds"] for run in runs.values())
    return [
        count(totals["rows"], "row", text.plural(len(manifest["inputs"]), "input file")),
        count(totals["scored"], "score", f"of {text.plural(len(runs), 'scorer')}"),
        *([count(totals["reused"], "reused score", "of an earlier run")] if "reused" in totals else []),
        KeyFigure(text.compact(tokens), text.noun(tokens, "token"), "read by all scorers"),
        KeyFigure(text.duration(seconds), "of scoring", "in the last launch of each scorer"),
        *tables.last_figures(manifest),
    ]


def _scorers(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = [
        *(Column("Column", "code"), Column("Model", "text"), Column("Head", "code"), Column("Template", "code")),
        *(Column("Format", "code"), Column("Longest pair"), Column("Pairs"), Column("Unscored")),
        *(Column("Cut", "figure"), Column("Tokens"), Column("Time", "figure")),
    ]
    rows = []
    for name, run in runs.items():
        model, totals = run["model"], run["totals"]
        pairs = [totals["scored"], totals["unscored"], text.share(totals["truncated"], totals["scored"])]
        described = [model["name"], model["head"], model["template"], model["dtype"], model["max_length"]]
        rows.append(Row([name, *described, *pairs, run["tokens"]["real"], text.duration(run["seconds"])]))
    return Table(columns, rows)


def _run(name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one scorer: its scores, the errors, the model, and the place of its own page."""
    errors = [Bar(text.human(reason), {"reject": pairs}) for reason, pairs in run["errors"].items()]
    return {
        "column": name,
        "report": f"{SCORERS}/{folder_of(name)}/{REPORT}",
        "scores": tables.score_histograms(run["scores"], {"all": ("All pairs", "accent")}),
        "outermost": tables.outermost_bins(run["scores"], "all"),
        "errors": tables.reason_bars(errors, "reason", title=f"Pairs without {name}, by reason", axis="pairs"),
        "model": list(text.flatten(run["model"])),
    }
