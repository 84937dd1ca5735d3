"""How good an order or a choice is, and how sure that is: rank measures, best-of-n curves, bootstrap intervals.

Undefined values are NaN: a rank correlation with a side that does not vary, an AUC of one class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

REPLICATES = 1_000
LEVEL = 0.95
"""Of the intervals: the share of the replicates that lies within."""

_HELD_AT_ONCE = 2**20
"""Numbers of one array of replicates, if one replicate has no more: 8 MB."""
_MOST_PAIRED = 128
"""Rows of more members are sorted and not compared pair by pair."""


def draws(most: int) -> list[int]:
    """The sizes of a best-of-n curve: 1, 2, 4, ... and `most`."""
    return sorted({*(2**power for power in range(most.bit_length())), most} - {0})


def expected_best(values: np.ndarray, drawn: Sequence[int]) -> np.ndarray:
    """float64[g, d]: what the choice among `drawn` random candidates is worth on average, for g groups of m candidates.

    `values` float[g, m] is what each candidate is worth, ordered from the first choice to the last; `drawn` are d
    numbers of candidates, drawn without replacement, and all m where there are fewer. Exact: candidate i of 1 ... m is
    the choice when it is drawn and the i - 1 before it are not, in C(m - i, n - 1) of the C(m, n) subsets.
    """
    found = [(values * _chances(values.shape[1], min(count, values.shape[1]))).sum(axis=1) for count in drawn]
    return np.stack(found, axis=1)


def _chances(members: int, drawn: int) -> np.ndarray:
    """float64[m]: how likely each of m ordered candidates is the first one drawn."""
    left = members - np.arange(1, members)
    steps = np.maximum(left - drawn + 1, 0) / left
    chances: np.ndarray = drawn / members * np.cumprod(np.concatenate([[1.0], steps]))
    return chances


def spearman_rows(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    """float64[g]: Spearman's rank correlation of each row of `score` and `label`, both float[g, m]."""
    from scipy import stats  # takes a second to import, which no other job needs

    one, other = (stats.rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (score, label))
    return _ratio((one * other).sum(axis=1), np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1)))


class PairCounts(NamedTuple):
    """Pairs of the members of each row, float64[g] whole numbers.

    `net`: ordered alike by score and label, less those ordered the other way. `score` and `label`: those that differ.
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
        """The share of pairs with different labels that the score orders alike; equal scores count half.

        It is the AUC of each row whose labels are 0 and 1.
        """
        return (1 + _ratio(self.net, self.label)) / 2


def pair_rows(score: np.ndarray, label: np.ndarray) -> PairCounts:
    """The pairs of each row of `score` and `label`, both float[g, m]."""
    rows, members = score.shape
    if members > _MOST_PAIRED:
        return PairCounts(*np.array([_pairs(*row) for row in zip(score, label, strict=True)]).reshape(rows, 3).T)
    counts = np.zeros((3, rows))
    for first in range(members - 1):
        signs = [np.sign(_compared(values, first)) for values in (score, label)]
        counts += [(signs[0] * signs[1]).sum(axis=1), *(np.abs(sign).sum(axis=1) for sign in signs)]
    return PairCounts(*counts)


def _compared(values: np.ndarray, first: int) -> np.ndarray:
    """How the member `first` of each row compares with those after it. Infinities have no difference, but an order."""
    one, others = values[:, first : first + 1], values[:, first + 1 :]
    return (one > others).astype(np.int64) - (one < others)


def _pairs(score: np.ndarray, label: np.ndarray) -> tuple[float, float, float]:
    """The three counts of `PairCounts` of one row, in O(m log m)."""
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

    method = "asymptotic" if len(score) > 2 else "auto"  # how scipy finds a p-value: of two rows it has no such
    return float(stats.kendalltau(score, label, method=method).statistic)


class Tied(NamedTuple):
    """Values in ascending order: `order` int64[n] their positions, `starts` int64[k] where each distinct one begins.

    `code` int64[n] says which of the distinct ones each value is.
    """

    order: np.ndarray
    starts: np.ndarray
    code: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Tied":
        """Sorts float[n]."""
        order = np.argsort(values, kind="stable")
        first = np.concatenate([[True], values[order][1:] != values[order][:-1]])[: len(values)]
        code = np.empty(len(values), dtype=np.int64)
        code[order] = np.cumsum(first) - 1
        return cls(order, np.flatnonzero(first), code)

    def totals(self, ordered: np.ndarray) -> np.ndarray:
        """float64[b, k]: numbers float[b, n], given in the order of the values, added up for each distinct one."""
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
    """float64[b, k]: the ranks of k distinct values that are there so many `times`, less the mean rank."""
    ranks: np.ndarray = np.cumsum(times, axis=1) - times / 2 - times.sum(axis=1, keepdims=True) / 2
    return ranks


def spearman(score: Tied, label: Tied, weights: np.ndarray) -> np.ndarray:
    """float64[b]: Spearman's rank correlation of two columns; row i is there `weights[:, i]` times, float[b, n]."""
    ordered = weights[:, score.order]
    times = score.totals(ordered), label.totals(weights[:, label.order])
    one, other = map(_centred_ranks, times)
    both = score.totals(ordered * other[:, label.code[score.order]])
    spread = [(count * rank**2).sum(axis=1) for count, rank in zip(times, (one, other), strict=True)]
    return _ratio((one * both).sum(axis=1), np.sqrt(spread[0] * spread[1]))


def auc(score: Tied, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[b]: the area under the ROC curve; `positive` bool[n]; row i is there `weights[:, i]` times."""
    ordered = weights[:, score.order]
    right = score.totals(ordered * positive[score.order])
    wrong = score.totals(ordered) - right
    below = np.cumsum(wrong, axis=1) - wrong / 2
    return _ratio((right * below).sum(axis=1), right.sum(axis=1) * wrong.sum(axis=1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` / `whole`, NaN where that is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def resamples(members: int, seed: int, *, rows: int = 0) -> Iterator[np.ndarray]:
    """How often each of `members` is drawn in `REPLICATES` samples of as many, with replacement: float64[b, members].

    The same draws for the same seed. The arrays are of a size that leaves room for as many of b x `rows` numbers.
    """
    generator = np.random.default_rng(seed)
    most = max(1, _HELD_AT_ONCE // max(members, rows, 1))
    for start in range(0, REPLICATES, most):
        count = min(most, REPLICATES - start)
        drawn = generator.integers(members, size=(count, members)) + np.arange(count)[:, None] * members
        yield np.bincount(drawn.ravel(), minlength=count * members).reshape(count, members).astype(np.float64)


def bootstrap_means(values: np.ndarray, members: np.ndarray, seed: int) -> np.ndarray:
    """float64[REPLICATES, k]: means of the columns of `values` float[n, k] in samples of whole members.

    `members` int64[n], from 0 on without a gap, says which rows are drawn together. NaN values are left out.
    """
    count, known = int(members.max()) + 1, ~np.isnan(values)
    sums, sizes = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, members, np.where(known, values, 0))
    np.add.at(sizes, members, known)
    # No BLAS: its sums depend on the machine and its threads.
    replicates = [
        _ratio(np.einsum("bm,mk->bk", drawn, sums), np.einsum("bm,mk->bk", drawn, sizes))
        for drawn in resamples(count, seed)
    ]
    return np.concatenate(replicates)


def interval(replicates: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of float[b], NaN left out; None where nothing is left."""
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def number_or_none(value: Any) -> float | None:
    """A float for JSON, which has no NaN: None there."""
    return None if np.isnan(value) else float(value)
