"""The endless stream of batches that a scorer learns from: shuffled by seed, in bounded memory, entered at any place.

The pieces of a corpus are put in an order of their own for each epoch and read in windows of at most `buffer` pairs;
the pairs of a window are shuffled, and those that come near each other are put together by length. How many batches a
window has is known without reading it, so the stream can start at any batch by reading at most one window in vain.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch

from cappy_model.score.encoding import PairEncoder
from cappy_model.score.forward import padded_inputs
from cappy_model.train.corpus import Pairs, join_pairs, read_piece
from cappy_model.train.split import EVALUATION, TRAINING, Selection
from schemas.ids import seed_for

_BATCHES_BY_LENGTH = 64  # batches whose pairs are sorted by length together
_BATCHES_AHEAD = 32


class Place(NamedTuple):
    """A process's part of the stream: of each `world` consecutive batches it takes the one at `rank`."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Stream:
    """The batches of a corpus for training, epoch after epoch without end.

    A batch maps `input_ids`, `attention_mask` and, where the model has them, `token_type_ids` (int64[n, longest]),
    `labels` (float32[n]) and `pair_ids` (n strings); n is `batch_size`, less at the end of a window. In an epoch each
    pair stands in one batch, and how batches are numbered does not depend on the number of processes.
    """

    selection: Selection
    encoder: PairEncoder
    pad_token_id: int
    batch_size: int
    buffer: int
    seed: int
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def batches_of_epoch(self, epoch: int) -> int:
        """How many batches an epoch has. Epochs may differ by a few, since each window may end with a smaller batch."""
        return sum(self._batches_of(window) for window in self.windows(epoch))

    def windows(self, epoch: int) -> list[list[int]]:
        """The pieces in each window of an epoch, in order: those with pairs to learn from, at most `buffer` of them."""
        rows = self.selection.training_rows
        found: list[list[int]] = []
        room = 0
        for piece in self._rng("pieces", epoch).permutation(len(rows)).tolist():
            if rows[piece] > room:
                found.append([])
                room = self.buffer
            if rows[piece]:
                found[-1].append(piece)
                room -= int(rows[piece])
        return found

    def batches(self, start: int, place: Place) -> Iterator[dict[str, Any]]:
        """The batches of a process from batch number `start` of the stream on, made ahead of their use in a thread."""
        ahead = ThreadPoolExecutor(1, "batches")
        made = map(self._encode, self._pairs(start, place))
        waiting = deque(ahead.submit(next, made) for _ in range(_BATCHES_AHEAD))
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(ahead.submit(next, made))
        finally:
            ahead.shutdown(cancel_futures=True)

    def _pairs(self, start: int, place: Place) -> Iterator[Pairs]:
        """The pairs of each of these batches."""
        number = 0  # of the next batch in the stream
        for epoch in count():
            for index, window in enumerate(self.windows(epoch)):
                stop = number + self._batches_of(window)
                if stop > start:
                    pairs = self._read(window)
                    lengths = np.array([len(a) + len(b) for a, b in zip(*pairs[:2], strict=True)])
                    batches = grouped(lengths, self.batch_size, self._rng("pairs", epoch, index))
                    for offset, rows in enumerate(batches, start=number):
                        if offset >= start and offset % place.world == place.rank:
                            yield pairs.take(rows)
                number = stop

    def _batches_of(self, window: list[int]) -> int:
        return -(-int(self.selection.training_rows[window].sum()) // self.batch_size)

    def _read(self, window: list[int]) -> Pairs:
        return read_rows(self.selection, window, TRAINING, self.storage)

    def _encode(self, pairs: Pairs) -> dict[str, Any]:
        return collate(pairs, self.encoder, self.pad_token_id)

    def _rng(self, *what: object) -> np.random.Generator:
        return np.random.default_rng(seed_for(self.seed, *map(str, what)))


def grouped(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """All rows (of int64[n] `lengths`) in batches of `batch_size`, one of them smaller, in a random order.

    Rows are shuffled; of some consecutive batches the rows are then sorted by length, and these batches shuffled.
    """
    order = rng.permutation(len(lengths))
    step = _BATCHES_BY_LENGTH * batch_size
    batches: list[np.ndarray] = []
    for start in range(0, len(order), step):
        near = order[start : start + step]
        near = near[np.argsort(lengths[near], kind="stable")]
        cut = [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
        batches += [cut[index] for index in rng.permutation(len(cut)).tolist()]
    return batches


def collate(pairs: Pairs, encoder: PairEncoder, pad_token_id: int) -> dict[str, Any]:
    """Pairs as a batch (see `Stream`)."""
    encoded = encoder.encode(pairs.instructions, pairs.responses)
    tensors = {name: torch.from_numpy(array) for name, array in padded_inputs(encoded, pad_token_id).items()}
    return {**tensors, "labels": torch.from_numpy(pairs.labels), "pair_ids": pairs.ids}


def read_rows(selection: Selection, pieces: list[int], assignment: int, storage: Mapping[str, Any]) -> Pairs:
    """The pairs of some pieces that have a assignment, in order."""
    rows = {piece: selection.rows_of(piece, assignment) for piece in pieces}
    found = [read_piece(selection.pieces[piece], which, storage=storage) for piece, which in rows.items() if len(which)]
    return join_pairs(found)


def evaluation_pairs(selection: Selection, storage: Mapping[str, Any]) -> Pairs:
    """All pairs that are kept for evaluation."""
    return read_rows(selection, list(range(len(selection.pieces))), EVALUATION, storage)
