"""From values of examples to what is reported: means by dataset, their macro average, intervals, and differences.

A method is known by a key: `scorer:NAME` chooses or orders by a column of scores; `oracle` is a bound; any other is a
baseline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cappy_model.metrics.ranking import (
    REPLICATES,
    Tied,
    auc,
    bootstrap_means,
    interval,
    kendall,
    number_or_none,
    resamples,
    spearman,
)

SCORER = "scorer:"
ORACLE, RANDOM, MAJORITY = "oracle", "random", "majority"
FIRST = "first:"
SELF_SCORES = {"self-score:sum": "log_likelihood_sum", "self-score:mean": "log_likelihood_mean"}
"""The language model's own ranking: methods, each with the column it goes by."""


class Estimate(NamedTuple):
    """What k methods are worth in one dataset, or on average over several.

    `value` float64[k], NaN where undefined; `replicates` float64[REPLICATES, k], paired across the methods;
    `counted` int64[k], over how many examples, or candidates.
    """

    value: np.ndarray
    replicates: np.ndarray
    counted: np.ndarray


def estimate_means(values: np.ndarray, members: np.ndarray, seed: int) -> Estimate:
    """The mean of each column of float[n, k], NaN left out; `members` int64[n]: see `bootstrap_means`."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    value = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return Estimate(value, bootstrap_means(values, members, seed), count)


def estimate_orders(scores: np.ndarray, label: np.ndarray, members: np.ndarray, seed: int) -> dict[str, Estimate]:
    """Spearman, Kendall's tau-b and, where all labels are 0 or 1, AUC of each column of `scores` over all rows.

    `scores` float[n, k], NaN where there is none, and a last column is added for a random order; `label` float[n];
    `members` int64[n], from 0 on without a gap, says which rows are drawn together. Kendall has no interval: a sample
    cannot be had of one sorted order as that of the others can.
    """
    rows = [_Known.of(scores[:, column], label, members) for column in range(scores.shape[1])]
    binary = bool(np.isin(label, (0, 1)).all())
    names = ["spearman", *(["auc"] if binary else [])]
    most = int(members.max()) + 1
    plain = _orders(rows, np.ones((1, most)), names)
    drawn = [_orders(rows, weights, names) for weights in resamples(most, seed, rows=len(label))]
    counts = np.array([*(len(row.label) for row in rows), len(label)])
    found = {name: Estimate(plain[name][0], np.concatenate([part[name] for part in drawn]), counts) for name in names}
    taus = np.array([*(kendall(row.score, row.label) if len(row.label) > 1 else np.nan for row in rows), 0.0])
    return found | {"kendall": Estimate(taus, np.full((REPLICATES, len(taus)), np.nan), counts)}


class _Known(NamedTuple):
    """The rows that have a score: it, the label and the member of each, and both columns sorted."""

    score: np.ndarray
    label: np.ndarray
    members: np.ndarray
    by_score: Tied
    by_label: Tied

    @classmethod
    def of(cls, score: np.ndarray, label: np.ndarray, members: np.ndarray) -> "_Known":
        known = ~np.isnan(score)
        score, label = score[known], label[known]
        return cls(score, label, members[known], Tied.of(score), Tied.of(label))


def _orders(rows: Sequence[_Known], weights: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Each measure, float64[b, k + 1], where the members are there `weights` float[b, m] times."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    nothing = np.full(len(weights), np.nan)
    for row in rows:
        times = weights[:, row.members]
        for name, columns in found.items():
            if not len(row.label):
                columns.append(nothing)
            elif name == "auc":
                columns.append(auc(row.by_score, row.label == 1, times))
            else:
                columns.append(spearman(row.by_score, row.by_label, times))
    random = {name: np.full(len(weights), 0.5 if name == "auc" else 0.0) for name in names}
    return {name: np.stack([*columns, random[name]], axis=1) for name, columns in found.items()}


def macro_average(estimates: Sequence[Estimate]) -> Estimate:
    """The plain mean over datasets; NaN for a method that one of them does not have."""
    return Estimate(
        np.mean([each.value for each in estimates], axis=0),
        np.mean([each.replicates for each in estimates], axis=0),
        np.sum([each.counted for each in estimates], axis=0),
    )


def describe(estimate: Estimate, methods: Sequence[str]) -> dict[str, Any]:
    """An estimate for JSON: `methods` with their intervals, the best baseline, and how each scorer differs from it.

    The best baseline is one that is there for every example. A difference is paired: both methods are drawn alike.
    """
    shown = {
        method: {
            "value": number_or_none(estimate.value[column]),
            **_ends(estimate.replicates[:, column]),
            "count": int(estimate.counted[column]),
        }
        for column, method in enumerate(methods)
    }
    best = _best_baseline(estimate, methods)
    scorers = [column for column, method in enumerate(methods) if method.startswith(SCORER)]
    pairs = [(one, best) for one in scorers if best is not None]
    pairs += [(later, earlier) for later in scorers for earlier in scorers if earlier < later]
    return {
        "methods": shown,
        "best_baseline": None if best is None else methods[best],
        "differences": [_difference(estimate, methods, *pair) for pair in pairs],
    }


def _best_baseline(estimate: Estimate, methods: Sequence[str]) -> int | None:
    everywhere = [
        column
        for column, method in enumerate(methods)
        if not method.startswith(SCORER)
        and method != ORACLE
        and estimate.counted[column] == estimate.counted.max()
        and not np.isnan(estimate.value[column])
    ]
    return max(everywhere, key=lambda column: float(estimate.value[column]), default=None)


def _difference(estimate: Estimate, methods: Sequence[str], one: int, other: int) -> dict[str, Any]:
    return {
        "method": methods[one],
        "to": methods[other],
        "value": number_or_none(estimate.value[one] - estimate.value[other]),
        **_ends(estimate.replicates[:, one] - estimate.replicates[:, other]),
    }


def _ends(replicates: np.ndarray) -> dict[str, float | None]:
    low, high = interval(replicates) or (None, None)
    return {"low": low, "high": high}


def describe_all(by_dataset: Mapping[str, Estimate], methods: Sequence[str], *, of: str = "examples") -> dict[str, Any]:
    """`describe` of each dataset, and of their macro average; `of`: what is counted."""
    return {
        "of": of,
        "datasets": {name: describe(estimate, methods) for name, estimate in by_dataset.items()},
        "macro": describe(macro_average([*by_dataset.values()]), methods) if by_dataset else None,
    }
