"""The frame of every report: the parts that a job's page consists of, and rendering them as one HTML document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from beam_pipelines.report import text
from beam_pipelines.report.svg import THEME

Kind = Literal["text", "name", "code", "number", "figure", "bytes", "chart", "check"]

CLIPPED_AT = 320
"""Texts with more characters are folded."""
LONGEST_TEXT = 4_000
"""Texts with more characters are cut, and the page says so."""


@dataclass(frozen=True)
class KeyFigure:
    """One of the large numbers below the headline."""

    value: str
    label: str
    detail: str = ""


def count(value: int, noun: str, detail: str = "") -> KeyFigure:
    """Return a number of things as a key figure: the noun is given in the singular."""
    return KeyFigure(text.number(value), text.noun(value, noun), detail)


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and the kind of its cells.

    A `name` is text on one line, a `figure` a number that is already text, a `chart` a small SVG, and a `check` true if
    the row adds up.
    """

    label: str
    kind: Kind = "number"


@dataclass(frozen=True)
class Row:
    """A row of a table, one cell per column; None is shown as a dash.

    `style` marks groups, their members and totals. The first cell spans `span` columns.
    """

    cells: Sequence[object]
    style: Literal["", "group", "member", "total"] = ""
    span: int = 1


@dataclass(frozen=True)
class Table:
    """A table of the page, with the number of rows left out, each of them a `noun`."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    left_out: int = 0
    noun: str = "row"


@dataclass(frozen=True)
class Page:
    """A job's report: headline, lead and key figures, and the `content` that the job's own template shows below."""

    title: str
    headline: str
    lead: str
    figures: Sequence[KeyFigure]
    content: Mapping[str, Any] = field(default_factory=dict)


def draw(page: Page, manifest: Mapping[str, Any]) -> str:
    """Render the page as one self-contained HTML document, by `page.html.j2` in the folder of the manifest's job."""
    template = _environment().get_template(f"{manifest['job'].replace('-', '_')}/page.html.j2")
    return template.render(page=page, manifest=manifest, theme=THEME, **page.content)


def first_rows(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], int]:
    """Return at most `limit` of the rows, and how many are left out."""
    return rows[:limit], max(len(rows) - limit, 0)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("beam_pipelines", folder) for folder in ("report", "jobs")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.clean(value) if type(value) is str else value,
    )
    for name in ("number", "decimal", "size", "duration", "moment", "plural", "human"):
        environment.filters[name] = getattr(text, name)
    environment.globals.update(clipped_at=CLIPPED_AT, longest_text=LONGEST_TEXT)
    return environment
