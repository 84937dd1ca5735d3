"""The parts of prompts that are done, while their decodings are generated in groups."""

from collections.abc import Callable, Sequence

import numpy as np

from cappy_model.work import Advance


class Parts:
    """Tells `advance` a number of prompts, each in parts: the groups of decodings, by their `weight` in rows."""

    def __init__(
        self,
        prompts: int,
        groups: Sequence[tuple[int, ...]],
        weight: Callable[[Sequence[int]], int],
        advance: Advance,
    ) -> None:
        self._groups = list(groups)
        shares = np.array([weight(group) for group in groups], dtype=np.float64)
        self._shares = shares / shares.sum()
        self._done = np.zeros((prompts, len(groups)))
        self._advance = advance

    def done(self, prompts: np.ndarray, group: tuple[int, ...], share: float) -> None:
        """Set the share of a group that is done for prompts, int64[n], by position."""
        self._done[prompts, self._groups.index(group)] = share
        self._advance(float((self._done @ self._shares).sum()), len(self._done))
