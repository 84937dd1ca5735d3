"""Batches under a token budget."""

from itertools import pairwise

import numpy as np


def token_batches(lengths: np.ndarray, budget: int, *, padded: bool) -> list[np.ndarray]:
    """Group rows into batches of at most `budget` tokens, longest rows first; each batch is int64[m] row numbers.

    `lengths` int64[n] are tokens per row. The cost of a batch is its longest length x its rows if `padded`, else the
    sum of its lengths; a single row over the budget is a batch of its own. Each row is in exactly one batch.
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
