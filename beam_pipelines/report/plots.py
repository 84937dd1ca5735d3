"""Plots that the pages of several jobs share: plain data in, inline SVG out. Sizes are CSS pixels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

from markupsafe import Markup

from beam_pipelines.report.svg import Canvas, Scale, labels_of, linear_ticks, log_ticks, scale_of, x_axis
from beam_pipelines.report.text import columns, compact, decimal, human, number, plural, shorten

WIDE = 960
MOST_ROWS = 64
"""The most bars or densities in a plot; callers sum up or leave out the rest, and say so."""

_CHARACTER = 7.0
"""An upper bound for the average width of a character of a label."""


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: its label, and the counts it is stacked from by colour. Without counts it is a heading."""

    label: str
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The length of the bar."""
        return sum(self.parts.values())


def sum_parts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of the parts of several bars, by colour."""
    total: dict[str, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total


def longest(bars: Sequence[Bar], noun: str, limit: int) -> list[Bar]:
    """Return the longest bars, longest first; those beyond the limit are summed up in one."""
    ordered = sorted(bars, key=lambda bar: -bar.total)
    if len(ordered) <= limit:
        return ordered
    rest = ordered[limit - 1 :]
    return [*ordered[: limit - 1], Bar(plural(len(rest), f"other {noun}"), sum_parts(bar.parts for bar in rest))]


def stacked_bars(
    bars: Sequence[Bar], *, title: str, axis: str, widest: int = 300, meanings: Mapping[str, str] | None = None
) -> Markup:
    """Draw horizontal bars one below another, each followed by its total; headings separate groups of them.

    `meanings` maps colours to their meaning, if that is not their name. Labels take at most `widest` pixels.
    """
    label_width = min(widest, max(12 + math.ceil(_CHARACTER * columns(bar.label)) for bar in bars))
    headings = any(not bar.parts for bar in bars)
    ends = list(accumulate(19 if bar.parts else 32 for bar in bars))
    top = 44
    canvas = Canvas(WIDE, top + ends[-1] + 8)
    scale = Scale(0, max((bar.total for bar in bars), default=0) or 1, label_width, WIDE - 84)
    ticks = {tick: compact(tick) for tick in linear_ticks(0, scale.high, whole=True)}
    x_axis(canvas, scale, ticks, axis, top=top, bottom=top + ends[-1], above=True)
    for bar, end in zip(bars, ends, strict=True):
        y = top + end - 9.5
        if not bar.parts:
            canvas.text(0, y, shorten(bar.label, int(label_width / _CHARACTER)), bold=True, size=12.5)
            continue
        label = shorten(bar.label, int((label_width - 12) / _CHARACTER))
        canvas.text(label_width - 10, y, label, align="end", colour="dim" if headings else "ink")
        left = 0
        for colour, count in bar.parts.items():
            if count:
                meaning = (meanings or {}).get(colour, human(colour.replace("-", "_")))
                tip = f"{bar.label}: {number(count)} {meaning}"
                canvas.rect(scale(left), y - 6.5, scale(count) - scale(0), 13, colour=colour, tip=tip)
                left += count
        canvas.text(scale(bar.total) + 6, y, number(bar.total), size=11.5)
    return canvas.markup(title)


@dataclass(frozen=True)
class Histogram:
    """Counts in buckets, drawn in one colour. The second line of the label is the total, such as "12 pairs"."""

    label: str
    counts: Sequence[int]
    colour: str
    unit: str = "pair"

    @property
    def total(self) -> int:
        """The sum of all buckets."""
        return sum(self.counts)


def histogram_rows(
    rows: Sequence[Histogram], *, title: str, axis: str = "label", low: float = 0.0, high: float = 1.0
) -> Markup:
    """Draw histograms over [low, high] one below another: one horizontal scale, a vertical scale for each."""
    label_width, row_height, gap, top = 190, 72, 22, 8
    bottom = top + len(rows) * (row_height + gap)
    canvas = Canvas(WIDE, bottom + 44)
    scale = Scale(low, high, label_width, WIDE - 20)
    x_axis(canvas, scale, labels_of(linear_ticks(low, high)), axis, top=top, bottom=bottom, above=False)
    for index, row in enumerate(rows):
        base = top + (index + 1) * (row_height + gap) - gap / 2
        canvas.text(0, base - row_height / 2 - 9, shorten(row.label, int(label_width / _CHARACTER)), bold=True)
        canvas.text(0, base - row_height / 2 + 9, plural(row.total, row.unit), colour="dim", size=11.5)
        _bins(canvas, row, scale, base=base, height=row_height)
    return canvas.markup(title)


def _bins(canvas: Canvas, row: Histogram, scale: Scale, *, base: float, height: float) -> None:
    """Draw the bars of a histogram, its base line, and the count of its tallest bin."""
    bins, peak = len(row.counts), max(row.counts)
    edges = [scale.low + (scale.high - scale.low) * index / bins for index in range(bins + 1)]
    width = (scale.end - scale.start) / bins
    for index, count in enumerate(row.counts):
        if count:
            tip = f"{decimal(edges[index], '.2f')} to {decimal(edges[index + 1], '.2f')}: {plural(count, row.unit)}"
            tall = height * count / peak
            canvas.rect(scale(edges[index]) + 0.06 * width, base - tall, 0.88 * width, tall, colour=row.colour, tip=tip)
    canvas.line([(scale.start, base), (scale.end, base)], colour="quiet")
    if peak:
        index = row.counts.index(peak)
        aligns: dict[int, tuple[Literal["start", "middle", "end"], float]] = {0: ("start", 0.06), 9: ("end", 0.94)}
        align, part = aligns.get(index * 10 // bins, ("middle", 0.5))
        canvas.text(scale(edges[index]) + part * width, base - height - 8, number(peak), align=align, size=11.5)


@dataclass(frozen=True)
class Dots:
    """A row of `dot_rows`: two lines of label, and a value for each series."""

    label: str
    detail: str
    values: Mapping[str, float]


def dot_rows(rows: Sequence[Dots], series: Mapping[str, str], *, title: str, axis: str) -> Markup:
    """Draw values as dots on parallel lines over one horizontal scale, and write them at the right.

    `series` maps the names of the values to their colours.
    """
    label_width, row_height, top, column = 190, 40, 26, 76
    bottom = top + len(rows) * row_height
    canvas = Canvas(WIDE, bottom + 44)
    values = [value for row in rows for value in row.values.values()]
    scale = scale_of(values, label_width, WIDE - 24 - column * len(series))
    ticks = labels_of(linear_ticks(scale.low, scale.high))
    x_axis(canvas, scale, ticks, axis, top=top, bottom=bottom, above=False)
    ends = {name: WIDE - 2 - column * index for index, name in enumerate(reversed(list(series)))}
    for name, x in ends.items():
        canvas.text(x, 12, name, colour="dim", align="end", size=11)
    for index, row in enumerate(rows):
        y = top + (index + 0.5) * row_height
        canvas.text(0, y - 8, row.label, bold=True, size=12.5)
        canvas.text(0, y + 9, row.detail, colour="dim", size=11.5)
        extent = min(row.values.values()), max(row.values.values())
        canvas.line([(scale(value), y) for value in extent], colour="rule", width=3)
        for name, colour in series.items():
            value = decimal(row.values[name])
            canvas.circle(scale(row.values[name]), y, 5.5, colour=colour, tip=f"{row.label}: {name} {value}")
            canvas.text(ends[name], y, value, align="end", size=11.5)
    return canvas.markup(title)


def density_rows(rows: Sequence[Histogram], edges: Sequence[int], *, title: str) -> Markup:
    """Draw distributions of lengths one below another over a logarithmic axis, each scaled to its own peak.

    Bucket i of a row counts the values above edges[i - 1], up to and including edges[i]. The median is marked; it
    and the 95th percentile are interpolated within buckets.
    """
    label_width, row_height, top = 300, 30, 44
    bounds = [math.log10(0.5), *(math.log10(edge + 0.5) for edge in edges)]
    used = [i for row in rows for i, count in enumerate(row.counts) if count]
    scale = Scale(bounds[min(used)] - 0.03, bounds[max(used) + 1] + 0.03, label_width, WIDE - 150)
    bottom = top + len(rows) * row_height
    canvas = Canvas(WIDE, bottom + 8)
    ticks = {math.log10(tick): compact(tick) for tick in log_ticks(10**scale.low, 10**scale.high)}
    x_axis(canvas, scale, ticks, "characters", top=top, bottom=bottom, above=True)
    canvas.text(WIDE - 74, top - 11, "median", colour="dim", align="end", size=11)
    canvas.text(WIDE - 2, top - 11, "95th pct.", colour="dim", align="end", size=11)
    for index, row in enumerate(rows):
        base = top + (index + 1) * row_height
        label = shorten(row.label, int((label_width - 12) / _CHARACTER))
        canvas.text(label_width - 10, base - 11, label, align="end")
        _density(canvas, row, bounds, scale, base=base, height=row_height - 6)
        for x, part, colour in ((WIDE - 74, 0.5, "ink"), (WIDE - 2, 0.95, "dim")):
            value = 10 ** _quantile(row.counts, bounds, part)
            canvas.text(x, base - 11, f"≈ {number(_two_digits(value))}", align="end", colour=colour, size=11.5)
    return canvas.markup(title)


def _density(
    canvas: Canvas, row: Histogram, bounds: Sequence[float], scale: Scale, *, base: float, height: float
) -> None:
    """Draw a row of `density_rows`: equal areas are equal shares of it, whatever the widths of the buckets."""
    filled = [i for i, count in enumerate(row.counts) if count]
    first, last = filled[0], filled[-1] + 1
    densities = [row.counts[i] / (bounds[i + 1] - bounds[i]) for i in range(first, last)]
    xs = [scale(bound) for pair in pairwise(bounds[first : last + 1]) for bound in pair]
    ys = [base - density * height / max(densities) for density in densities for _ in range(2)]
    outline = [(xs[0], base), *zip(xs, ys, strict=True), (xs[-1], base)]
    canvas.area(outline, colour=row.colour, tip=f"{row.label}: {plural(row.total, row.unit)}")
    canvas.line([(scale.start, base), (scale.end, base)], colour="rule")
    median = scale(_quantile(row.counts, bounds, 0.5))
    canvas.line([(median, base), (median, base - height)], colour="ink", width=1.5)


def _quantile(counts: Sequence[int], bounds: Sequence[float], part: float) -> float:
    """Return the quantile `part` on the axis of `bounds`, interpolated linearly within its bucket."""
    needed, passed = part * sum(counts), 0
    for index, count in enumerate(counts):
        if count and passed + count >= needed:
            return bounds[index] + (bounds[index + 1] - bounds[index]) * (needed - passed) / count
        passed += count
    raise ValueError("all counts are zero")


def _two_digits(value: float) -> int:
    whole = max(round(value), 1)
    return int(round(whole, 2 - len(str(whole))))
