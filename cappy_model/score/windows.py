"""Tokenization in windows, ahead of the device; a pair that cannot be tokenized fails alone."""

import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np

from cappy_model.score.encoding import EncodedPairs, Encoder

WINDOW_PAIRS = 2_048
"""Pairs that are tokenized together and then batched by length; the next window is tokenized meanwhile."""

Pair = tuple[str, str]


class Window(NamedTuple):
    """Pairs tokenized together: those with tokens, their positions int64[m], and the errors of others by position."""

    rows: np.ndarray
    pairs: EncodedPairs | None
    errors: Mapping[int, str]


def windows(pairs: Sequence[Pair], encoder: Encoder, pool: Executor, *, by_instruction: bool) -> Iterator[Window]:
    """Yield all pairs in windows, longest (in characters) first; the next window is encoded in `pool` meanwhile.

    With `by_instruction`, the pairs of an instruction stand together. `pairs` of a window is None if none has tokens.
    """
    order = _order(pairs, by_instruction=by_instruction)
    parts = [order[start : start + WINDOW_PAIRS] for start in range(0, len(order), WINDOW_PAIRS)]
    ahead: queue.SimpleQueue[Future[Window]] = queue.SimpleQueue()
    for number in range(len(parts) + 1):
        if number < len(parts):
            ahead.put(pool.submit(_encode, encoder, parts[number], [pairs[row] for row in parts[number].tolist()]))
        if number:
            yield ahead.get().result()


def _order(pairs: Sequence[Pair], *, by_instruction: bool) -> np.ndarray:
    lengths = np.array([len(a) + len(b) for a, b in pairs], dtype=np.int64)
    if not by_instruction:
        return np.argsort(lengths, kind="stable")[::-1]
    places: dict[str, int] = {}
    group = np.array([places.setdefault(a, len(places)) for a, _ in pairs], dtype=np.int64)
    return np.lexsort((-lengths, group, -np.array([len(a) for a, _ in pairs], dtype=np.int64)))


def _encode(encoder: Encoder, rows: np.ndarray, pairs: Sequence[Pair]) -> Window:
    """Encode the pairs at `rows`; if that raises, try each alone."""
    errors: dict[int, str] = {}
    try:
        encoded = encoder.encode(*zip(*pairs, strict=True))
    except Exception:  # templates and tokenizers can raise anything for a pair
        errors = {place: problem for place, pair in enumerate(pairs) if (problem := _problem(encoder, pair))}
        good = [place for place in range(len(pairs)) if place not in errors]
        if good:
            encoded = encoder.encode(*zip(*(pairs[place] for place in good), strict=True))
    else:
        good = list(range(len(pairs)))
    if not good:
        return Window(rows[:0], None, _at(rows, errors))
    kept = np.array(good, dtype=np.int64)
    errors |= {
        int(place): "no tokens: the model's tokenizer finds none in the pair" for place in kept[encoded.lengths == 0]
    }
    filled = np.flatnonzero(encoded.lengths)
    return Window(rows[kept[filled]], encoded.take(filled) if len(filled) else None, _at(rows, errors))


def _problem(encoder: Encoder, pair: Pair) -> str | None:
    """Return why a pair cannot be encoded, None if it can."""
    try:
        encoder.encode([pair[0]], [pair[1]])
    except Exception as error:
        return f"not encodable: {brief(error)}"
    return None


def _at(rows: np.ndarray, errors: Mapping[int, str]) -> dict[int, str]:
    return {int(rows[place]): error for place, error in errors.items()}


def brief(error: Exception) -> str:
    """Return an error on one line, for the error column of its row."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
