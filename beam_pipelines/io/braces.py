"""Braces and commas in patterns of files."""

import re
from collections.abc import Iterator
from itertools import product

from schemas.errors import CappyError

_ALTERNATIVES = 10_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)|([A-Za-z])\.\.([A-Za-z])", re.ASCII)


def expand_braces(text: str) -> list[str]:
    """Expand `{a,b}`, `{1..3}` and `{a..c}` as shells do: nested, and several. Other braces stay as they are.

    Brackets are left alone, so that `[{]` is a brace as such. Raises CappyError for more than 10,000 alternatives.
    """
    start = next((place for place, character in top_level(text) if character == "{"), None)
    if start is None:
        return [text]
    end = _closing(text, start)
    inner = text[start + 1 : end]
    commas = [place for place, character in top_level(inner) if character == ","]
    if commas:
        pieces = [inner[before + 1 : place] for before, place in zip([-1, *commas], [*commas, len(inner)], strict=True)]
        options = [option for piece in pieces for option in expand_braces(piece)]
    else:
        options = _numbers(inner) or [f"{{{option}}}" for option in expand_braces(inner)]
    rest = expand_braces(text[end + 1 :])
    if len(options) * len(rest) > _ALTERNATIVES:
        raise CappyError(f"{text}: stands for more than {_ALTERNATIVES:,} names; use wildcards instead")
    return [text[:start] + option + tail for option, tail in product(options, rest)]


def _numbers(inner: str) -> list[str]:
    """Return the numbers or letters of `1..3` or `a..c`, padded as in `01..10`; none for other text."""
    ends = _RANGE.fullmatch(inner)
    if not ends:
        return []
    if ends[3]:
        first, last = ord(ends[3]), ord(ends[4])
    else:
        first, last = int(ends[1]), int(ends[2])
    if abs(last - first) >= _ALTERNATIVES:
        raise CappyError(f"{{{inner}}}: stands for more than {_ALTERNATIVES:,} names; use wildcards instead")
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    if ends[3]:
        return [chr(number) for number in numbers]
    padded = any(re.match(r"-?0\d", text) for text in (ends[1], ends[2]))
    width = max(len(ends[1]), len(ends[2])) if padded else 0
    return [f"{number:0{width}d}" for number in numbers]


def top_level(text: str) -> Iterator[tuple[int, str]]:
    """Yield the commas and opening braces outside of brackets and braces, with their places."""
    place = 0
    while place < len(text):
        character = text[place]
        if character in ",{" and (character == "," or _closing(text, place) >= 0):
            yield place, character
        place = max(place, _closing(text, place)) + 1


def _closing(text: str, start: int) -> int:
    """Return the place where the bracket or brace at `start` is closed; -1 for another character or none."""
    if text[start] == "[":  # the first character within may be a `]`
        return text.find("]", start + (3 if text[start + 1 : start + 2] in ("!", "^") else 2))
    if text[start] != "{":
        return -1
    place = start + 1
    while place < len(text):
        if text[place] == "}":
            return place
        place = max(place, _closing(text, place)) + 1
    return -1
