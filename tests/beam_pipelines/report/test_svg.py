"""The SVG that plots are written in: ticks, scales and shapes."""

import math

import pytest

from beam_pipelines.report import svg


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.13, 0.07, [-0.1, -0.05, 0, 0.05]),
        (0, 7500, [0, 2000, 4000, 6000]),
        (99.9, 100.1, [99.9, 99.95, 100, 100.05, 100.1]),
    ],
)
def test_linear_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert svg.linear_ticks(low, high) == ticks


@pytest.mark.parametrize("high", [1, 2, 3, 9, 1000])
def test_whole_ticks_are_integers(high: int) -> None:
    ticks = svg.linear_ticks(0, high, whole=True)
    assert ticks[0] == 0 and len(ticks) > 1 and all(tick == round(tick) <= high for tick in ticks)


@pytest.mark.parametrize("power", range(-12, 13))
@pytest.mark.parametrize("most", [3, 4, 6])
def test_ticks_are_few_and_inside(power: int, most: int) -> None:
    for low in (-0.77, 0.0, 0.31, 12.0):
        low, high = low * 10.0**power, (low + 1.234) * 10.0**power
        ticks = svg.linear_ticks(low, high, most=most)
        assert 1 <= len(ticks) <= most
        assert all(low - 1e-6 * abs(low) <= tick <= high + 1e-6 * abs(high) for tick in ticks)


def test_log_ticks() -> None:
    assert svg.log_ticks(1, 100) == [1, 2, 5, 10, 20, 50, 100]
    assert svg.log_ticks(3, 40_000) == [10, 100, 1000, 10_000]


def test_labels_have_a_true_minus_sign_and_stay_short() -> None:
    assert list(svg.labels_of([-0.5, 0.0, 2.0, -250_000.0]).values()) == ["−0.5", "0", "2", "−250k"]


def test_a_scale_covers_equal_values() -> None:
    for value in (0.0, 1e-9, -3.0, 1e12):
        scale = svg.scale_of([value, value], 10, 110)
        assert math.isclose(scale(value), 60)


def test_series_differ_in_colour_or_dashes() -> None:
    styles = [svg.series_style(index) for index in range(32)]
    assert len(set(styles)) == 32 and len({style.colour for style in styles[:8]}) == 8


def test_texts_are_escaped_and_colours_are_variables() -> None:
    canvas = svg.Canvas(100, 20)
    canvas.text(1.005, 2, "<b> & \x00", colour="dim")
    canvas.circle(3, 4, 5, colour="accent", tip='"<tip>"')
    written = canvas.markup("<title>")
    assert "&lt;b&gt; &amp; \ufffd</text>" in written and "<title>&#34;&lt;tip&gt;&#34;</title></circle>" in written
    assert 'aria-label="&lt;title&gt;"' in written and 'fill="var(--accent)"' in written
