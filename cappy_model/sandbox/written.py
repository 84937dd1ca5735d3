"""Numbers and booleans of text files, which compute as numbers and print as their file has them.

`5` beside `4.5` stays `5`, and `3.50`, `1e3` and `true` keep their letters. A number that Python prints as the file has
it is a plain one; only the others are of the types here. What is computed from them is a plain number.
"""

import json
import re
from typing import Any

MAX_DIGITS = 1_000
"""Integers of more digits are floats: to convert them takes time, and the sandbox has a bound on integers."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]+)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_A_NUMBER = frozenset(["nan", "NaN", "NAN"])


class WrittenInteger(int):
    """An integer that prints as `text`."""

    text: str

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


class WrittenBoolean(WrittenInteger):
    """A boolean that prints as `text`. It is an integer that equals True or False, of which there is no subclass."""


class WrittenFloat(float):
    """A floating-point number that prints as `text`."""

    text: str

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


Written = WrittenInteger | WrittenFloat


def plain(value: Any) -> Any:
    """Return True or False for a WrittenBoolean, for tests of identity; any other value as it is."""
    return bool(value) if type(value) is WrittenBoolean else value


def parse_integer(text: str) -> int | float:
    """Return the integer of digits with an optional minus; a float above MAX_DIGITS."""
    if len(text) > MAX_DIGITS:
        return parse_float(text)
    value = int(text)
    if str(value) == text:
        return value
    written = WrittenInteger(value)
    written.text = text
    return written


def parse_float(text: str) -> float:
    """Return the floating-point number that `text` names; infinite if it is too large for one."""
    value = float(text)
    if repr(value) == text:
        return value
    written = WrittenFloat(value)
    written.text = text
    return written


def parse_cell(text: str) -> Any:
    """Return the number or boolean that a cell of CSV looks like; any other cell is text.

    A number with leading zeros or a plus is text: it is a code.
    """
    if _INTEGER.fullmatch(text):
        return parse_integer(text)
    if _FRACTION.fullmatch(text) or text in _NOT_A_NUMBER:
        return parse_float(text)
    if text in _BOOLEANS:
        written = WrittenBoolean(_BOOLEANS[text])
        written.text = text
        return written
    return text


_DECODER = json.JSONDecoder(parse_int=parse_integer, parse_float=parse_float, parse_constant=parse_float)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError for other texts, RecursionError for one nested too deep."""
    return _DECODER.decode(text)
