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
from cappy_model.train.batches import GroupPart, packed, shuffled
from cappy_model.train.corpus import LabelledPairs
from cappy_model.train.selection import EVALUATION, TRAINING, Selection
from schemas.ids import seed_for

_BATCHES_AHEAD = 32


class Place(NamedTuple):
    """The share of one process: of each `world` consecutive batches it takes the one at `rank`."""

    rank: int = 0
    world: int = 1


class Batch(NamedTuple):
    """The pairs of a batch, and the number of the group of each, int64[n], ascending.

    Equal numbers are one instruction, or one part of it where a larger group was cut.
    """

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
        return sum(window.batches for window in self._windows_of(epoch))

    def batches_for(self, pairs: int) -> int:
        """Return about how many batches hold `pairs` pairs, those of later epochs counted again."""
        seen = 0
        for window in self._windows():
            if seen + window.pairs >= pairs:
                return window.first + -(-(pairs - seen) * window.batches // window.pairs)
            seen += window.pairs
        return 0  # never reached: the stream has no end

    def pairs_of(self, batches: int) -> tuple[int, float]:
        """Return the number of pairs in the first `batches` batches, and of epochs; may read a window (CorpusError)."""
        seen = 0
        for window in self._windows():
            if window.first == batches:
                break
            if window.first + window.batches > batches:
                seen += sum(len(batch.groups) for batch in self._read(window, slice(batches - window.first)))
                break
            seen += window.pairs
        return seen, seen / int(self.selection.training_rows.sum())

    def windows(self, epoch: int) -> list[list[int]]:
        """Return the range numbers of each window of an epoch, in order.

        Only ranges with training pairs are listed; a window has at most `buffer` training pairs, or one range.
        """
        rows = self.selection.training_rows
        windows: list[list[int]] = []
        room = 0
        order = self._rng("pieces", epoch).permutation(len(rows))
        for number in order[rows[order] > 0].tolist():
            if rows[number] > room:
                windows.append([])
                room = self.buffer
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
        for window in self._windows():
            if window.first + window.batches > start:
                first = max(start, window.first)
                first += (place.rank - first) % place.world
                yield from self._read(window, slice(first - window.first, None, place.world))

    def _windows(self) -> Iterator["_Window"]:
        """Yield all windows of all epochs."""
        first = 0
        for epoch in count():
            for window in self._windows_of(epoch):
                yield window._replace(first=first)
                first += window.batches

    def _windows_of(self, epoch: int) -> Iterator["_Window"]:
        """Yield the windows of an epoch, with `first` not yet known."""
        for index, ranges in enumerate(self.windows(epoch)):
            rng = self._rng("pairs", epoch, index)
            pairs = int(self.selection.training_rows[ranges].sum())
            if self.selection.groups is None:
                yield _Window(ranges, 0, -(-pairs // self.batch_size), pairs, None, rng)
            else:
                parts = packed(*self.selection.groups_of(ranges), self.batch_size, rng)
                yield _Window(ranges, 0, len(parts), pairs, parts, rng)

    def _read(self, window: "_Window", wanted: slice) -> Iterator[Batch]:
        """Yield the `wanted` batches of a window, which is read whole."""
        pairs = self.selection.read(window.ranges, TRAINING, self.storage)
        if window.parts is None:
            for rows in shuffled(pairs.lengths, self.batch_size, window.rng)[wanted]:
                yield Batch(pairs.take(rows), np.arange(len(rows)))
            return
        ends = np.cumsum(self.selection.groups_of(window.ranges).sizes)
        starts = np.concatenate([[0], ends])
        for parts in window.parts[wanted]:
            places = [slice(starts[part.group], ends[part.group]) for part in parts]
            inside = [part.rows(at.start, pairs.labels[at]) for part, at in zip(parts, places, strict=True)]
            groups = np.repeat(np.arange(len(inside)), list(map(len, inside)))
            yield Batch(pairs.take(np.concatenate(inside)), groups)

    def _encode(self, batch: Batch) -> dict[str, Any]:
        return collate(batch, self.encoder, self.pad_token_id)

    def _rng(self, *stable_id: object) -> np.random.Generator:
        return np.random.default_rng(seed_for(self.seed, *map(str, stable_id)))


class _Window(NamedTuple):
    """Ranges that are read together, the number of their first batch in the stream, and their batches and pairs.

    `parts`: the groups of each batch; None for random batches, which are drawn with `rng` when the window is read.
    """

    ranges: list[int]
    first: int
    batches: int
    pairs: int
    parts: list[list[GroupPart]] | None
    rng: np.random.Generator


def collate(batch: Batch, encoder: Encoder, pad_token_id: int) -> dict[str, Any]:
    """Encode a batch (see `Stream` for names, dtypes and shapes)."""
    pairs = batch.pairs
    encoded = encoder.encode(pairs.instructions, pairs.responses)
    tensors = {name: torch.from_numpy(array) for name, array in padded_inputs(encoded, pad_token_id).items()}
    more = {"labels": torch.from_numpy(pairs.labels), "groups": torch.from_numpy(batch.groups)}
    return {**tensors, **more, "pair_ids": pairs.ids}


def evaluation_pairs(selection: Selection, storage: Mapping[str, Any]) -> LabelledPairs:
    """Read all pairs kept for evaluation, in the order of the selection's ranges. Raises CorpusError."""
    return selection.read(range(len(selection.ranges)), EVALUATION, storage)
