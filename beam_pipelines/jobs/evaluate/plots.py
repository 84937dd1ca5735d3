"""The plots of an evaluation: intervals by method, best-of-n curves, and what scores are worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, MaxNLocator

from beam_pipelines.report.canvas import THEME, Canvas, block, drawing, style_axis, tip
from beam_pipelines.report.plots import WIDE, value_ticks
from beam_pipelines.report.text import decimal, number, plural, shorten, with_interval

_LABELS = 210
_DIGITS = 7.0
"""Width of a character of a label, in pixels, on the safe side."""


@dataclass(frozen=True)
class Mark:
    """A value with its interval, drawn in a named colour: `estimate` has `value`, `low` and `high`."""

    label: str
    estimate: Mapping[str, Any]
    colour: str


@drawing()
def interval_rows(marks: Sequence[Mark], *, title: str, axis: str, zero: bool = False) -> Markup:
    """Dots with their intervals, one below another, and as numbers at the right; with `zero` a line stands there."""
    row_height, top, numbers = 30, 12, 190
    height, width = len(marks) * row_height, WIDE - _LABELS - numbers - 24
    canvas = Canvas(WIDE, top + height + 36)
    axes = canvas.axes(_LABELS, top, width, height)
    ends = [value for mark in marks for value in _ends(mark.estimate)] + ([0.0] if zero else [])
    margin = 0.06 * (max(ends) - min(ends)) or 0.05
    low, high = min(ends) - margin, max(ends) + margin
    axes.set_xlim(low, high)
    axes.set_ylim(height, 0)
    value_ticks(axes)
    style_axis(axes)
    if zero:
        axes.plot([0, 0], [0, height], color=THEME["dim"][0], linewidth=1.5)
    canvas.text(0, top + height + 20, axis, colour="dim", size=11)
    for index, mark in enumerate(marks):
        y = (index + 0.5) * row_height
        canvas.text(_LABELS - 12, top + y, shorten(mark.label, int((_LABELS - 14) / _DIGITS)), align="right")
        _interval(axes, mark, y, (high - low) / width)
        value, between = with_interval(mark.estimate, "+.4f" if zero else ".4f")
        canvas.text(WIDE - numbers + 48, top + y, value, align="right", size=11.5, bold=True)
        canvas.text(WIDE - 2, top + y, between, align="right", colour="dim", size=11.5)
    return canvas.svg(title)


def _ends(estimate: Mapping[str, Any]) -> list[float]:
    return [estimate[name] for name in ("value", "low", "high") if estimate[name] is not None]


def _interval(axes: Axes, mark: Mark, y: float, pixel: float) -> None:
    """One row of `interval_rows`; `pixel` is the width of one in units of the axis."""
    value, low, high = (mark.estimate[name] for name in ("value", "low", "high"))
    if low is not None:
        axes.plot([low, high], [y, y], color=THEME[mark.colour][0], linewidth=3, alpha=0.45, clip_on=False)
    _dot(axes, (value, y), (11 * pixel, 11), mark.colour, f"{mark.label}: {' '.join(with_interval(mark.estimate))}")


def _dot(axes: Axes, centre: tuple[float, float], size: tuple[float, float], colour: str, words: str) -> None:
    dot = Ellipse(centre, *size, facecolor=THEME[colour][0], linewidth=0, clip_on=False, zorder=3)
    tip(dot, words)
    axes.add_artist(dot)


@drawing()
def curves(
    drawn: Sequence[int], lines: Mapping[str, Sequence[float]], colours: Mapping[str, str], *, axis: str
) -> Markup:
    """What the choice of each method is worth by the number of candidates drawn, which doubles from tick to tick."""
    left, right, top, height = 56, 220, 14, 300
    width = WIDE - left - right
    canvas = Canvas(WIDE, top + height + 50)
    axes = canvas.axes(left, top, width, height)
    values = [value for line in lines.values() for value in line]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    low, high = min(values) - margin, max(values) + margin
    places = [math.log2(count) for count in drawn]
    axes.set_xlim(-0.15, places[-1] + 0.15)
    axes.set_ylim(low, high)
    # The last number of candidates need not be a power of two, and may stand too near one.
    ticks = {at: number(count) for at, count in zip(places, drawn, strict=True) if not 0 < places[-1] - at < 0.4}
    axes.set_xticks([*ticks], [*ticks.values()])
    style_axis(axes)
    _levels(axes)
    canvas.text(left, top + height + 36, f"candidates to choose from; upwards: {axis}", colour="dim", size=11)
    pixels = (places[-1] + 0.3) / width, (high - low) / height
    for name, line in lines.items():
        axes.plot(places, line, color=THEME[colours[name]][0], linewidth=2, clip_on=False)
        for place, count, value in zip(places, drawn, line, strict=True):
            words = f"{name}, best of {number(count)}: {decimal(value, '.4f')}"
            _dot(axes, (place, value), (8 * pixels[0], 8 * pixels[1]), colours[name], words)
    ends = {name: top + height * (high - line[-1]) / (high - low) for name, line in lines.items()}
    for name, y in _apart(ends, 16, top + height).items():
        label = f"{decimal(lines[name][-1])} {shorten(name, int((right - 70) / _DIGITS))}"
        canvas.text(WIDE - right + 14, y, label, colour=colours[name], size=12, bold=name.startswith("scorer:"))
    return canvas.svg(f"Best-of-n curves: {', '.join(lines)}")


def _levels(axes: Axes) -> None:
    """Quiet horizontal grid lines with their values at the left."""
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decimal(value, ".6g")))
    axes.tick_params(axis="y", length=0, pad=6, labelsize=11, labelcolor=THEME["dim"][0], left=False, labelleft=True)
    axes.grid(axis="y", color=THEME["rule"][0], linewidth=1)


def _apart(places: Mapping[str, float], least: float, end: float) -> dict[str, float]:
    """The places, from above to below, moved so that they are at least `least` apart and none is beyond `end`."""
    ordered = sorted(places, key=lambda name: places[name])
    moved: dict[str, float] = {}
    for index, name in enumerate(ordered):
        before = moved[ordered[index - 1]] + least if index else places[name]
        moved[name] = max(places[name], before)
    beyond = end
    for name in reversed(ordered):
        moved[name] = min(moved[name], beyond)
        beyond = moved[name] - least
    return moved


@drawing()
def reliability(bins: Sequence[Mapping[str, Any]], *, scorer: str, axis: str, colour: str) -> Markup:
    """What candidates are worth on average, by bins of their score, and below it how many there are in each.

    Where scores are of the size of what they estimate, 0 to 1, a line shows where both are equal.
    """
    left, top, height, gap, below = 56, 14, 220, 16, 64
    width = WIDE - left - 24
    canvas = Canvas(WIDE, top + height + gap + below + 44)
    low, high = bins[0]["from"], bins[-1]["to"]
    worth = [entry["worth"] for entry in bins]
    alike = low >= -1.5 and high <= 2.5 and min(worth) >= 0 and max(worth) <= 1
    bottom, ceiling = (0.0, 1.0) if alike else (min(worth), max(worth))
    margin = 0.05 * (ceiling - bottom) or 0.05
    axes = canvas.axes(left, top, width, height)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom - margin, ceiling + margin)
    value_ticks(axes)
    style_axis(axes)
    axes.tick_params(axis="x", labelbottom=False)
    _levels(axes)
    if alike:
        ends = [max(low, 0.0), min(high, 1.0)]
        axes.plot(ends, ends, color=THEME["quiet"][0], linewidth=1.5, linestyle="--")
    centres = [(entry["from"] + entry["to"]) / 2 for entry in bins]
    axes.plot(centres, worth, color=THEME[colour][0], linewidth=1.5, alpha=0.6, clip_on=False)
    pixels = (high - low) / width, (ceiling - bottom + 2 * margin) / height
    counts = canvas.axes(left, top + height + gap, width, below)
    counts.set_xlim(low, high)
    counts.set_ylim(0, max(entry["candidates"] for entry in bins))
    value_ticks(counts)
    style_axis(counts)
    for centre, entry in zip(centres, bins, strict=True):
        words = (
            f"{decimal(entry['from'], '.2f')} to {decimal(entry['to'], '.2f')}: {decimal(entry['worth'])} on average"
        )
        words += f", {plural(entry['candidates'], 'candidate')}"
        _dot(axes, (centre, entry["worth"]), (9 * pixels[0], 9 * pixels[1]), colour, words)
        span = entry["to"] - entry["from"]
        block(counts, (entry["from"] + 0.06 * span, 0), (0.88 * span, entry["candidates"]), colour="quiet", words=words)
    most = max(entry["candidates"] for entry in bins)
    words = f"score of {scorer}; upwards: mean {axis}, and candidates, at most {number(most)} in a bin"
    canvas.text(left, top + height + gap + below + 34, words, colour="dim", size=11)
    return canvas.svg(f"Mean {axis} by score of {scorer}")
