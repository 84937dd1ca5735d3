"""A sample of rows of bounded size, drawn by hashed keys, whatever the order in which the rows come."""

from collections import Counter
from collections.abc import Mapping

import numpy as np


class Sample:
    """At most `limit` rows with the smallest keys, with a code each; None is no limit.

    Holds twice the limit at most, and the rows added last.

    Rows with equal keys, those of one instruction, are kept or dropped `together`; otherwise the limit is reached
    exactly.
    """

    def __init__(self, limit: int | None, *, together: bool) -> None:
        self.limit, self._together = limit, together
        self._codes_kept: Counter[int] = Counter()
        self._rows, self._codes, self._keys = (np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint64))
        self._dropped: list[np.ndarray] = []
        self._count = 0
        self._beyond = 2**64  # the smallest key of which a row was dropped

    def add(self, rows: np.ndarray, codes: np.ndarray, keys: np.ndarray) -> None:
        """Add rows (int64[m]) with their codes (int64[m]) and, if there is a limit, their keys (uint64[m])."""
        if self.limit is None:
            self._count += len(rows)
            self._codes_kept.update(codes.tolist())
            return
        self._rows, self._codes = np.concatenate([self._rows, rows]), np.concatenate([self._codes, codes])
        self._keys = np.concatenate([self._keys, keys])
        if len(self._rows) > 2 * self.limit:
            self._cut(self.limit)

    def _cut(self, limit: int) -> None:
        order = np.lexsort((self._rows, self._keys))
        kept = min(limit, len(order))
        if self._together:
            keys = self._keys[order]
            if limit < len(order):
                self._beyond = min(self._beyond, int(keys[limit]))
            if self._beyond < 2**64:
                # An instruction of which a row was dropped is dropped whole, the rows that come later among them.
                kept = int(np.searchsorted(keys, np.uint64(self._beyond)))
        self._dropped.append(self._rows[order[kept:]])
        order = order[:kept]
        self._rows, self._codes, self._keys = self._rows[order], self._codes[order], self._keys[order]

    def result(self) -> tuple[int, Mapping[int, int], np.ndarray]:
        """Return the number of rows kept, the number kept of each code, and the rows that are dropped."""
        if self.limit is not None:
            self._cut(self.limit)
            self._count, self._codes_kept = len(self._rows), Counter(self._codes.tolist())
        return self._count, self._codes_kept, np.concatenate([np.zeros(0, np.int64), *self._dropped])
