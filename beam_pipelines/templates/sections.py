"""YAML files of users: parsed, and validated with messages that name the file, the section and the key."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from beam_pipelines.io.storage import StorageOptions, read_bytes
from beam_pipelines.templates.files import PlainLoader
from schemas.errors import CappyError, UsageError

_SHOWN = 60  # characters of an invalid value in a message


class Section(BaseModel):
    """A mapping in the file. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Place(NamedTuple):
    """The section that a location in a file belongs to: its class, its location, and its name in messages."""

    section: type[Section]
    path: tuple[int | str, ...]
    name: str


_File = TypeVar("_File", bound=Section)
Locate = Callable[[tuple[int | str, ...], Any], Place | None]
"""Returns the place of a location in a file with some content; None for the file itself."""


def parse_yaml(url: str, storage: StorageOptions, *, flag: str) -> Any:
    """Parse a YAML file. Raises UsageError, naming the `flag` it was passed to, if it is missing or not YAML."""
    try:
        data = read_bytes(url, storage)
    except CappyError as error:
        raise UsageError(f"{flag} {error}") from error
    if data is None:
        raise UsageError(f"{url}: no such file; {flag} requires a YAML file")
    try:
        return yaml.load(data, Loader=PlainLoader)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise UsageError(f"{url}: is not YAML: {error}") from error


def validate(kind: type[_File], content: Any, url: str, locate: Locate) -> _File:
    """Validate the content of a file. Raises UsageError that lists every fault."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{url}: {'; '.join(_faults(error, content, kind, locate))}") from error


def _faults(error: ValidationError, content: Any, kind: type[Section], locate: Locate) -> Iterator[str]:
    """Yield the faults of a file's `content`, one sentence for each key."""
    sentences: dict[str, list[str]] = {}
    for fault in error.errors():
        section, path, place = locate(fault["loc"], content) or Place(kind, (), "")
        key = str(fault["loc"][len(path)]) if len(fault["loc"]) > len(path) else ""
        if fault["type"] == "extra_forbidden":
            sentence = f"unknown key {key!r}; {_suggest(key, section)}"
        elif fault["type"] == "missing":
            sentence = f"the key {key!r} is missing"
        else:
            sentence = f"{f'{key!r} is ' if key else ''}{repr(fault['input'])[:_SHOWN]}: {fault['msg']}"
        if fault["type"] == "string_type" and isinstance(fault["input"], bool):
            sentence += " (YAML takes yes, no, on and off for true and false: write it in quotes)"
        alternatives = sentences.setdefault(f"{place}.{key}", [])
        alternatives.append(fault["msg"] if alternatives else f"{place}: {sentence}" if place else sentence)
    for alternatives in sentences.values():
        yield " or ".join(alternatives)


def _suggest(key: str, section: type[Section]) -> str:
    near = difflib.get_close_matches(key, section.model_fields, 1)
    return f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(section.model_fields)}"
