"""Command-line flags, declared once as the fields of a configuration.

Imports neither Beam nor pyarrow, so that `cappy --help` and errors in our own flags are answered at once.
"""

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from beam_pipelines.io.dialect import parse_delimiter, parse_encoding
from schemas.errors import UsageError

_FLAG = "flag"
_PATTERN, _FOLDER = "PATTERN", "DIR"
_IN_MEMORY = re.compile(r"(^|::)memory://")


@dataclass(frozen=True)
class Flag:
    """How a field of a configuration appears on the command line (see `flag`)."""

    help: str
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    choices: Sequence[str] | None = None
    name: str | None = None
    action: Any = None
    group: str | None = None


def flag(
    default: Any = MISSING,
    *,
    help: str,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
    choices: Sequence[str] | None = None,
    name: str | None = None,
    action: Any = None,
    group: str | None = None,
    default_factory: Any = MISSING,
    repr: bool = True,
) -> Any:
    """Declare a dataclass field that is also a flag. Without a default the flag is required.

    `help` is one line that stands alone; the default is appended to it. `parse` converts the text and defaults to
    `positive` for integers. `name` replaces the flag's name, which is the field's, in kebab-case; a boolean that is
    true by default becomes `--no-NAME`. `action` is argparse's; `extend` takes one value or more at a time. `group` is
    the heading under which help lists the flag.
    """
    described = Flag(help, metavar, parse, choices, name, action, group)
    if default_factory is not MISSING:
        return dataclasses.field(default_factory=default_factory, repr=repr, metadata={_FLAG: described})
    return dataclasses.field(default=default, repr=repr, metadata={_FLAG: described})


def add_flags(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """Add the flags of a configuration: those of its own class first, inherited ones after them."""
    groups: dict[str, Any] = {}
    for name, described in _flags(config).items():
        group = described.group
        if group is not None and group not in groups:
            groups[group] = parser.add_argument_group(group)
        add_flag(parser if group is None else groups[group], config, name)


def add_flag(parser: Any, config: type[Any], name: str) -> None:
    """Add the flag of one field to a parser or a group of one."""
    field, described = config.__dataclass_fields__[name], _flags(config)[name]
    default: Any = field.default_factory() if field.default_factory is not MISSING else field.default
    given: dict[str, Any] = {"dest": name}
    if field.type is bool:
        given["action"] = "store_false" if default else "store_true"
    else:
        given |= {"metavar": described.metavar, "choices": described.choices, "action": described.action}
        given["type"] = described.parse or (positive if field.type in (int, int | None) else str)
        given |= {"required": True} if default is MISSING else {"default": default}
    if described.action in ("append", "extend"):
        given["default"] = list(default)
    if described.action == "extend":
        given["nargs"] = "+"
    parser.add_argument(flag_name(config, name), help=described.help + _shown_default(field, default), **given)


def config_from(config: type[Any], arguments: argparse.Namespace) -> Any:
    """Make a configuration of parsed arguments."""
    names = {field.name for field in dataclasses.fields(config)}
    return config(**{name: value for name, value in vars(arguments).items() if name in names})


def check_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Check the words of a command line for slips that argparse lets pass.

    Raises UsageError for a flag that takes one value and is given twice (flags that add to a list and those without a
    value may be repeated), for words after the one of a pattern, and for a folder in the memory of this process, which
    is gone when the command ends.
    """
    given: dict[str, str] = {}
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        action = parser._option_string_actions.get(name)
        if action is None or action.nargs == 0:
            continue
        rest = words[index + (1 if equals else 2) :]
        value = value if equals else words[index + 1]
        if name in given and isinstance(action, argparse._StoreAction):
            both = "" if action.type is json_object else f": {given[name]!r} and {value!r}"  # options hold passwords
            pattern = f"give one pattern for both: {name} '{given[name]},{value}'"
            remedy = pattern if action.metavar == _PATTERN else "leave one of them out"
            raise UsageError(f"{name} takes one value and is given twice{both}; {remedy}")
        given[name] = value
        if action.metavar == _PATTERN and rest and not rest[0].startswith("-"):
            raise UsageError(
                f"unexpected argument {rest[0]!r} after {name} {value}; quote a pattern, such as "
                f"{name} 'data/*.parquet', or the shell replaces it by the names of files"
            )
        if action.metavar == _FOLDER:
            refuse_memory(name, value)


def refuse_memory(name: str, url: str) -> None:
    """Raise UsageError for an output (a flag's, by `name`) in the memory of this process, which ends."""
    if in_memory(url):
        raise UsageError(
            f"{name} {url}: is in the memory of this process, and would be gone when the command ends; give a place on "
            "a disk or an object store (memory:// is for jobs that one Python process runs)"
        )


def in_memory(url: str) -> bool:
    """Return whether a URL is in the memory of one process (fsspec's `memory://`, also behind a cache)."""
    return _IN_MEMORY.search(url) is not None


def flag_name(config: type[Any], field: str) -> str:
    """Return the flag of a field, such as `--max-length`."""
    name = _flags(config)[field].name
    if name is not None:
        return f"--{name}"
    default = config.__dataclass_fields__[field].default
    return f"--{'no-' if default is True else ''}{field.replace('_', '-')}"


def _flags(config: type[Any]) -> dict[str, Flag]:
    """Return the flags of a configuration by field, those of the most derived class first.

    A class that only changes the default of an inherited field keeps its flag.
    """
    order = dict.fromkeys(name for base in config.__mro__ for name in vars(base).get("__annotations__", {}))
    flags = {
        name: field.metadata[_FLAG]
        for base in reversed(config.__mro__)
        for name, field in vars(base).get("__dataclass_fields__", {}).items()
        if _FLAG in field.metadata
    }
    return {name: flags[name] for name in order if name in flags}


def _shown_default(field: dataclasses.Field[Any], default: Any) -> str:
    if field.type is bool or default in (MISSING, None, (), {}):
        return ""
    shown = ",".join(default) if isinstance(default, tuple) else default
    return f" (default: {shown})"


def positive(text: str) -> int:
    """Parse a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    if int(text) > sys.maxsize:
        raise argparse.ArgumentTypeError(f"{text} is too large; leave the flag out for no limit")
    return int(text)


def whole(text: str) -> int:
    """Parse a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def rate(text: str) -> float:
    """Parse a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def seconds(text: str) -> float:
    """Parse a positive number of seconds."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names, none of them empty."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between them")
    return found


def _as_argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser of a flag's text, whose ValueError argparse would show without its message."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


character = _as_argument(parse_delimiter)
codec = _as_argument(parse_encoding)


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value
