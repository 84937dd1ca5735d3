"""How the rows of a window are put into batches: whole groups together, or rows in any order. Pure functions.

A group is the rows of one instruction. At the start of training the scores hardly depend on the response, so the
gradients of a right and of a wrong response to one instruction nearly cancel, and their difference is the signal.
Within one batch the common part cancels and the difference remains; spread over batches it is lost in the variation
between instructions.
"""

from typing import NamedTuple

import numpy as np

_BATCHES_BY_LENGTH = 64  # batches whose pairs are sorted by length together
_OPEN_BATCHES = 4  # batches of similar length that a small group may still fill


class GroupPart(NamedTuple):
    """Part `part` of `parts` of a group; a group that fits into a batch is one part."""

    group: int
    part: int
    parts: int

    def size(self, group_size: int) -> int:
        """Return the rows of this part of a group of `group_size` rows."""
        return -(-(group_size - self.part) // self.parts)

    def rows(self, start: int, labels: np.ndarray) -> np.ndarray:
        """Return the rows of this part, int64[m], of a group with `labels` float32[n] that begins at row `start`.

        The group is dealt out by label, so that each part of it has right and wrong responses where there are enough.
        """
        order = np.argsort(labels, kind="stable") if self.parts > 1 else np.arange(len(labels))
        return start + order[self.part :: self.parts]


def shuffled(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return batches of `batch_size` row numbers, int64[batch_size], for rows with these lengths (int64[n]).

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


def packed(sizes: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[list[GroupPart]]:
    """Return batches of whole groups, for groups with these sizes in rows and lengths (int64[n]).

    Groups are shuffled, then those of about 64 consecutive batches are sorted by length, packed into batches of at most
    `batch_size` rows, and the batches shuffled. A group that is larger than a batch is cut into as few parts as fit.
    """
    order = rng.permutation(len(sizes))
    spans = np.cumsum(sizes[order]) // (_BATCHES_BY_LENGTH * batch_size)
    batches: list[list[GroupPart]] = []
    for near in np.split(order, np.flatnonzero(np.diff(spans)) + 1):
        near = near[np.argsort(lengths[near], kind="stable")]
        filled = _fill(near, sizes[near], batch_size)
        batches += [filled[index] for index in rng.permutation(len(filled)).tolist()]
    return batches


def _fill(groups: np.ndarray, sizes: np.ndarray, batch_size: int) -> list[list[GroupPart]]:
    """Pack groups in order, each into the first of the latest batches that has room, or into a new one."""
    batches: list[list[GroupPart]] = []
    room: list[int] = []
    for group, size in zip(groups.tolist(), sizes.tolist(), strict=True):
        parts = -(-size // batch_size)
        for part in (GroupPart(group, number, parts) for number in range(parts)):
            needed = part.size(size)
            first = max(0, len(batches) - _OPEN_BATCHES)
            index = next((each for each in range(first, len(batches)) if room[each] >= needed), None)
            if index is None:
                index = len(batches)
                batches.append([])
                room.append(batch_size)
            batches[index].append(part)
            room[index] -= needed
    return batches
