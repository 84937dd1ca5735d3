"""The endless stream of training batches: shuffled by seed, in bounded memory, and able to start at any batch.

Each epoch orders the row ranges of the corpus at random and reads them in windows of at most `buffer` pairs. The pairs
of a window are shuffled, and neighbouring pairs are batched by length. The number of batches of a window follows from
its rows alone, so the stream starts at any batch after reading at most one window that it then drops in part.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch

from cappy_model.score.encoding import Encoder
from cappy_model.score.forward import padded_inputs
from cappy_model.train.corpus import LabelledPairs, join_pairs, read_range
from cappy_model.train.split import EVALUATION, TRAINING, Selection
from schemas.ids import seed_for

_BATCHES_BY_LENGTH = 64  # batches whose pairs are sorted by length together
_BATCHES_AHEAD = 32


class Place(NamedTuple):
    """The share of one process: of each `world` consecutive batches it takes the one at `rank`."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Stream:
    """The training batches of a corpus, epoch after epoch without end.

    A batch maps `input_ids`, `attention_mask` and, where the model has them, `token_type_ids` (int64[n, longest]),
    `labels` (float32[n]) and `pair_ids` (n strings); n is `batch_size`, or less at the end of a window. Each pair is
    in one batch of an epoch, and the numbering of batches does not depend on the number of processes.
    """

    selection: Selection
    encoder: Encoder
    pad_token_id: int
    batch_size: int
    buffer: int
    seed: int
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def batches_of_epoch(self, epoch: int) -> int:
        """Return the number of batches of an epoch; it varies a little, as each window may end with a smaller batch."""
        return sum(self._batches_of(window) for window in self.windows(epoch))

    def windows(self, epoch: int) -> list[list[int]]:
        """Return the range numbers of each window of an epoch, in order.

        Only ranges with training pairs are listed; a window has at most `buffer` training pairs, or one range.
        """
        rows = self.selection.training_rows
        windows: list[list[int]] = []
        room = 0
        for number in self._rng("pieces", epoch).permutation(len(rows)).tolist():
            if rows[number] > room:
                windows.append([])
                room = self.buffer
            if rows[number]:
                windows[-1].append(number)
                room -= int(rows[number])
        return windows

    def batches(self, start: int, place: Place) -> Iterator[dict[str, Any]]:
        """Yield the batches of a process from batch number `start` of the stream on, prefetched by a thread."""
        prefetch = ThreadPoolExecutor(1, "batches")
        encoded = map(self._encode, self._pairs(start, place))
        waiting = deque(prefetch.submit(next, encoded) for _ in range(_BATCHES_AHEAD))
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(prefetch.submit(next, encoded))
        finally:
            prefetch.shutdown(cancel_futures=True)

    def _pairs(self, start: int, place: Place) -> Iterator[LabelledPairs]:
        """Yield the pairs of each batch that `batches` yields."""
        number = 0  # of the next batch in the stream
        for epoch in count():
            for index, window in enumerate(self.windows(epoch)):
                stop = number + self._batches_of(window)
                if stop > start:
                    pairs = read_rows(self.selection, window, TRAINING, self.storage)
                    lengths = np.array([len(a) + len(b) for a, b in zip(*pairs[:2], strict=True)])
                    batches = grouped(lengths, self.batch_size, self._rng("pairs", epoch, index))
                    for offset, rows in enumerate(batches, start=number):
                        if offset >= start and offset % place.world == place.rank:
                            yield pairs.take(rows)
                number = stop

    def _batches_of(self, window: list[int]) -> int:
        return -(-int(self.selection.training_rows[window].sum()) // self.batch_size)

    def _encode(self, pairs: LabelledPairs) -> dict[str, Any]:
        return collate(pairs, self.encoder, self.pad_token_id)

    def _rng(self, *stable_id: object) -> np.random.Generator:
        return np.random.default_rng(seed_for(self.seed, *map(str, stable_id)))


def grouped(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Group rows with these lengths (int64[n]) into batches of `batch_size` row numbers, in a random order.

    Rows are shuffled, then the rows of each 64 consecutive batches are sorted by length and their batches shuffled.
    One batch is smaller if `batch_size` does not divide n.
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


def collate(pairs: LabelledPairs, encoder: Encoder, pad_token_id: int) -> dict[str, Any]:
    """Encode pairs as one batch (see `Stream` for names, dtypes and shapes)."""
    encoded = encoder.encode(pairs.instructions, pairs.responses)
    tensors = {name: torch.from_numpy(array) for name, array in padded_inputs(encoded, pad_token_id).items()}
    return {**tensors, "labels": torch.from_numpy(pairs.labels), "pair_ids": pairs.ids}


def read_rows(selection: Selection, numbers: list[int], assignment: int, storage: Mapping[str, Any]) -> LabelledPairs:
    """Read the pairs with an assignment from the ranges with these numbers, in order. Raises CorpusError."""
    rows = {number: selection.rows_of(number, assignment) for number in numbers}
    parts = [read_range(selection.ranges[number], kept, storage=storage) for number, kept in rows.items() if len(kept)]
    return join_pairs(parts)


def evaluation_pairs(selection: Selection, storage: Mapping[str, Any]) -> LabelledPairs:
    """Read all pairs kept for evaluation, in the order of the corpus. Raises CorpusError."""
    return read_rows(selection, list(range(len(selection.ranges))), EVALUATION, storage)
