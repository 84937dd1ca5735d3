"""The page of a training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from beam_pipelines.jobs.train.metrics import metric_rows
from beam_pipelines.jobs.train.plots import over_steps, plots_of
from beam_pipelines.report import tables, text
from beam_pipelines.report.frame import Column, KeyFigure, Page, Row, Table, count

_ASSIGNED = ("training", "evaluation", "held_out", "left_out", "not_drawn")
"""The counts that add up to the pairs read; other counts are listed beside them."""

_BESIDE = {
    "instructions": "instructions trained on",
    "single_responses": "of them with one response only",
    "held_out_instructions": "held-out instructions in the corpus",
    "equal_preferences": "preferences left out, since both responses are equal",
}

Point = Mapping[str, float | None]


def page(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of a training run."""
    evaluation, pairs = manifest["metrics"]["evaluation"], manifest["pairs"]
    return Page(
        title="train",
        headline=_headline(manifest),
        lead=_lead(manifest),
        figures=_figures(manifest),
        content={
            "warnings": manifest["warnings"],
            "metrics": _metrics(evaluation) if evaluation else None,
            "plots": _plots(manifest),
            "pairs": _pairs(manifest["made_of"]),
            "accounting": tables.accounting("Pairs read", pairs["read"], **{name: pairs[name] for name in _ASSIGNED}),
            "counted": [(meaning, pairs[name]) for name, meaning in _BESIDE.items() if pairs.get(name)],
            "settled": [(name, _setting(name, value)) for name, value in text.flatten(manifest["settled"])],
            "model": list(text.flatten({key: value for key, value in manifest["model"].items() if value})),
            "settings": list(text.flatten(manifest["configuration"])),
            "inputs": tables.inputs(manifest),
            "files": _files(manifest["files"]),
        },
    )


def _headline(manifest: Mapping[str, Any]) -> str:
    """Say how often the highest score is right, or else the loss, or else the number of steps."""
    evaluation, metrics = manifest["metrics"]["evaluation"], manifest["metrics"]
    if evaluation is None:
        return f"{text.plural(metrics['steps'], 'step')} over {text.plural(metrics['pairs_seen'], 'pair')}"
    if evaluation["accuracy"] is None:
        constant = text.decimal(evaluation["constant_loss"], ".4f")
        return f"Evaluation loss {text.decimal(evaluation['loss'], '.4f')}, where the mean label's is {constant}"
    return (
        f"The best-scored response is right for {text.share(evaluation['accuracy'], 1)} of "
        f"{text.plural(int(evaluation['groups']), 'evaluation instruction')}"
    )


def _lead(manifest: Mapping[str, Any]) -> str:
    metrics, model = manifest["metrics"], manifest["model"]
    sentences = [
        f"Trained from {model['hub_id'] or Path(model['name']).name} with the recipe for "
        f"{manifest['settled']['recipe']}."
    ]
    if metrics["evaluation"]:
        sentences.append(f"The weights are those of step {metrics['step']:,}, which has the lowest evaluation loss.")
        if metrics["evaluation"]["random_accuracy"] is not None:
            chance = text.share(metrics["evaluation"]["random_accuracy"], 1)
            sentences.append(f"A random choice would be right for {chance}.")
    else:
        sentences.append("No pairs were kept for evaluation.")
    if manifest["warnings"]:
        sentences.append(f"There {_are(len(manifest['warnings']))}, below.")
    return " ".join(sentences)


def _are(warnings: int) -> str:
    return f"{'is' if warnings == 1 else 'are'} {text.plural(warnings, 'warning')}"


def _figures(manifest: Mapping[str, Any]) -> list[KeyFigure]:
    metrics, written, pairs = manifest["metrics"], manifest["files"], manifest["pairs"]
    evaluation = metrics["evaluation"]
    figures = [
        count(metrics["steps"], "step", f"weights of step {metrics['step']:,}"),
        KeyFigure(
            text.number(metrics["pairs_seen"]),
            f"{text.noun(metrics['pairs_seen'], 'pair')} seen",
            f"{metrics['epochs']:.3g} {text.noun(metrics['epochs'], 'epoch')} of {pairs['training']:,}",
        ),
    ]
    if evaluation:
        constant, loss = text.decimal(evaluation["constant_loss"], ".4f"), text.decimal(evaluation["loss"], ".4f")
        figures += [
            KeyFigure(loss, "evaluation loss", f"mean label: {constant}"),
            KeyFigure(text.decimal(evaluation["pearson"]), "correlation", "of scores and labels"),
        ]
    return [
        *figures,
        KeyFigure(text.size(sum(file["bytes"] for file in written)), "written", text.plural(len(written), "file")),
    ]


def _metrics(evaluation: Point) -> Table:
    columns = [Column("Metric", "name"), Column("Value", "figure"), Column("Meaning", "text")]
    return Table(columns, [Row(list(row)) for row in metric_rows(evaluation)])


def _plots(manifest: Mapping[str, Any]) -> list[tuple[str, str, Sequence[tuple[str, str]], Markup]]:
    """Return the plots that there are numbers for: heading, explanation, legend (colour, meaning) and drawing."""
    place = {"steps": manifest["metrics"]["steps"], "kept": manifest["metrics"]["step"]}
    found: list[tuple[str, str, Sequence[tuple[str, str]], Markup]] = []
    for plot in plots_of(manifest["curves"], manifest["settled"]["loss"]):
        curves = [curve for curve in plot.curves if curve.points]
        if curves:
            drawing = over_steps(curves, title=f"{plot.title} over steps", axis=plot.axis, **place)
            legend = [(curve.colour, curve.name) for curve in curves] if len(curves) > 1 else []
            found.append((plot.title, plot.about, legend, drawing))
    return found


def _pairs(made_of: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    """Return the pairs by dataset and label source, of training and of evaluation."""
    sources = sorted({source for part in made_of.values() for counts in part.values() for source in counts})
    rows = []
    for part, datasets in made_of.items():
        rows += [Row([text.human(part).capitalize()], "group", len(sources) + 2)] if datasets else []
        for dataset, counts in datasets.items():
            numbers = [counts.get(source, 0) for source in sources]
            rows.append(Row([dataset, *numbers, sum(numbers)], "member"))
    return Table([Column("Dataset", "text"), *(Column(text.human(name)) for name in sources), Column("All")], rows)


def _setting(name: str, value: str) -> str:
    return "the model's own" if name == "dropout" and value == "null" else value


def _files(entries: Sequence[Mapping[str, Any]]) -> Table:
    columns = {
        "path": Column("File", "code"),
        "bytes": Column("Size", "bytes"),
        "digest": Column("blake2b-128", "code"),
    }
    return Table(list(columns.values()), [Row([entry[key] for key in columns]) for entry in entries])
