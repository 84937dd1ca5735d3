"""Batches under a token budget."""

from itertools import pairwise

import numpy as np

from cappy_model.devices import CACHED_PER_TOKEN

_SPARED = 8  # tokens for each token of padding


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


def shared_batches(lengths: np.ndarray, prefixes: np.ndarray, groups: np.ndarray, budget: int) -> list[np.ndarray]:
    """Group rows that share prefixes into batches of at most `budget` computed tokens; each is int64[m] row numbers.

    `lengths`, `prefixes` (of the tokens that the rows of a group share) and `groups` are int64[n]. The cost of a batch
    is its longest prefix x its groups + the rest of its rows, or an eighth of the tokens in its cache if that is more.
    A group that fits into a batch is not split; a single row over the budget is a batch of its own. Rows of a group
    stand together; each row is in one batch.
    """
    rest = lengths - prefixes
    order = np.lexsort((-rest, groups, -prefixes))
    if not len(order):
        return []

    def cost(first: int, stop: int) -> int:
        rows = order[first:stop]
        prefix, members = int(prefixes[rows[0]]), 1 + int(np.count_nonzero(np.diff(groups[rows])))
        cached = (prefix + int(rest[rows].max())) * len(rows)
        return max(prefix * members + int(rest[rows].sum()), cached // CACHED_PER_TOKEN)

    cuts, start = [0], 0
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    for first, stop in pairwise([0, *edges.tolist(), len(order)]):
        if first > start and cost(start, stop) > budget:
            cuts.append(first)
            start = first
        if start == first and cost(start, stop) > budget:  # a group by itself
            for index in range(first + 1, stop):
                if cost(start, index + 1) > budget:
                    cuts.append(index)
                    start = index
    return [order[first:stop] for first, stop in pairwise([*cuts, len(order)])]


def similar_lengths(lengths: np.ndarray) -> list[np.ndarray]:
    """Group rows, longest first, so that padding adds at most an eighth to the tokens of a part; each is int64[m]."""
    order = np.argsort(-lengths, kind="stable")
    cuts, start, total = [0], 0, 0
    for index, length in enumerate(lengths[order].tolist()):
        total += length
        if _SPARED * (int(lengths[order[start]]) * (index - start + 1) - total) > total:
            cuts.append(index)
            start, total = index, length
    return [order[first:stop] for first, stop in pairwise([*cuts, len(order)])] if len(order) else []
