"""Inline SVG, written directly: shapes whose colours are CSS variables of the page, scales, ticks and axes.

Positions and sizes are CSS pixels, counted from the left and top edges. Colours are names of `THEME`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

from beam_pipelines.report.text import clean, compact, decimal

THEME = {
    "ink": ("#1c2430", "#e4e8ee"),
    "dim": ("#5b6675", "#9ba6b5"),
    "rule": ("#dde2e8", "#303944"),
    "paper": ("#fefefe", "#14181e"),
    "panel": ("#f5f7f9", "#1c222a"),
    "accent": ("#2f6db3", "#6cb0ea"),
    "ground-truth": ("#009e73", "#2fbf95"),
    "generated": ("#0072b2", "#56aee6"),
    "wrong-choice": ("#d55e00", "#ee8a4d"),
    "mismatch": ("#e6a700", "#f2c452"),
    "reject": ("#b03060", "#e0759b"),
    "violet": ("#7b52b9", "#b79be8"),
    "cyan": ("#1c9aad", "#5bcbdb"),
    "brown": ("#85592f", "#c79c70"),
    "quiet": ("#9aa5b1", "#66717f"),
}
"""Colours by name, light and dark. Those of the label sources are Okabe and Ito's, for any colour vision."""

_SERIES = ("accent", "wrong-choice", "ground-truth", "violet", "mismatch", "reject", "cyan", "brown")
_DASHES = ("", "7 4", "2 3", "9 3 2 3")

Points = Sequence[tuple[float, float]]


class Style(NamedTuple):
    """How a series is drawn: a colour, and an SVG dash pattern; "" is a solid line."""

    colour: str
    dash: str = ""


def series_style(index: int) -> Style:
    """Return the style of the series with this index; the first 32 differ from one another."""
    return Style(_SERIES[index % len(_SERIES)], _DASHES[index // len(_SERIES) % len(_DASHES)])


class Canvas:
    """An SVG canvas of `width` by `height` pixels, whose text takes the page's font."""

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width, height
        self._shapes: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        colour: str = "ink",
        align: Literal["start", "middle", "end"] = "start",
        size: float = 12,
        bold: bool = False,
        upward: bool = False,
    ) -> None:
        """Write `words` vertically centred at (x, y), which is where `align` puts it; `upward` turns them left."""
        # A third of the size is half the height of a digit. Not every browser knows dominant-baseline.
        extra = ' font-weight="600"' if bold else ""
        extra += f' text-anchor="{align}"' if align != "start" else ""
        extra += f' transform="rotate(-90 {_number(x)} {_number(y)})"' if upward else ""
        place = f'x="{_number(x)}" y="{_number(y + 0.35 * size)}" font-size="{_number(size)}"'
        self._shapes.append(f'<text {place} fill="var(--{colour})"{extra}>{escape(clean(words))}</text>')

    def rect(self, x: float, y: float, width: float, height: float, *, colour: str, tip: str = "") -> None:
        """Fill a rectangle, given by its left top corner."""
        shape = f'rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}"'
        self._add(f'{shape} fill="var(--{colour})"', tip)

    def circle(self, x: float, y: float, radius: float, *, colour: str, tip: str = "") -> None:
        """Fill a circle."""
        shape = f'circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
        self._add(f'{shape} fill="var(--{colour})"', tip)

    def line(self, points: Points, *, colour: str, width: float = 1, dash: str = "", opacity: float = 1) -> None:
        """Draw a line through the points."""
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        extra += f' opacity="{_number(opacity)}"' if opacity < 1 else ""
        stroke = f'fill="none" stroke="var(--{colour})" stroke-width="{_number(width)}"{extra}'
        self._shapes.append(f'<path d="{_path(points)}" {stroke}/>')

    def area(self, points: Points, *, colour: str, tip: str = "") -> None:
        """Fill the area that the points enclose."""
        self._add(f'path d="{_path(points)}z" fill="var(--{colour})" opacity="0.75"', tip)

    def _add(self, shape: str, tip: str) -> None:
        """Add a shape, with a tip that browsers show while the pointer rests on it."""
        name = shape.partition(" ")[0]
        self._shapes.append(f"<{shape}><title>{escape(clean(tip))}</title></{name}>" if tip else f"<{shape}/>")

    def markup(self, title: str) -> Markup:
        """Return the canvas as a plot of the page; `title` describes it to screen readers."""
        return Markup(f'<div class="plot">{self._svg(title, f"max-width: {self._width:g}px")}</div>')

    def cell(self, title: str) -> Markup:
        """Return the canvas as the cell of a table, in its natural size."""
        return Markup(self._svg(title, f"width: {self._width:g}px; height: {self._height:g}px"))

    def _svg(self, title: str, style: str) -> str:
        frame = f'role="img" aria-label="{escape(clean(title))}" viewBox="0 0 {self._width:g} {self._height:g}"'
        return f'<svg {frame} style="{style}">{"".join(self._shapes)}</svg>'


def _number(value: float) -> str:
    """Return a coordinate to a hundredth of a pixel, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _path(points: Points) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


class Scale(NamedTuple):
    """A linear map from values in [low, high] to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def scale_of(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale that covers the values, with a margin at both ends."""
    values = list(values)
    margin = 0.06 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 0.05
    return Scale(min(values) - margin, max(values) + margin, start, end)


def linear_ticks(low: float, high: float, *, most: int = 6, whole: bool = False) -> list[float]:
    """Return at most `most` round values in [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten.

    With `whole` they are integers.
    """
    rough = max((high - low) / (most - 1), 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = power * next(each for each in steps if each * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten in [low, high], and 2 and 5 times these where that is under 2.5 decades; low > 0."""
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for step in steps if low <= (tick := step * 10.0**power) <= high]


def labels_of(ticks: Iterable[float]) -> dict[float, str]:
    """Return ticks with their values as labels."""
    return {tick: decimal(tick, ".6g") if abs(tick) < 1e5 else compact(tick).replace("-", "−") for tick in ticks}


def x_axis(
    canvas: Canvas, scale: Scale, ticks: Mapping[float, str], title: str, *, top: float, bottom: float, above: bool
) -> None:
    """Draw vertical grid lines from `top` to `bottom`, tick labels and the axis title, `above` the lines or below."""
    labels, heading = (top - 11, top - 29) if above else (bottom + 13, bottom + 33)
    for tick, label in ticks.items():
        canvas.line([(scale(tick), top), (scale(tick), bottom)], colour="rule")
        canvas.text(scale(tick), labels, label, colour="dim", align="middle", size=11)
    canvas.text((scale.start + scale.end) / 2, heading, title, colour="dim", align="middle", size=11.5)


def y_axis(canvas: Canvas, scale: Scale, ticks: Mapping[float, str], title: str, *, left: float, right: float) -> None:
    """Draw horizontal grid lines from `left` to `right`, tick labels and, at the left edge, the upward axis title."""
    for tick, label in ticks.items():
        canvas.line([(left, scale(tick)), (right, scale(tick))], colour="rule")
        canvas.text(left - 8, scale(tick), label, colour="dim", align="end", size=11)
    canvas.text(9, (scale.start + scale.end) / 2, title, colour="dim", align="middle", size=11.5, upward=True)
