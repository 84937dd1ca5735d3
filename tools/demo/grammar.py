"""Sentences from frames: the little that the demo's generator needs of a grammar.

A frame is a text with slots: `{town}` is replaced by an entry of the bank `town`, `{a player}` by one with its article.
Entries may hold slots themselves. Within one `Writer` no entry is used twice, so that a club does not play itself.
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
    """Seeded choices made from `random.Random.random` alone, the one method whose numbers Python promises to keep."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, limit: int) -> int:
        """A uniform integer in [0, limit)."""
        return int(self._random.random() * limit)

    def one(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """`items` in a random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]


class Deck:
    """Deals its cards in a random order, all of them before any comes again: even use of every frame."""

    def __init__(self, cards: Sequence[str], draw: Draw) -> None:
        self._cards, self._draw, self._left = cards, draw, list[str]()

    def deal(self) -> str:
        """The next card."""
        if not self._left:
            self._left = self._draw.shuffled(self._cards)
        return self._left.pop()


class Writer:
    """Fills the frames of one row: `values` are fixed, the other slots draw from `banks`, never one entry twice."""

    def __init__(
        self, draw: Draw, banks: Mapping[str, Sequence[str]], *, values: Mapping[str, str] | None = None
    ) -> None:
        self._draw, self._banks, self.values = draw, banks, dict(values or {})
        self._used: set[str] = set()

    def pick(self, bank: str) -> str:
        """An entry of `bank` that this row has not used, its own slots filled.

        Raises:
            KeyError: there is no such bank.
            ValueError: the row has used all of the bank.
        """
        fresh = [entry for entry in self._banks[bank] if entry not in self._used]
        if not fresh:
            raise ValueError(f"a row asks for more than the {len(self._banks[bank])} entries of the bank {bank!r}")
        entry = self._draw.one(fresh)
        # A frame such as "{town} Rovers" may come again: its town will differ.
        if "{" not in entry:
            self._used.add(entry)
        return self.fill(entry)

    def fill(self, frame: str) -> str:
        """`frame` with every slot replaced."""

        def replace(match: re.Match[str]) -> str:
            article, slot = match.groups()
            text = self.values[slot] if slot in self.values else self.pick(slot)
            return with_article(text) if article else text

        return _SLOT.sub(replace, frame)

    def sentence(self, frame: str) -> str:
        """`fill`, with a capital at the start of every sentence."""
        return sentence_case(self.fill(frame))


def with_article(noun: str) -> str:
    """`noun` after "a" or "an", by how it begins."""
    return f"{'an' if _VOWEL_SOUND.match(noun) else 'a'} {noun}"


def sentence_case(text: str) -> str:
    """`text` with a capital letter at the start and after every full stop, question or exclamation mark."""
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
