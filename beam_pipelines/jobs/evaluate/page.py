"""The page of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipelines.jobs.evaluate.plots import Intervals, curves, is_calibrated, reliability
from beam_pipelines.report import tables, text
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table, count
from beam_pipelines.report.svg import Style, series_style
from cappy_model.metrics.evaluation import ORACLE, RANDOM, SCORER
from cappy_model.metrics.measures import MEASURES

_VALUES = {"generation": "Rouge-L", "classification": "correctness"}
"""The value of a candidate by task, where it is not a column of labels."""
_MOST_BINS = 20
_MOST_SCORERS = 4

Measures = Mapping[str, Any]
"""The manifest's entry for each measure that has a macro average."""


def page(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of an evaluation."""
    results, totals, configuration = manifest["results"], manifest["totals"], manifest["configuration"]
    measures = {name: measure for name, measure in results["measures"].items() if measure["macro"] is not None}
    level = f"{results['bootstrap']['level']:.0%} interval"
    styles = _styles(configuration["columns"]["methods"])
    value = configuration["columns"]["label"] or _VALUES.get(configuration["task"], "value")
    shown = _reliability_bins(manifest)
    first = shown[:_MOST_SCORERS]
    return Page(
        title=f"evaluate {configuration['task']}",
        headline=_headline(measures, totals),
        lead=_lead(measures, manifest, level),
        figures=_figures(measures, totals) + tables.last_figures(manifest),
        content={
            **tables.content(manifest),
            "datasets": list(dict.fromkeys(name for measure in measures.values() for name in measure["datasets"])),
            "replicates": results["bootstrap"]["replicates"],
            "level": level,
            "results": _results(measures, styles, level) if measures else None,
            "undefined": any(
                entry["value"] is None
                for measure in measures.values()
                for entry in measure["macro"]["methods"].values()
            ),
            "compared": any(measure["macro"]["differences"] for measure in measures.values()),
            "bounded": any(ORACLE in measure["macro"]["methods"] for measure in measures.values()),
            "pairs": _pairs(measures, styles, level),
            "by_dataset": _by_dataset(measures, level),
            "curves": _curves(results, styles, f"mean {value}"),
            "templates": _templates(results),
            "value": value,
            "reliability": [
                (name, reliability(bins, scorer=name, axis=value, style=styles[SCORER + name])) for name, bins in first
            ],
            "more_scorers": len(shown) - len(first),
            "calibrated": any(is_calibrated(bins) for _, bins in first),
            "clipped": any(bins[0]["from"] <= -100 or bins[-1]["to"] >= 100 for _, bins in first),
            "accounting": tables.accounting(
                "Candidates", totals["candidates"], evaluated=totals["evaluated"], rejected=totals["rejected"]
            ),
            "unscored": {name: number for name, number in totals["unscored"].items() if number},
        },
    )


def _name(measure: str) -> str:
    return MEASURES[measure].label if measure in MEASURES else text.human(measure)


def _heading(measure: str) -> str:
    name = _name(measure)
    return name[:1].upper() + name[1:]


def _headline(measures: Measures, totals: Mapping[str, Any]) -> str:
    for name, measure in measures.items():
        methods = measure["macro"]["methods"]
        scorers = {m: entry for m, entry in methods.items() if m.startswith(SCORER) and entry["value"] is not None}
        if scorers:
            best = max(scorers, key=lambda method: float(scorers[method]["value"]))
            return f"{best.removeprefix(SCORER)}: {text.with_interval(scorers[best])[0]} {_name(name)}"
    if measures:
        return f"No measure of {text.plural(totals['evaluated'], 'candidate')} is defined"
    return f"No example of {text.plural(totals['candidates'], 'candidate')} could be evaluated"


def _lead(measures: Measures, manifest: Mapping[str, Any], level: str) -> str:
    """Compare the scorers with the best baseline, by the first measure."""
    sentences = []
    for measure in list(measures.values())[:1]:
        best, methods = measure["macro"]["best_baseline"], measure["macro"]["methods"]
        for entry in measure["macro"]["differences"]:
            if entry["to"] == best and entry["value"] is not None:
                scorer, (difference, between) = entry["method"].removeprefix(SCORER), text.signed(entry)
                unclear = entry["low"] is None or entry["low"] <= 0 <= entry["high"]
                verb = "does not differ clearly from" if unclear else "is above" if entry["value"] > 0 else "is below"
                sentences.append(
                    f"{scorer} {verb} the best baseline, {best} ({text.with_interval(methods[best])[0]}): "
                    f"{difference}{f' ({level} {between})' if between else ''}."
                )
    return " ".join([*sentences, *tables.warnings_in_words(manifest), tables.rejected_in_words(manifest)])


def _figures(measures: Measures, totals: Mapping[str, Any]) -> list[KeyFigure]:
    datasets = max((len(measure["datasets"]) for measure in measures.values()), default=0)
    merged = f"{text.plural(totals['duplicates'], 'equal text')} merged" if totals["duplicates"] else "all distinct"
    return [
        count(totals["examples"], "example", text.plural(datasets, "dataset")),
        count(totals["evaluated"], "candidate", merged),
    ]


def _styles(choosers: Sequence[str] | Mapping[str, str]) -> dict[str, Style]:
    """Return a style for each method that chooses by a column of scores, and for the bounds."""
    styles = {method: series_style(index) for index, method in enumerate(choosers)}
    return styles | {ORACLE: Style("ink"), RANDOM: Style("quiet", "2 3")}


def _results(measures: Measures, styles: Mapping[str, Style], level: str) -> Table:
    """Return all measures as one table: a group for each, a row for each method."""
    bests = list(dict.fromkeys(measure["macro"]["best_baseline"] for measure in measures.values()))
    minus = f"Minus {bests[0]}" if len(bests) == 1 else "Minus best baseline"
    columns = [
        Column("Method", "name"),
        *(Column("Value", "figure"), Column(level, "figure"), Column("", "chart")),
        *(Column(minus, "figure"), Column(level, "figure"), Column("", "chart")),
        Column("Count", "figure"),
    ]
    rows = []
    for name, measure in measures.items():
        methods, best = measure["macro"]["methods"], measure["macro"]["best_baseline"]
        against = {entry["method"]: entry for entry in measure["macro"]["differences"] if entry["to"] == best}
        values, differences = Intervals(methods.values()), Intervals(against.values(), zero=True)
        note = "" if len(bests) == 1 else best or ""
        rows.append(Row([_heading(name), values.axis(), note, "", differences.axis(), measure["of"]], "group", 3))
        for method, entry in methods.items():
            style, other = styles.get(method, Style("dim")), against.get(method)
            compared: list[object] = ["", "", ""]
            if other:
                compared = [*text.signed(other), differences.cell(f"{method} minus {best}", other, style)]
            cells = [text.shorten(method, 30), *text.with_interval(entry), values.cell(method, entry, style), *compared]
            rows.append(Row([*cells, text.number(entry["count"])], "member"))
    if bests == [None]:
        columns = [*columns[:4], columns[7]]
        rows = [Row([*row.cells[:-4], row.cells[-1]], row.style, row.span) for row in rows]
    return Table(columns, rows)


def _pairs(measures: Measures, styles: Mapping[str, Style], level: str) -> Table | None:
    """Return the differences between scorers; None if there is only one scorer."""
    rows = []
    for name, measure in measures.items():
        pairs = [entry for entry in measure["macro"]["differences"] if entry["to"].startswith(SCORER)]
        plots = Intervals(pairs, zero=True)
        rows += [Row([_heading(name), plots.axis()], "group", 3)] if pairs else []
        for entry in pairs:
            label = f"{entry['method'].removeprefix(SCORER)} minus {entry['to'].removeprefix(SCORER)}"
            plot = plots.cell(label, entry, styles.get(entry["method"], Style("dim")))
            rows.append(Row([label, *text.signed(entry), plot], "member"))
    columns = [Column("Scorers", "text"), Column("Value", "figure"), Column(level, "figure"), Column("", "chart")]
    return Table(columns, rows) if rows else None


def _by_dataset(measures: Measures, level: str) -> Table | None:
    """Return every measure of every method in every dataset; None if there is only one dataset."""
    rows = []
    for name, measure in measures.items():
        if len(measure["datasets"]) > 1:
            rows.append(Row([_heading(name), measure["of"]], "group", 4))
            for dataset, scope in measure["datasets"].items():
                for index, (method, entry) in enumerate(scope["methods"].items()):
                    cells = ["" if index else dataset, text.shorten(method, 40), *text.with_interval(entry)]
                    rows.append(Row([*cells, text.number(entry["count"])], "member"))
    columns = [Column("Dataset", "text"), Column("Method", "name")]
    columns += [Column(label, "figure") for label in ("Value", level, "Count")]
    return Table(columns, rows) if rows else None


def _curves(results: Mapping[str, Any], styles: Mapping[str, Style], axis: str) -> Markup | None:
    found = results.get("curves")
    if not found or not found["macro"]:
        return None
    return curves(found["drawn"], found["macro"], styles, axis=axis)


def _templates(results: Mapping[str, Any]) -> Table | None:
    """Return the value of each method by template; None without templates."""
    found = results.get("templates")
    if not found:
        return None
    methods = list(dict.fromkeys(m for by in found.values() for scope in by.values() for m in scope["methods"]))
    rows = []
    for dataset, by_template in found.items():
        for template, scope in by_template.items():
            values = [text.with_interval(scope["methods"][method])[0] for method in methods]
            rows.append(Row([dataset, template, *values, max(entry["count"] for entry in scope["methods"].values())]))
    columns = [Column("Dataset", "text"), Column("Template", "text"), *(Column(m, "figure") for m in methods)]
    return Table([*columns, Column("Examples")], rows)


def _reliability_bins(manifest: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the scorers that scored any candidate, each with bins wide enough to see."""
    methods, found = manifest["configuration"]["columns"]["methods"], manifest["reliability"]
    names = [name for method, name in methods.items() if method.startswith(SCORER) and name in found]
    return [(name, _merged(found[name])) for name in names]


def _merged(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Merge bins of equal width into about twenty, and return those that have candidates."""
    width = bins[0]["to"] - bins[0]["from"]
    wide = round((bins[-1]["to"] - bins[0]["from"]) / width)
    factor = next(each for each in tables.COARSER if wide <= _MOST_BINS * each)
    merged: dict[int, dict[str, Any]] = {}
    for entry in bins:
        place = int((entry["from"] + width / 2) // (width * factor))
        first = {"from": place * width * factor, "to": (place + 1) * width * factor, "candidates": 0, "worth": 0.0}
        into = merged.setdefault(place, first)
        into["candidates"] += entry["candidates"]
        into["worth"] += entry["worth"] * entry["candidates"]
    return [{**entry, "worth": entry["worth"] / entry["candidates"]} for entry in merged.values()]
