"""The frame all reports share: what a job's page gives, and how it becomes one HTML document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from beam_pipelines.report import text as words
from beam_pipelines.report.canvas import THEME

Kind = Literal["text", "code", "number", "figure", "bytes", "check"]

CLIPPED_AT = 320
"""Texts longer than this many characters are folded."""
LONGEST_TEXT = 4_000
"""Of a text longer than this many characters, the rest is left out, and the page says so."""


@dataclass(frozen=True)
class KeyFigure:
    """One of the large numbers below the headline."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading and how its cells are written. A `check` is whether the row adds up.

    A `figure` is a number that is written already.
    """

    label: str
    kind: Kind = "number"


@dataclass(frozen=True)
class Row:
    """A row of a table, one cell per column; None is an empty cell. `style` tells groups, their members and totals."""

    cells: Sequence[object]
    style: Literal["", "group", "member", "total"] = ""


@dataclass(frozen=True)
class Table:
    """A table of the page. `left_out` counts the `noun`s that the table does not show, and says so below it."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    left_out: int = 0
    noun: str = "row"


@dataclass(frozen=True)
class Page:
    """What a job's report says: the headline and the row of key figures, and what its own template shows below them."""

    template: str
    title: str
    headline: str
    lead: str
    figures: Sequence[KeyFigure]
    content: Mapping[str, Any] = field(default_factory=dict)


def draw(page: Page, manifest: Mapping[str, Any]) -> str:
    """The page as one HTML document that needs nothing from outside."""
    return _environment().get_template(page.template).render(page=page, manifest=manifest, theme=THEME, **page.content)


def first_rows(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], int]:
    """At most `limit` of the rows, and how many were left out."""
    return rows[:limit], max(len(rows) - limit, 0)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("beam_pipelines", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: words.clean(value) if type(value) is str else value,
    )
    for name in ("number", "decimal", "size", "duration", "moment", "plural", "human", "shorten", "clean"):
        environment.filters[name] = getattr(words, name)
    environment.globals.update(clipped_at=CLIPPED_AT, longest_text=LONGEST_TEXT)
    return environment
