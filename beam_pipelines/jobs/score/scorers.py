"""The file of `--scorers`: several scorers, each a run of score of its own below the output."""

import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from os.path import isdir
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from beam_pipelines.io.storage import absolute, is_local, join
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.scoring import POSITION, ScoreColumns
from beam_pipelines.runs.wording import reword
from beam_pipelines.templates.sections import Place, Section, parse_yaml, validate
from schemas.errors import CappyError, UsageError

SCORERS = "scorers"
"""The folder below the output where each scorer has the folder of its run."""

_FORM = "list scorers, each with its `model` and `column`"
_SHOWN = 60  # characters of a value in a message
_KEYS = {
    r"--score-column names another one": "give the scorer another `column`",
    r"--(head|template)\b": r"`\1`",
    r"--max-length\b": "`max_length`",
}
"""Patterns of messages about a scorer -> what they say of its entry in the file."""

_NO_FILE = ("auto", "none", "chat")
_LONGEST_FOLDER = 200  # characters; file systems take 255


class ScorerEntry(Section):
    """One scorer in the file; what it leaves out is as the flags of these names say.

    Args:
      model: hub id[@revision], folder, or fsspec URL.
      column: name of the column with its score.
      template: auto, none, chat, or a file with a jinja template.
      head: the score of a model with several logits.
      dtype: number format.
      max_length: tokens of a pair.
    """

    model: Annotated[str, Field(min_length=1)]
    column: Annotated[str, Field(min_length=1)]
    template: str | None = None
    head: str | int | None = None
    dtype: str | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None


class ScorersFile(Section):
    """The whole file."""

    scorers: Annotated[list[ScorerEntry], Field(min_length=1)]


def read_scorers(config: ScoreConfig) -> list[ScoreConfig]:
    """Return the configuration of each scorer's own run, in the order of the file.

    Relative paths in the file are resolved against its folder. Raises UsageError, naming the file, the scorer and the
    key, for an unknown key (with the nearest known one), a missing key, a value of another type, and columns that are
    equal or hard to tell apart.
    """
    url = str(config.scorers)
    content = parse_yaml(absolute(url), config.storage, flag="--scorers")
    if content is None or isinstance(content, list):
        content = {"scorers": content}
    _check_form(content, url)
    file = validate(ScorersFile, content, url, _place_of)
    _check_columns([entry.column for entry in file.scorers], url)
    folder = posixpath.dirname(absolute(url))
    return [_configuration(config, entry, folder) for entry in file.scorers]


def _check_form(content: Any, url: str) -> None:
    """Raise UsageError for a file that lists no scorers, or something else; keys and values are not looked at."""
    if isinstance(content, dict) and "scorers" not in content:
        return
    listed = content["scorers"] if isinstance(content, dict) else content
    if listed is None or listed == []:
        raise UsageError(f"{url}: is empty; {_FORM}")
    if not isinstance(listed, list):
        raise UsageError(f"{url}: holds {repr(listed)[:_SHOWN]}, which is no list; {_FORM}")
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, dict):
            raise UsageError(f"{url}: scorer {number} is {repr(entry)[:_SHOWN]}; {_FORM}")


def _place_of(loc: tuple[int | str, ...], content: Any) -> Place | None:
    """Return the scorer that a location in the file belongs to; None for the file itself."""
    if loc[:1] != ("scorers",) or len(loc) < 2:
        return None
    entry = content["scorers"][int(loc[1])]
    name = f" ({entry['column']})" if isinstance(entry, dict) and "column" in entry else ""
    return Place(ScorerEntry, loc[:2], f"scorer {int(loc[1]) + 1}{name}")


def _check_columns(columns: Sequence[str], url: str) -> None:
    """Raise UsageError for columns of scores that are the same, or the same to systems that fold names."""
    for column in columns:
        if len(folder_of(column)) > _LONGEST_FOLDER:
            raise UsageError(f"{url}: column {column!r} is too long for the name of a folder; give a shorter one")
    taken = [(column, name) for column in columns for name in ScoreColumns("", "", column).new]
    for column, name in taken:
        if name.casefold() == POSITION.name:
            raise UsageError(f"{url}: column {name!r} is reserved for row positions; rename {column!r}")
    for (column, name), (other, second) in combinations(taken, 2):
        if name == second == column == other:
            raise UsageError(f"{url}: column {name!r} is named twice; give each scorer a column of its own")
        if name == second:
            raise UsageError(f"{url}: scorers {column!r} and {other!r} both write a column {name!r}; rename one")
        if _folded(name) == _folded(second):
            raise UsageError(
                f"{url}: columns {name!r} and {second!r} differ only in case or Unicode normalization, which some file "
                "systems and databases ignore; rename one"
            )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def folder_of(column: str) -> str:
    """Return the name of a scorer's folder: its column, all but letters, digits, `_`, `-` and `~` percent-encoded."""
    return quote(column, safe="").replace(".", "%2E")


def _configuration(config: ScoreConfig, entry: ScorerEntry, folder: str) -> ScoreConfig:
    """Return the configuration of the run of one scorer."""
    given = {name: getattr(entry, name) for name in ("template", "dtype", "max_length")}
    given["head"] = None if entry.head is None else str(entry.head)
    if entry.template not in (None, *_NO_FILE):
        given["template"] = absolute(str(entry.template), folder)
    beside = absolute(entry.model, folder)
    return replace(
        config,
        scorers=None,
        model=beside if is_local(beside) and isdir(beside) else entry.model,
        score_column=entry.column,
        output=join(absolute(config.output), SCORERS, folder_of(entry.column)),
        **{name: value for name, value in given.items() if value is not None},
    )


@contextmanager
def naming(config: ScoreConfig, column: str) -> Iterator[None]:
    """Name the file, the scorer of `column` and its keys in the CappyErrors that are raised within the block."""
    try:
        yield
    except CappyError as error:
        raise type(error)(f"{config.scorers}: scorer {column!r}: {reword(str(error), _KEYS)}") from error
