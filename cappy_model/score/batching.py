"""Batches under a token budget."""

from itertools import pairwise

import numpy as np

from cappy_model.devices import CACHED_PER_TOKEN


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
    is its longest prefix x its groups + its longest rest x its rows, or an eighth of the tokens in its cache if that is
    more. A single row over the budget is a batch of its own. Rows of a group stand together; each row is in one batch.
    """
    rest = lengths - prefixes
    order = np.lexsort((-rest, groups, -prefixes))
    cuts, start, members, longest = [0], 0, 0, 0
    for index, row in enumerate(order.tolist()):
        fresh = index == start or groups[row] != groups[order[index - 1]]
        members, longest = members + int(fresh), max(longest, int(rest[row]))
        prefix, rows = int(prefixes[order[start]]), index - start + 1
        cost = max(prefix * members + longest * rows, (prefix + longest) * rows // CACHED_PER_TOKEN)
        if cost > budget and rows > 1:
            cuts.append(index)
            start, members, longest = index, 1, int(rest[row])
    return [order[first:stop] for first, stop in pairwise([*cuts, len(order)])] if len(order) else []
