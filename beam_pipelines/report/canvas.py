"""A matplotlib figure measured in CSS pixels, and the SVG it becomes inside a page.

The SVG is drawn without pyplot, carries no ids, styles or metadata of its own, and names its colours by the page's CSS
variables, so that it follows the light or dark theme and prints.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from beam_pipelines.report.text import clean

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
    "quiet": ("#9aa5b1", "#66717f"),
}
"""Colours by name, light and dark. Those of the label sources are Okabe and Ito's, for any colour vision."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "path.simplify": False,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in THEME.items()}
_COLOUR = re.compile("#[0-9a-f]{6}")
_FAMILY = re.compile("font-family: [^;]*")
_TIP = "tip:"


@contextmanager
def drawing() -> Iterator[None]:
    """Within it matplotlib has its defaults and ours, whatever this machine's matplotlibrc says. Also a decorator."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


class Canvas:
    """A drawing of `width` by `height` pixels, made within `drawing`; positions count from the left and top edges."""

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width, height
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self._figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes over a rectangle, without frame or ticks."""
        bounds = (left / self._width, 1 - (top + height) / self._height, width / self._width, height / self._height)
        axes = self._figure.add_axes(bounds, frameon=False)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        colour: str = "ink",
        align: str = "left",
        size: float = 12,
        bold: bool = False,
    ) -> None:
        """Writes `words` at (x, y), centred vertically. `align` says which end of them stands at x."""
        self._figure.text(
            x / self._width,
            1 - y / self._height,
            clean(words),
            color=THEME[colour][0],
            ha=align,
            va="center_baseline",
            fontsize=size,
            fontweight="bold" if bold else "normal",
            parse_math=False,
        )

    def svg(self, title: str) -> Markup:
        """The drawing as inline SVG. `title` describes it to those who cannot see it."""
        sink = io.StringIO()
        with warnings.catch_warnings():
            # The reader's own fonts draw the text, so what DejaVu lacks is of no matter.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._figure.savefig(sink, format="svg", metadata=_NO_METADATA, transparent=True)
        root = ElementTree.fromstring(sink.getvalue())
        children = "".join(_markup(child) for child in root)
        box = f'viewBox="{root.get("viewBox")}" style="max-width: {self._width:g}px"'
        picture = f'<svg role="img" aria-label="{escape(clean(title))}" {box}>{children}</svg>'
        return Markup(f'<div class="plot">{picture}</div>')


def tip(artist: Artist, words: str) -> None:
    """Makes `words` appear when the pointer rests on the artist."""
    artist.set_gid(_TIP + clean(words))


def block(axes: Axes, corner: tuple[float, float], size: tuple[float, float], *, colour: str, words: str) -> None:
    """A filled rectangle, in the axes' units, with a tip."""
    # Much cheaper than Axes.bar, which works out limits anew for each.
    rectangle = Rectangle(corner, *size, facecolor=THEME[colour][0], linewidth=0, clip_on=False)
    tip(rectangle, words)
    axes.add_artist(rectangle)


def style_axis(axes: Axes, *, at: str = "bottom") -> None:
    """Quiet vertical grid lines and tick labels at the bottom or top of the axes."""
    axes.tick_params(
        axis="x",
        length=0,
        pad=6,
        labelsize=11,
        labelcolor=THEME["dim"][0],
        bottom=at == "bottom",
        labelbottom=at == "bottom",
        top=at == "top",
        labeltop=at == "top",
    )
    axes.grid(axis="x", color=THEME["rule"][0], linewidth=1, clip_on=False)
    axes.set_axisbelow(True)


def _markup(element: ElementTree.Element) -> str:
    """An element of matplotlib's SVG as markup: groups that say nothing are dropped, colours become variables."""
    name = element.tag.partition("}")[2]
    style = _restyle(element.get("style", ""))
    if name in ("defs", "metadata") or style == "fill: none":
        return ""
    children = "".join(_markup(child) for child in element)
    if name == "g":
        words = element.get("id", "")
        return (
            f"<g><title>{escape(words.removeprefix(_TIP))}</title>{children}</g>"
            if words.startswith(_TIP)
            else children
        )
    kept = {key: value for key, value in element.attrib.items() if key in ("d", "x", "y")} | {"style": style}
    attributes = "".join(f' {key}="{escape(" ".join(value.split()))}"' for key, value in kept.items())
    return f"<{name}{attributes}>{escape(element.text or '') if name == 'text' else ''}{children}</{name}>"


def _restyle(style: str) -> str:
    style = _FAMILY.sub("font-family: var(--font)", style)
    return _COLOUR.sub(lambda match: _VARIABLES.get(match.group(), match.group()), style)
