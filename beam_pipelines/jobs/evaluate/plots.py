"""Plots of an evaluation: intervals in the cells of a table, best-of-n curves, and mean value by score."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipelines.report.plots import WIDE
from beam_pipelines.report.svg import Canvas, Scale, Style, labels_of, linear_ticks, scale_of, x_axis, y_axis
from beam_pipelines.report.text import decimal, number, plural, shorten, with_interval

Estimate = Mapping[str, Any]
"""A `value` with the ends `low` and `high` of its interval, each a number or None."""

_CELL, _ROW = 110, 30
"""Width and height of a plot in a cell of a table; rows are as high, so that their grid lines meet."""
_CHARACTER = 7.0


class Intervals:
    """Small plots for a column of a table: a dot and an interval for each estimate, over one scale."""

    def __init__(self, estimates: Iterable[Estimate], *, zero: bool = False) -> None:
        """Fit the scale to the estimates; with `zero` it includes 0, which is marked."""
        ends = [entry[key] for entry in estimates for key in ("value", "low", "high") if entry[key] is not None]
        self._scale = scale_of([*ends, *([0.0] if zero else [])], 8, _CELL - 8) if ends else None
        self._zero = zero

    def axis(self) -> Markup | str:
        """Return the tick labels of the scale, as a cell above the plots."""
        if self._scale is None:
            return ""
        canvas = Canvas(_CELL, 16)
        end = 0.0
        for tick, label in self._ticks(self._scale).items():
            x, half = self._scale(tick), 3.2 * len(label)
            if end < x - half and x + half < _CELL:
                canvas.text(x, 9, label, colour="dim", align="middle", size=10.5)
                end = x + half
        return canvas.cell("Axis")

    def cell(self, label: str, estimate: Estimate, style: Style) -> Markup | str:
        """Draw an estimate; empty if it is undefined."""
        if estimate["value"] is None or self._scale is None:
            return ""
        canvas = Canvas(_CELL, _ROW)
        for tick in self._ticks(self._scale):
            zero = self._zero and tick == 0
            canvas.line([(self._scale(tick), 0), (self._scale(tick), _ROW)], colour="quiet" if zero else "rule")
        words = f"{label}: {' '.join(with_interval(estimate)).strip()}"
        if estimate["low"] is not None:
            ends = [(self._scale(estimate[key]), _ROW / 2) for key in ("low", "high")]
            canvas.line(ends, colour=style.colour, width=3, opacity=0.45)
        canvas.circle(self._scale(estimate["value"]), _ROW / 2, 4.5, colour=style.colour, tip=words)
        return canvas.cell(words)

    def _ticks(self, scale: Scale) -> dict[float, str]:
        return labels_of(linear_ticks(scale.low, scale.high, most=4))


def curves(
    drawn: Sequence[int], lines: Mapping[str, Sequence[float]], styles: Mapping[str, Style], *, axis: str
) -> Markup:
    """Draw best-of-n curves: a value for each number of `drawn` candidates, on a logarithmic axis of base 2."""
    left, right, top, height = 64, 240, 14, 300
    bottom = top + height
    canvas = Canvas(WIDE, bottom + 44)
    xs = Scale(-0.15, math.log2(drawn[-1]) + 0.15, left, WIDE - right)
    ys = scale_of((value for line in lines.values() for value in line), bottom, top)
    places = [math.log2(count) for count in drawn]
    # The last number of candidates need not be a power of two, and may be too close to one.
    ticks = {at: number(count) for at, count in zip(places, drawn, strict=True) if not 0 < places[-1] - at < 0.4}
    x_axis(canvas, xs, ticks, "candidates to choose from (n)", top=top, bottom=bottom, above=False)
    y_axis(canvas, ys, labels_of(linear_ticks(ys.low, ys.high)), axis, left=left, right=WIDE - right)
    for name, line in lines.items():
        points = [(xs(place), ys(value)) for place, value in zip(places, line, strict=True)]
        canvas.line(points, colour=styles[name].colour, width=2, dash=styles[name].dash)
        for (x, y), count, value in zip(points, drawn, line, strict=True):
            tip = f"{name}, best of {number(count)}: {decimal(value, '.4f')}"
            canvas.circle(x, y, 4, colour=styles[name].colour, tip=tip)
    for name, y in _apart({name: ys(line[-1]) for name, line in lines.items()}, 16, bottom).items():
        x = WIDE - right + 12
        canvas.line([(x, y), (x + 24, y)], colour=styles[name].colour, width=2, dash=styles[name].dash)
        canvas.text(x + 32, y, f"{decimal(lines[name][-1])} {shorten(name, int((right - 84) / _CHARACTER))}")
    return canvas.markup(f"Best-of-n curves: {', '.join(lines)}")


def _apart(places: Mapping[str, float], least: float, end: float) -> dict[str, float]:
    """Return the places from top to bottom, moved to be at least `least` apart and not below `end`."""
    moved: dict[str, float] = {}
    before = -math.inf
    for name in sorted(places, key=lambda name: places[name]):
        moved[name] = before = max(places[name], before + least)
    beyond = end
    for name in reversed(moved):
        moved[name] = min(moved[name], beyond)
        beyond = moved[name] - least
    return moved


def is_calibrated(bins: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether scores are on the scale of the values they estimate, 0 to 1, so that both can be compared."""
    worth = [entry["worth"] for entry in bins]
    return bool(bins[0]["from"] >= -1.5 and bins[-1]["to"] <= 2.5 and min(worth) >= 0 and max(worth) <= 1)


def reliability(bins: Sequence[Mapping[str, Any]], *, scorer: str, axis: str, style: Style) -> Markup:
    """Draw the mean value of the candidates in each bin of scores, and below it the number of candidates.

    A dashed diagonal marks equal score and value where `is_calibrated`.
    """
    left, top, height, gap, below = 64, 14, 220, 16, 64
    right, base = WIDE - 24, top + height + gap + below
    canvas = Canvas(WIDE, base + 44)
    xs = Scale(bins[0]["from"], bins[-1]["to"], left, right)
    alike, most = is_calibrated(bins), max(entry["candidates"] for entry in bins)
    ys = scale_of([0.0, 1.0] if alike else [entry["worth"] for entry in bins], top + height, top)
    counts = Scale(0, most, base, base - below)
    ticks = labels_of(linear_ticks(xs.low, xs.high))
    x_axis(canvas, xs, ticks, scorer, top=top, bottom=base, above=False)
    y_axis(canvas, ys, labels_of(linear_ticks(ys.low, ys.high)), f"mean {axis}", left=left, right=right)
    y_axis(canvas, counts, {0: "0", most: number(most)}, "candidates", left=left, right=right)
    if alike:
        ends = max(xs.low, 0.0), min(xs.high, 1.0)
        canvas.line([(xs(end), ys(end)) for end in ends], colour="quiet", width=1.5, dash="6 4")
    centres = [xs((entry["from"] + entry["to"]) / 2) for entry in bins]
    points = [(x, ys(entry["worth"])) for x, entry in zip(centres, bins, strict=True)]
    canvas.line(points, colour=style.colour, width=1.5, opacity=0.6)
    for (x, y), entry in zip(points, bins, strict=True):
        tip = (
            f"{decimal(entry['from'], '.2f')} to {decimal(entry['to'], '.2f')}: mean {axis} "
            f"{decimal(entry['worth'])}, {plural(entry['candidates'], 'candidate')}"
        )
        canvas.circle(x, y, 4.5, colour=style.colour, tip=tip)
        width = 0.88 * (xs(entry["to"]) - xs(entry["from"]))
        tall = base - counts(entry["candidates"])
        canvas.rect(x - width / 2, base - tall, width, tall, colour="quiet", tip=tip)
    return canvas.markup(f"Mean {axis} by score of {scorer}")
