"""The plots of the reports: plain data in, inline SVG out. Sizes are CSS pixels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, MaxNLocator

from beam_pipelines.report.canvas import THEME, Canvas, block, drawing, style_axis, tip
from beam_pipelines.report.text import compact, decimal, human, number, plural, shorten

WIDE = 960
MOST_ROWS = 64
"""No plot draws more bars or densities than this; callers sum up or leave out the rest, and say so."""

_COLUMN = 7.0
"""Width of a character of a label, in pixels, on the safe side."""


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: its label and the counts it is stacked from, by the name of a colour. No counts: a heading.

    `meanings` says what colours stand for, where that is not their name.
    """

    label: str
    parts: Mapping[str, int] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The length of the bar."""
        return sum(self.parts.values())


def sum_parts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The parts of several bars, added up by colour."""
    total: dict[str, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total


def longest(bars: Sequence[Bar], noun: str, limit: int) -> list[Bar]:
    """The longest bars, longest first; beyond the limit the rest is summed up in one."""
    ordered = sorted(bars, key=lambda bar: -bar.total)
    if len(ordered) <= limit:
        return ordered
    rest = ordered[limit - 1 :]
    return [*ordered[: limit - 1], Bar(plural(len(rest), f"other {noun}"), sum_parts(bar.parts for bar in rest))]


@dataclass(frozen=True)
class Histogram:
    """Counts in buckets, drawn in a named colour. The label's second line says what is counted, as in "12 pairs"."""

    label: str
    counts: Sequence[int]
    colour: str
    unit: str = "pair"

    @property
    def total(self) -> int:
        """All that was counted."""
        return sum(self.counts)


@drawing()
def stacked_bars(bars: Sequence[Bar], *, title: str, label_width: int = 300) -> Markup:
    """Horizontal bars one below another, each followed by its total; headings set groups of them apart."""
    headings = any(not bar.parts for bar in bars)
    ends = list(accumulate(19 if bar.parts else 32 for bar in bars))
    top, height = 26, ends[-1]
    canvas = Canvas(WIDE, top + height + 8)
    axes = canvas.axes(label_width, top, WIDE - label_width - 84, height)
    axes.set_xlim(0, max((bar.total for bar in bars), default=0) or 1)
    axes.set_ylim(height, 0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    style_axis(axes, at="top")
    for bar, end in zip(bars, ends, strict=True):
        y = end - 9.5
        if not bar.parts:
            canvas.text(0, top + y, shorten(bar.label, int(label_width / _COLUMN)), bold=True, size=12.5)
            continue
        label = shorten(bar.label, int((label_width - 12) / _COLUMN))
        canvas.text(label_width - 10, top + y, label, align="right", colour="dim" if headings else "ink")
        _stack(axes, bar, y)
        axes.annotate(
            number(bar.total),
            (bar.total, y),
            (6, 0),
            textcoords="offset points",
            va="center_baseline",
            color=THEME["ink"][0],
            fontsize=11.5,
        )
    return canvas.svg(title)


def _stack(axes: Axes, bar: Bar, y: float) -> None:
    left = 0
    for colour, count in bar.parts.items():
        if count:
            meaning = bar.meanings.get(colour, human(colour.replace("-", "_")))
            words = f"{bar.label}: {number(count)} {meaning}"
            block(axes, (left, y - 6.5), (count, 13), colour=colour, words=words)
            left += count


@drawing()
def histogram_rows(
    rows: Sequence[Histogram], *, title: str, axis: str = "label", low: float = 0.0, high: float = 1.0
) -> Markup:
    """Histograms over [low, high], one below another on one horizontal scale, each on a vertical scale of its own."""
    label_width, row_height, gap, top = 190, 72, 22, 18
    height = top + len(rows) * (row_height + gap)
    canvas = Canvas(WIDE, height + 34)
    back = canvas.axes(label_width, top, WIDE - label_width - 20, height - top)
    back.set_xlim(low, high)
    value_ticks(back)
    style_axis(back)
    canvas.text(0, height + 10, axis, colour="dim", size=11)
    for index, row in enumerate(rows):
        y = top + index * (row_height + gap) + gap / 2
        canvas.text(0, y + row_height / 2 - 9, row.label, bold=True, size=12.5)
        canvas.text(0, y + row_height / 2 + 9, plural(row.total, row.unit), colour="dim", size=11.5)
        _bins(canvas.axes(label_width, y, WIDE - label_width - 20, row_height), row, low, high)
    return canvas.svg(title)


def value_ticks(axes: Axes) -> None:
    """A handful of round values on the horizontal axis."""
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: decimal(value, ".6g")))


def _bins(axes: Axes, row: Histogram, low: float, high: float) -> None:
    """One row of `histogram_rows`: its bars, a base line, and the count of the tallest."""
    bins, peak = len(row.counts), max(row.counts)
    axes.set_xlim(0, bins)
    axes.set_ylim(0, peak or 1)
    bounds = [decimal(low + (high - low) * index / bins, ".2f") for index in range(bins + 1)]
    for index, count in enumerate(row.counts):
        if count:
            words = f"{bounds[index]} to {bounds[index + 1]}: {plural(count, row.unit)}"
            block(axes, (index + 0.06, 0), (0.88, count), colour=row.colour, words=words)
    axes.plot([0, bins], [0, 0], color=THEME["quiet"][0], linewidth=1, clip_on=False)
    if peak:
        index = row.counts.index(peak)
        # Above its bar, and not beyond the ends of the row.
        align, x = {0: ("left", 0.06), 9: ("right", 0.94)}.get(index * 10 // bins, ("center", 0.5))
        axes.annotate(
            number(peak),
            (index + x, peak),
            (0, 3),
            textcoords="offset points",
            ha=align,
            va="bottom",
            color=THEME["ink"][0],
            fontsize=11.5,
        )


@dataclass(frozen=True)
class Dots:
    """Values on one line, by the name of a series; the label's second line says what they are of."""

    label: str
    detail: str
    values: Mapping[str, float]


@drawing()
def dot_rows(rows: Sequence[Dots], series: Mapping[str, str], *, title: str, axis: str) -> Markup:
    """Values as dots on lines one below another, over one horizontal scale, and as numbers at the right.

    `series` are the names of the values, each with the name of its colour.
    """
    label_width, row_height, top, column = 190, 40, 26, 76
    height, width = len(rows) * row_height, WIDE - label_width - 24 - column * len(series)
    canvas = Canvas(WIDE, top + height + 34)
    axes = canvas.axes(label_width, top, width, height)
    values = [value for row in rows for value in row.values.values()]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    low, high = min(values) - margin, max(values) + margin
    axes.set_xlim(low, high)
    axes.set_ylim(height, 0)
    value_ticks(axes)
    style_axis(axes)
    canvas.text(0, top + height + 18, axis, colour="dim", size=11)
    ends = [WIDE - 2 - column * index for index in reversed(range(len(series)))]
    for name, end in zip(series, ends, strict=True):
        canvas.text(end, 12, name, colour="dim", align="right", size=11)
    for index, row in enumerate(rows):
        y = (index + 0.5) * row_height
        canvas.text(0, top + y - 8, row.label, bold=True, size=12.5)
        canvas.text(0, top + y + 9, row.detail, colour="dim", size=11.5)
        _dots(axes, row, series, y, (high - low) / width)
        for name, end in zip(series, ends, strict=True):
            canvas.text(end, top + y, decimal(row.values[name]), align="right", size=11.5)
    return canvas.svg(title)


def _dots(axes: Axes, row: Dots, series: Mapping[str, str], y: float, pixel: float) -> None:
    """One row of `dot_rows`; `pixel` is the width of one in units of the axis."""
    ends = [min(row.values.values()), max(row.values.values())]
    axes.plot(ends, [y, y], color=THEME["rule"][0], linewidth=3, clip_on=False)
    for name, colour in series.items():
        value = row.values[name]
        dot = Ellipse((value, y), 11 * pixel, 11, facecolor=THEME[colour][0], linewidth=0, clip_on=False, zorder=3)
        tip(dot, f"{row.label}: {name} {decimal(value)}")
        axes.add_artist(dot)


@drawing()
def density_rows(rows: Sequence[Histogram], edges: Sequence[int], *, title: str) -> Markup:
    """Distributions of lengths, one below another, over a logarithmic axis; each is scaled to its own peak.

    Bucket i of a row holds the lengths above edges[i - 1] up to and including edges[i]. The median is marked; it
    and the 95th percentile are read off the buckets.
    """
    label_width, row_height, top = 300, 30, 26
    bounds = [math.log10(0.5), *(math.log10(edge + 0.5) for edge in edges)]
    used = [i for row in rows for i, count in enumerate(row.counts) if count]
    low, high = bounds[min(used)] - 0.03, bounds[max(used) + 1] + 0.03
    height = len(rows) * row_height
    canvas = Canvas(WIDE, top + height + 8)
    axes = canvas.axes(label_width, top, WIDE - label_width - 150, height)
    axes.set_xlim(low, high)
    axes.set_ylim(height, 0)
    _length_ticks(axes, low, high)
    canvas.text(WIDE - 74, 14, "median", colour="dim", align="right", size=11)
    canvas.text(WIDE - 2, 14, "95% below", colour="dim", align="right", size=11)
    for index, row in enumerate(rows):
        base = (index + 1) * row_height
        canvas.text(
            label_width - 10, top + base - 11, shorten(row.label, int((label_width - 12) / _COLUMN)), align="right"
        )
        _density(axes, row, bounds, base, row_height - 6)
        for x, part, colour in ((WIDE - 74, 0.5, "ink"), (WIDE - 2, 0.95, "dim")):
            value = 10 ** _quantile(row.counts, bounds, part)
            canvas.text(x, top + base - 11, f"≈ {number(_two_digits(value))}", align="right", colour=colour, size=11.5)
    return canvas.svg(title)


def _density(axes: Axes, row: Histogram, bounds: Sequence[float], base: float, height: float) -> None:
    """One row of `density_rows`: area stands for the share of texts, whatever the widths of the buckets."""
    filled = [i for i, count in enumerate(row.counts) if count]
    first, last = filled[0], filled[-1] + 1
    densities = [row.counts[i] / (bounds[i + 1] - bounds[i]) for i in range(first, last)]
    scale = height / max(densities)
    xs = [bound for pair in pairwise(bounds[first : last + 1]) for bound in pair]
    ys = [base - density * scale for density in densities for _ in range(2)]
    (area,) = axes.fill(
        [xs[0], *xs, xs[-1]], [base, *ys, base], color=THEME[row.colour][0], alpha=0.75, linewidth=0, clip_on=False
    )
    tip(area, f"{row.label}: {plural(row.total, row.unit)}")
    axes.plot(axes.get_xlim(), [base, base], color=THEME["rule"][0], linewidth=1, clip_on=False)
    median = _quantile(row.counts, bounds, 0.5)
    axes.plot([median, median], [base, base - height], color=THEME["ink"][0], linewidth=1.5, clip_on=False)


def _length_ticks(axes: Axes, low: float, high: float) -> None:
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    values = [step * 10**power for power in range(8) for step in steps]
    shown = [value for value in values if low <= math.log10(value) <= high]
    axes.set_xticks([math.log10(value) for value in shown], [compact(value) for value in shown])
    style_axis(axes, at="top")


def _quantile(counts: Sequence[int], bounds: Sequence[float], part: float) -> float:
    """Where, on the axis of `bounds`, the first `part` of all that was counted ends: linear within a bucket."""
    wanted, passed = part * sum(counts), 0
    for index, count in enumerate(counts):
        if count and passed + count >= wanted:
            return bounds[index] + (bounds[index + 1] - bounds[index]) * (wanted - passed) / count
        passed += count
    raise ValueError("nothing was counted")


def _two_digits(value: float) -> int:
    whole = max(round(value), 1)
    return int(round(whole, 2 - len(str(whole))))
