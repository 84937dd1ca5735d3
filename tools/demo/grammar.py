"""Fill sentence frames from word banks.

A frame is a text with slots: `{town}` is replaced by an entry of the bank `town`, `{a player}` by an entry of `player`
with its article. Entries may have slots themselves. A `Writer` uses no entry twice, so that no club plays itself.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

_SLOT = re.compile(r"\{(a )?([a-z_]+)\}")
_SENTENCE_START = re.compile(r"(^|[.!?] )([a-zé])")
_VOWEL_SOUND = re.compile(r"(?!uni|use|eu|one\b)[aeiou]|hour|honest", re.IGNORECASE)


class Draw:
    """Seeded choices, made with `random.Random.random` only: the one method whose numbers Python guarantees to keep."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, limit: int) -> int:
        """Return a uniform integer in [0, limit)."""
        return int(self._random.random() * limit)

    def one(self, items: Sequence[T]) -> T:
        """Return one of `items`."""
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random.random() < probability

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return `items` in a random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]


class Deck:
    """Cards dealt in random order, each of them once per round, so that all frames are used equally often."""

    def __init__(self, cards: Sequence[str], draw: Draw) -> None:
        self._cards, self._draw, self._left = cards, draw, list[str]()

    def deal(self) -> str:
        """Return the next card."""
        if not self._left:
            self._left = self._draw.shuffled(self._cards)
        return self._left.pop()


class Writer:
    """Frame filler of one row: `values` are fixed; the other slots draw from `banks`, no entry twice."""

    def __init__(
        self, draw: Draw, banks: Mapping[str, Sequence[str]], *, values: Mapping[str, str] | None = None
    ) -> None:
        self._draw, self._banks, self.values = draw, banks, dict(values or {})
        self._used: set[str] = set()

    def pick(self, bank: str) -> str:
        """Return an entry of `bank` that this row has not used, with its own slots filled.

        Raises KeyError if there is no such bank, ValueError if the row has used all its entries.
        """
        fresh = [entry for entry in self._banks[bank] if entry not in self._used]
        if not fresh:
            raise ValueError(f"a row needs more than the {len(self._banks[bank])} entries of the bank {bank!r}")
        entry = self._draw.one(fresh)
        # A frame such as "{town} Rovers" may be reused: its town will differ.
        if "{" not in entry:
            self._used.add(entry)
        return self.fill(entry)

    def fill(self, frame: str) -> str:
        """Return `frame` with every slot replaced."""

        def replace(match: re.Match[str]) -> str:
            article, slot = match.groups()
            text = self.values[slot] if slot in self.values else self.pick(slot)
            return with_article(text) if article else text

        return _SLOT.sub(replace, frame)

    def sentence(self, frame: str) -> str:
        """Return `fill(frame)` with a capital letter at the start of every sentence."""
        return sentence_case(self.fill(frame))


def with_article(noun: str) -> str:
    """Return `noun` after "a" or "an", depending on its first sound."""
    return f"{'an' if _VOWEL_SOUND.match(noun) else 'a'} {noun}"


def sentence_case(text: str) -> str:
    """Return `text` with a capital letter at the start and after every full stop, question or exclamation mark."""
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
