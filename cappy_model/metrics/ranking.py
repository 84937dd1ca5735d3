"""Rank measures, best-of-n curves and bootstrap intervals.

Undefined values are NaN: a rank correlation with a constant column, an AUC of one class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

REPLICATES = 1_000
LEVEL = 0.95
"""Confidence level of the intervals."""

_MAX_ARRAY = 2**20
"""Maximum numbers of an array of replicates (8 MB), unless one replicate has more."""
_MAX_PAIRWISE = 128
"""Longer rows are sorted instead of compared pair by pair."""


def draws(most: int) -> list[int]:
    """Return the sizes n of a best-of-n curve: 1, 2, 4, ... and `most`."""
    return sorted({*(2**power for power in range(most.bit_length())), most} - {0})


def expected_best(values: np.ndarray, drawn: Sequence[int]) -> np.ndarray:
    """Return the expected value of the best of n random candidates, for g groups of m candidates: float64[g, d].

    `values` float[g, m]: the value of each candidate, ordered from the first choice to the last. `drawn`: d sizes n of
    samples without replacement, at most m of which are used. Exact: candidate i of 1 ... m is chosen if it is drawn and
    the i - 1 before it are not, in C(m - i, n - 1) of the C(m, n) subsets.
    """
    members = values.shape[1]
    return np.stack([(values * _chances(members, min(count, members))).sum(axis=1) for count in drawn], axis=1)


def _chances(members: int, drawn: int) -> np.ndarray:
    """Return the probability that each of m ordered candidates is the first of those drawn: float64[m]."""
    left = members - np.arange(1, members)
    steps = np.maximum(left - drawn + 1, 0) / left
    chances: np.ndarray = drawn / members * np.cumprod(np.concatenate([[1.0], steps]))
    return chances


def spearman_rows(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of each row of `score` and `label`, both float[g, m]: float64[g]."""
    from scipy import stats  # takes a second to import, which no other job needs

    one, other = (stats.rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (score, label))
    return _ratio((one * other).sum(axis=1), np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1)))


class PairCounts(NamedTuple):
    """Counts of the pairs of members of each row, float64[g] whole numbers.

    `net`: concordant pairs minus discordant pairs. `score` and `label`: pairs with different scores, or labels.
    """

    net: np.ndarray
    score: np.ndarray
    label: np.ndarray

    @property
    def kendall(self) -> np.ndarray:
        """Kendall's tau-b of each row."""
        return _ratio(self.net, np.sqrt(self.score * self.label))

    @property
    def accuracy(self) -> np.ndarray:
        """The share of pairs with different labels that the score orders the same way; equal scores count half.

        For labels 0 and 1 it is the AUC of the row.
        """
        return (1 + _ratio(self.net, self.label)) / 2


def pair_rows(score: np.ndarray, label: np.ndarray) -> PairCounts:
    """Count the pairs of each row of `score` and `label`, both float[g, m]."""
    rows, members = score.shape
    if members > _MAX_PAIRWISE:
        return PairCounts(*np.array([_pairs(*row) for row in zip(score, label, strict=True)]).reshape(rows, 3).T)
    counts = np.zeros((3, rows))
    for first in range(members - 1):
        signs = [np.sign(_compared(values, first)) for values in (score, label)]
        counts += [(signs[0] * signs[1]).sum(axis=1), *(np.abs(sign).sum(axis=1) for sign in signs)]
    return PairCounts(*counts)


def _compared(values: np.ndarray, first: int) -> np.ndarray:
    """Compare member `first` of each row with later ones: 1, 0 or -1; differences fail for infinities."""
    one, others = values[:, first : first + 1], values[:, first + 1 :]
    return (one > others).astype(np.int64) - (one < others)


def _pairs(score: np.ndarray, label: np.ndarray) -> tuple[float, float, float]:
    """Return the three counts of `PairCounts` of one row, in O(m log m)."""
    scores, labels = _differing(score), _differing(label)
    if not (scores and labels):
        return 0.0, scores, labels
    return float(np.rint(kendall(score, label) * np.sqrt(scores * labels))), scores, labels


def _differing(values: np.ndarray) -> float:
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((len(values) ** 2 - (ties**2).sum()) / 2)


@dataclass(frozen=True)
class RankedGroups:
    """Groups of equally many candidates, to be ordered by score: `score` and `label`, both float[g, m]."""

    score: np.ndarray
    label: np.ndarray

    @cached_property
    def pairs(self) -> PairCounts:
        """The pairs of candidates of each group."""
        return pair_rows(self.score, self.label)


def kendall(score: np.ndarray, label: np.ndarray) -> float:
    """Return Kendall's tau-b of float[n] and float[n], in O(n log n); NaN for fewer than two rows."""
    if len(score) < 2:
        return float("nan")
    from scipy import stats

    method = "asymptotic" if len(score) > 2 else "auto"  # of the p-value, which is undefined for two rows
    return float(stats.kendalltau(score, label, method=method).statistic)


class Tied(NamedTuple):
    """The order of n values, k of them distinct.

    `order` int64[n]: their positions in ascending order; `starts` int64[k]: the start of each distinct value in this
    order; `code` int64[n]: the number of the distinct value of each.
    """

    order: np.ndarray
    starts: np.ndarray
    code: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Tied":
        """Sort float[n]."""
        order = np.argsort(values, kind="stable")
        first = np.concatenate([[True], values[order][1:] != values[order][:-1]])[: len(values)]
        code = np.empty(len(values), dtype=np.int64)
        code[order] = np.cumsum(first) - 1
        return cls(order, np.flatnonzero(first), code)

    def totals(self, ordered: np.ndarray) -> np.ndarray:
        """Sum `ordered` float[b, n], in the order of the values, over equal values: float64[b, k]."""
        if len(self.starts) == len(self.order):
            return ordered
        totals: np.ndarray = np.add.reduceat(ordered, self.starts, axis=1)
        return totals


class RankedRows(NamedTuple):
    """All n rows of a dataset that have a score: `score` and `label`, both float64[n], and both sorted."""

    score: np.ndarray
    label: np.ndarray
    by_score: Tied
    by_label: Tied

    @classmethod
    def of(cls, score: np.ndarray, label: np.ndarray) -> "RankedRows":
        """Sort both columns."""
        return cls(score, label, Tied.of(score), Tied.of(label))


def _centred_ranks(times: np.ndarray) -> np.ndarray:
    """Return the ranks of k distinct values with multiplicities `times`, minus the mean rank: float64[b, k]."""
    ranks: np.ndarray = np.cumsum(times, axis=1) - times / 2 - times.sum(axis=1, keepdims=True) / 2
    return ranks


def spearman(score: Tied, label: Tied, weights: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation, float64[b]; row i counts `weights[:, i]` times, float[b, n]."""
    ordered = weights[:, score.order]
    times = score.totals(ordered), label.totals(weights[:, label.order])
    one, other = map(_centred_ranks, times)
    both = score.totals(ordered * other[:, label.code[score.order]])
    spread = [(count * rank**2).sum(axis=1) for count, rank in zip(times, (one, other), strict=True)]
    return _ratio((one * both).sum(axis=1), np.sqrt(spread[0] * spread[1]))


def auc(score: Tied, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve, float64[b]; `positive` bool[n]; row i counts `weights[:, i]` times."""
    ordered = weights[:, score.order]
    right = score.totals(ordered * positive[score.order])
    wrong = score.totals(ordered) - right
    below = np.cumsum(wrong, axis=1) - wrong / 2
    return _ratio((right * below).sum(axis=1), right.sum(axis=1) * wrong.sum(axis=1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN for a `whole` of 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def resamples(members: int, seed: int, *, rows: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each member is drawn in `REPLICATES` samples with replacement, as arrays float64[b, members].

    Equal seeds give equal draws. b is chosen so that arrays of b x `rows` numbers fit into memory too.
    """
    generator = np.random.default_rng(seed)
    most = max(1, _MAX_ARRAY // max(members, rows, 1))
    for start in range(0, REPLICATES, most):
        count = min(most, REPLICATES - start)
        drawn = generator.integers(members, size=(count, members)) + np.arange(count)[:, None] * members
        yield np.bincount(drawn.ravel(), minlength=count * members).reshape(count, members).astype(np.float64)


def bootstrap_means(values: np.ndarray, members: np.ndarray, seed: int) -> np.ndarray:
    """Return the means of the columns of `values` float[n, k] in samples of members: float64[REPLICATES, k].

    `members` int64[n], from 0 without gaps: rows of one member are drawn together. NaN values are left out.
    """
    count, defined = int(members.max()) + 1, ~np.isnan(values)
    sums, sizes = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, members, np.where(defined, values, 0))
    np.add.at(sizes, members, defined)
    # No BLAS: its sums depend on the machine and its threads.
    replicates = [
        _ratio(np.einsum("bm,mk->bk", drawn, sums), np.einsum("bm,mk->bk", drawn, sizes))
        for drawn in resamples(count, seed)
    ]
    return np.concatenate(replicates)


def interval(replicates: np.ndarray) -> tuple[float, float] | None:
    """Return the percentile interval of float[b] without NaN; None if nothing is left."""
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def number_or_none(value: Any) -> float | None:
    """Return a float for JSON; None for NaN, which JSON lacks."""
    return None if np.isnan(value) else float(value)
