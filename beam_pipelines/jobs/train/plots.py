"""The plots of a training run: losses, accuracy and correlation over its steps."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from beam_pipelines.report.plots import WIDE
from beam_pipelines.report.svg import Canvas, Scale, labels_of, linear_ticks, scale_of, x_axis, y_axis
from beam_pipelines.report.text import compact, decimal, number

_DOTTED = 24
"""The most points of a curve that are marked, each with its value."""


class Curve(NamedTuple):
    """Values over steps in one colour; `dash` is an SVG dash pattern, "" a solid line."""

    name: str
    points: Sequence[tuple[int, float]]
    colour: str
    dash: str = ""


class Plot(NamedTuple):
    """Curves that are drawn together, over a heading and an explanation; curves without points are left out."""

    title: str
    about: str
    axis: str
    curves: Sequence[Curve]


def plots_of(logs: Mapping[str, Sequence[Mapping[str, Any]]], loss: str) -> list[Plot]:
    """Return the plots of a run trained with this loss. `logs` are the `curves` of its manifest."""
    losses, evaluations = logs["losses"], logs["evaluations"]
    evaluated, level, dash = "wrong-choice", "quiet", "6 4"
    trained = Curve("training loss", _points(losses, "loss"), "accent")
    squared = (
        Curve("evaluation loss", _points(evaluations, "loss"), evaluated),
        Curve("loss of the mean label", _level(evaluations, "constant_loss"), level, dash),
    )
    error, alone = "Mean squared error", loss == "mse"
    about = f"Of scores and labels, {'in training and ' if alone else ''}on the pairs kept for evaluation."
    own = Plot(f"Training loss ({loss})", "Mean over the pairs of the steps.", "loss", [trained])
    return [
        *(() if alone else (own,)),
        Plot(error, about, error.lower(), [trained, *squared] if alone else squared),
        Plot(
            "Accuracy of choosing",
            "Share of the evaluation's instructions whose best-scored response has the highest label.",
            "accuracy",
            [
                Curve("choice by score", _points(evaluations, "accuracy"), evaluated),
                Curve("random choice", _level(evaluations, "random_accuracy"), level, dash),
            ],
        ),
        Plot(
            "Correlation of scores and labels",
            "Pearson's, on the pairs kept for evaluation: 0 is none, 1 is a straight line.",
            "correlation",
            [Curve("correlation", _points(evaluations, "pearson"), evaluated)],
        ),
    ]


def _points(entries: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[name]) for entry in entries if entry[name] is not None]


def _level(entries: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """Return a level line from step 0 to the last evaluation, for a value that is the same in all of them."""
    points = _points(entries, name)
    return [(0, points[-1][1]), points[-1]] if points else []


def over_steps(curves: Sequence[Curve], *, title: str, axis: str, steps: int, kept: int, height: int = 220) -> Markup:
    """Draw curves over the optimiser steps 0 to `steps`, with a vertical line at the step whose weights are `kept`."""
    left, right, top = 76, WIDE - 24, 24
    bottom = top + height
    canvas = Canvas(WIDE, bottom + 44)
    xs = Scale(0, steps or 1, left, right)
    ys = scale_of((value for curve in curves for _, value in curve.points), bottom, top)
    ticks = {tick: compact(tick) for tick in linear_ticks(0, xs.high, whole=True)}
    x_axis(canvas, xs, ticks, "optimiser step", top=top, bottom=bottom, above=False)
    y_axis(canvas, ys, labels_of(linear_ticks(ys.low, ys.high)), axis, left=left, right=right)
    canvas.line([(xs(kept), top), (xs(kept), bottom)], colour="dim", dash="2 3")
    align: Literal["start", "end"] = "end" if kept > steps / 2 else "start"
    canvas.text(xs(kept), top - 11, f"weights of step {number(kept)}", colour="dim", align=align, size=11)
    for curve in curves:
        places = [(xs(step), ys(value)) for step, value in curve.points]
        canvas.line(places, colour=curve.colour, width=2, dash=curve.dash)
        if len(places) <= _DOTTED and not curve.dash:
            for (x, y), (step, value) in zip(places, curve.points, strict=True):
                tip = f"{curve.name} at step {number(step)}: {decimal(value, '.4f')}"
                canvas.circle(x, y, 3.5, colour=curve.colour, tip=tip)
    return canvas.markup(title)
