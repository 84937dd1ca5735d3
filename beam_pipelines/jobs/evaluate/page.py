"""The page of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipelines.jobs.evaluate.plots import Mark, curves, interval_rows, reliability
from beam_pipelines.report import tables as common
from beam_pipelines.report import text as words
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table
from cappy_model.metrics.evaluation import ORACLE, RANDOM, SCORER, SELF_SCORES

MEASURES = {
    "rouge_l": ("Rouge-L of the chosen response", "Rouge-L"),
    "accuracy": ("Accuracy of the chosen answer", "accuracy"),
    "spearman": ("Spearman's rank correlation within groups", "rank correlation"),
    "kendall": ("Kendall's tau-b within groups", "tau-b"),
    "pairwise_accuracy": ("Pairwise accuracy within groups", "pairs in the right order"),
    "spearman_over_all": ("Spearman's rank correlation over all candidates", "rank correlation"),
    "kendall_over_all": ("Kendall's tau-b over all candidates", "tau-b"),
    "auc_over_all": ("AUC over all candidates", "AUC"),
}
"""Each measure: its heading, and what an axis calls it."""

_SCORER_COLOURS = ("accent", "ground-truth", "wrong-choice", "reject")
_COLOURS = {ORACLE: "ink", RANDOM: "quiet", **dict.fromkeys(SELF_SCORES, "mismatch")}
_MOST_BINS = 20
_MOST_SCORERS = 4


def evaluate_page(manifest: Mapping[str, Any]) -> Page:
    """The page for the manifest of an evaluation."""
    measures, totals = manifest["results"]["measures"], manifest["totals"]
    shown = {name: measure for name, measure in measures.items() if measure["macro"] is not None}
    return Page(
        template="evaluate.html.j2",
        title=f"evaluate {manifest['configuration']['task']}",
        headline=_headline(shown, totals),
        lead=_lead(shown, manifest),
        figures=_figures(shown, manifest),
        content={
            **common.content(manifest),
            "measures": [_measure(name, measure) for name, measure in shown.items()],
            "curves": _curves(manifest["results"]),
            "templates": _templates(manifest["results"]),
            "reliability": _reliability(manifest),
            "level": f"{manifest['results']['bootstrap']['level']:.0%}",
            "replicates": manifest["results"]["bootstrap"]["replicates"],
            "accounting": common.accounting(
                "Candidates", totals["candidates"], evaluated=totals["evaluated"], rejected=totals["rejected"]
            ),
            "unscored": {name: count for name, count in totals["unscored"].items() if count},
        },
    )


def _headline(measures: Mapping[str, Any], totals: Mapping[str, Any]) -> str:
    for name, measure in measures.items():
        scorers = _of_scorers(measure["macro"]["methods"])
        method = max(scorers, key=lambda key: scorers[key]["value"] or 0.0)
        return f"{method.removeprefix(SCORER)}: {words.with_interval(scorers[method])[0]} {MEASURES[name][1]}"
    return f"No example of {words.plural(totals['candidates'], 'candidate')} could be evaluated"


def _of_scorers(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {method: entry for method, entry in entries.items() if method.startswith(SCORER)}


def _lead(measures: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """How the scorers compare with the best baseline, by the first measure."""
    sentences = []
    for measure in list(measures.values())[:1]:
        best, methods = measure["macro"]["best_baseline"], measure["macro"]["methods"]
        for entry in measure["macro"]["differences"]:
            if entry["to"] == best:
                value, between = words.signed(entry)
                unclear = entry["low"] is None or entry["low"] <= 0 <= entry["high"]
                verb = "may not differ" if unclear else "differs"
                sentences.append(
                    f"{entry['method'].removeprefix(SCORER)} {verb} from the best baseline, {best} "
                    f"({words.with_interval(methods[best])[0]}): {value}{f' ({between})' if between else ''}."
                )
    return " ".join([*sentences, common.rejected_in_words(manifest)])


def _figures(measures: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[KeyFigure]:
    totals = manifest["totals"]
    datasets = max((len(measure["datasets"]) for measure in measures.values()), default=0)
    same = f"{words.plural(totals['duplicates'], 'equal text')} merged" if totals["duplicates"] else "as they are"
    return [
        KeyFigure(words.number(totals["examples"]), "examples", words.plural(datasets, "dataset")),
        KeyFigure(words.number(totals["evaluated"]), "candidates", same),
        *common.last_figures(manifest),
    ]


def _colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour of the theme for each method; scorers are told apart, first samples are alike."""
    scorers = [method for method in methods if method.startswith(SCORER)]
    found = {method: _SCORER_COLOURS[index % len(_SCORER_COLOURS)] for index, method in enumerate(scorers)}
    return {method: found.get(method, _COLOURS.get(method, "dim")) for method in methods}


def _measure(name: str, measure: Mapping[str, Any]) -> dict[str, Any]:
    """What the section of a measure shows: dots with intervals, differences, and a table by dataset."""
    macro, (title, axis) = measure["macro"], MEASURES[name]
    colours = _colours([*macro["methods"]])
    marks = [
        Mark(method, entry, colours[method]) for method, entry in macro["methods"].items() if entry["value"] is not None
    ]
    differences = [
        Mark(f"{entry['method'].removeprefix(SCORER)} less {entry['to'].removeprefix(SCORER)}", entry,
             colours[entry["method"]])
        for entry in macro["differences"] if entry["value"] is not None
    ]  # fmt: skip
    return {
        "name": name,
        "title": title,
        "over": words.plural(len(measure["datasets"]), "dataset"),
        "plot": interval_rows(marks, title=title, axis=axis) if marks else None,
        "differences": interval_rows(
            differences, title=f"Differences in {axis}", axis=f"difference in {axis}", zero=True
        )
        if differences
        else None,
        "table": _by_dataset(measure),
    }


def _by_dataset(measure: Mapping[str, Any]) -> Table:
    """Every method in every dataset with its interval, and the macro average below."""
    columns = [Column("Dataset", "text"), *(Column(name, "text") for name in ("Method", "Value", "Interval"))]
    rows = []
    scopes = list(measure["datasets"].items())
    if len(scopes) > 1:
        scopes.append(("macro average", measure["macro"]))
    for dataset, scope in scopes:
        for index, (method, entry) in enumerate(scope["methods"].items()):
            cells = [dataset if index == 0 else None, method, *words.with_interval(entry), entry["count"]]
            rows.append(Row(cells))
    return Table([*columns, Column(measure["of"].capitalize())], rows)


def _curves(results: Mapping[str, Any]) -> Markup | None:
    found = results.get("curves")
    if not found or not found["macro"]:
        return None
    return curves(found["drawn"], found["macro"], _colours([*found["macro"]]), axis="mean Rouge-L of the choice")


def _templates(results: Mapping[str, Any]) -> Table | None:
    """What the scorers and the baselines are worth under each template."""
    found = results.get("templates")
    if not found:
        return None
    methods = list(dict.fromkeys(m for by in found.values() for scope in by.values() for m in scope["methods"]))
    rows = [
        Row([
            dataset, template, *(words.with_interval(scope["methods"][m])[0] for m in methods),
            max(entry["count"] for entry in scope["methods"].values()),
        ])
        for dataset, by_template in found.items() for template, scope in by_template.items()
    ]  # fmt: skip
    columns = [Column("Dataset", "text"), Column("Template", "text"), *(Column(m, "text") for m in methods)]
    return Table([*columns, Column("Examples")], rows)


def _reliability(manifest: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """A diagram for each of the first scorers, in bins wide enough to see."""
    columns = manifest["configuration"]["columns"]
    known = [name for method, name in columns["methods"].items() if method.startswith(SCORER)]
    names = [name for name in known if name in manifest["reliability"]][:_MOST_SCORERS]
    colours = _colours([f"{SCORER}{name}" for name in names])
    axis = columns["label"] or {"generation": "Rouge-L"}.get(manifest["configuration"]["task"], "correctness")
    return [
        (
            name,
            reliability(_merged(manifest["reliability"][name]), scorer=name, axis=axis, colour=colours[SCORER + name]),
        )
        for name in names
    ]


def _merged(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most twenty bins or so of equal width, of those that have candidates, from finer ones."""
    width = bins[0]["to"] - bins[0]["from"]
    wide = round((bins[-1]["to"] - bins[0]["from"]) / width)
    factor = next(each for each in common.COARSER if wide <= _MOST_BINS * each)
    merged: dict[int, dict[str, Any]] = {}
    for entry in bins:
        place = int((entry["from"] + width / 2) // (width * factor))
        first = {"from": place * width * factor, "to": (place + 1) * width * factor, "candidates": 0, "worth": 0.0}
        into = merged.setdefault(place, first)
        into["candidates"] += entry["candidates"]
        into["worth"] += entry["worth"] * entry["candidates"]
    return [{**entry, "worth": entry["worth"] / entry["candidates"]} for entry in merged.values()]
