"""Lengths -> batches under a budget of tokens."""

from itertools import pairwise

import numpy as np


def token_batches(lengths: np.ndarray, budget: int, *, padded: bool) -> list[np.ndarray]:
    """Rows in batches, longest first, so that each batch costs at most `budget` tokens.

    `lengths` int64[n] are tokens per row. A batch costs its longest length x its rows where it is `padded`, else the
    sum of its lengths; a single row over the budget is a batch of its own. Every row stands in one batch (int64[m]).
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    cuts, start, cost = [0], 0, 0
    for index, length in enumerate(ordered.tolist()):
        cost = int(ordered[start]) * (index - start + 1) if padded else cost + length
        if cost > budget and index > start:
            cuts.append(index)
            start, cost = index, length
    return [order[first:stop] for first, stop in pairwise([*cuts, len(order)])] if len(order) else []
