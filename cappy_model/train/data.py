"""The endless stream of training batches: shuffled by seed, in bounded memory, and able to start at any batch.

Each epoch orders the row ranges of the corpus at random and reads them in windows of at most `buffer` pairs. The
instructions of a window, or its pairs where batches are random, are shuffled, and batched with those of similar length.
The batches of a window follow from the sizes of its groups alone, so the stream starts at any batch after reading at
most one window that it then drops in part.
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
from cappy_model.train.batches import Share, packed, shuffled
from cappy_model.train.corpus import LabelledPairs
from cappy_model.train.selection import EVALUATION, TRAINING, Selection
from schemas.ids import seed_for

_BATCHES_AHEAD = 32


class Place(NamedTuple):
    """The share of one process: of each `world` consecutive batches it takes the one at `rank`."""

    rank: int = 0
    world: int = 1


class Batch(NamedTuple):
    """The pairs of a batch, and the number of the group of each, int64[n]: equal numbers are one instruction's."""

    pairs: LabelledPairs
    groups: np.ndarray


@dataclass(frozen=True)
class Stream:
    """The training batches of a corpus, epoch after epoch without end.

    A batch maps `input_ids`, `attention_mask` and, where the model has them, `token_type_ids` (int64[n, longest]),
    `labels` (float32[n]), `groups` (int64[n], see `Batch`) and `pair_ids` (n strings); n is at most `batch_size`. Each
    pair is in one batch of an epoch, and the numbering of batches does not depend on the number of processes.
    """

    selection: Selection
    encoder: Encoder
    pad_token_id: int
    batch_size: int
    buffer: int
    seed: int
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def batches_of_epoch(self, epoch: int) -> int:
        """Return the number of batches of an epoch; it varies a little with the order of the windows."""
        return sum(self._batches_of(epoch, index, window) for index, window in enumerate(self.windows(epoch)))

    def pairs_of(self, batches: int) -> tuple[int, float]:
        """Return the number of pairs in the first `batches` batches, and of epochs in which they are."""
        number = pairs = 0
        for epoch in count():
            before = pairs
            for index, window in enumerate(self.windows(epoch)):
                inside = self._batches_of(epoch, index, window)
                if number + inside > batches:
                    rest = range(batches - number)
                    partly = zip(rest, self._window_batches(epoch, index, window), strict=False)
                    pairs += sum(len(batch.groups) for _, batch in partly)
                    return pairs, epoch + (pairs - before) / self._pairs_in_epoch
                number += inside
                pairs += int(self.selection.training_rows[window].sum())
        raise AssertionError("the stream has no end")

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
        encoded = map(self._encode, self._batches(start, place))
        waiting = deque(prefetch.submit(next, encoded) for _ in range(_BATCHES_AHEAD))
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(prefetch.submit(next, encoded))
        finally:
            prefetch.shutdown(cancel_futures=True)

    def _batches(self, start: int, place: Place) -> Iterator[Batch]:
        """Yield the pairs of each batch that `batches` yields."""
        number = 0  # of the next batch in the stream
        for epoch in count():
            for index, window in enumerate(self.windows(epoch)):
                stop = number + self._batches_of(epoch, index, window)
                if stop > start:
                    first = max(start, number)
                    first += (place.rank - first) % place.world
                    yield from self._window_batches(epoch, index, window, slice(first - number, None, place.world))
                number = stop

    def _window_batches(
        self, epoch: int, index: int, window: list[int], wanted: slice = slice(None)
    ) -> Iterator[Batch]:
        """Yield the `wanted` batches of a window, which is read whole."""
        pairs = self.selection.read(window, TRAINING, self.storage)
        if self.selection.groups is None:
            lengths = np.array([len(a) + len(b) for a, b in zip(*pairs[:2], strict=True)])
            for rows in shuffled(lengths, self.batch_size, self._rng("pairs", epoch, index))[wanted]:
                yield Batch(pairs.take(rows), np.arange(len(rows)))
            return
        ends = np.cumsum(self.selection.groups_of(window).sizes)
        starts = np.concatenate([[0], ends])
        for shares in self._packed(epoch, index, window)[wanted]:
            places = [slice(starts[share.group], ends[share.group]) for share in shares]
            parts = [share.rows(at.start, pairs.labels[at]) for share, at in zip(shares, places, strict=True)]
            yield Batch(pairs.take(np.concatenate(parts)), np.repeat(np.arange(len(parts)), list(map(len, parts))))

    def _packed(self, epoch: int, index: int, window: list[int]) -> list[list[Share]]:
        return packed(*self.selection.groups_of(window), self.batch_size, self._rng("pairs", epoch, index))

    def _batches_of(self, epoch: int, index: int, window: list[int]) -> int:
        if self.selection.groups is None:
            return -(-int(self.selection.training_rows[window].sum()) // self.batch_size)
        return len(self._packed(epoch, index, window))

    @property
    def _pairs_in_epoch(self) -> int:
        return int(self.selection.training_rows.sum())

    def _encode(self, batch: Batch) -> dict[str, Any]:
        return collate(batch, self.encoder, self.pad_token_id)

    def _rng(self, *stable_id: object) -> np.random.Generator:
        return np.random.default_rng(seed_for(self.seed, *map(str, stable_id)))


def collate(batch: Batch, encoder: Encoder, pad_token_id: int) -> dict[str, Any]:
    """Encode a batch (see `Stream` for names, dtypes and shapes)."""
    pairs = batch.pairs
    encoded = encoder.encode(pairs.instructions, pairs.responses)
    tensors = {name: torch.from_numpy(array) for name, array in padded_inputs(encoded, pad_token_id).items()}
    more = {"labels": torch.from_numpy(pairs.labels), "groups": torch.from_numpy(batch.groups)}
    return {**tensors, **more, "pair_ids": pairs.ids}


def evaluation_pairs(selection: Selection, storage: Mapping[str, Any]) -> LabelledPairs:
    """Read all pairs kept for evaluation, in the order of the corpus. Raises CorpusError."""
    return selection.read(range(len(selection.ranges)), EVALUATION, storage)
