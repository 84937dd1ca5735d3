"""Progress over prompts whose decodings are generated in groups, one after the other."""

from collections.abc import Callable, Sequence

import numpy as np

from cappy_model.work import ProgressCallback


class PromptProgress:
    """Counts prompts that are done in part.

    Args:
      prompts: number of prompts.
      groups: the decodings that are generated together, by number.
      weight: rows of a prompt in a batch of a group: its share of the prompt's work.
      on_progress: called with the prompts done and their number after each update.
    """

    def __init__(
        self,
        prompts: int,
        groups: Sequence[tuple[int, ...]],
        weight: Callable[[Sequence[int]], int],
        on_progress: ProgressCallback,
    ) -> None:
        self._groups = list(groups)
        shares = np.array([weight(group) for group in groups], dtype=np.float64)
        self._shares = shares / shares.sum()
        self._done = np.zeros((prompts, len(groups)))
        self._on_progress = on_progress

    def update(self, prompts: np.ndarray, group: tuple[int, ...], share: float) -> None:
        """Set the share of a group that is done for prompts, int64[n], by position."""
        self._done[prompts, self._groups.index(group)] = share
        self._on_progress(float((self._done @ self._shares).sum()), len(self._done))
