"""Summaries of an evaluation: means by dataset, their macro average, intervals, and differences of methods.

The key of a method tells its kind: `scorer:NAME` chooses or orders by a column of scores; `oracle` is an upper bound;
any other method is a baseline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cappy_model.metrics.measures import OVER_ALL, Measure
from cappy_model.metrics.ranking import (
    REPLICATES,
    RankedRows,
    bootstrap_means,
    interval,
    number_or_none,
    resamples,
)

SCORER = "scorer:"
ORACLE, RANDOM, MAJORITY = "oracle", "random", "majority"
FIRST = "first:"
SELF_SCORES = {"self-score:sum": "log_likelihood_sum", "self-score:mean": "log_likelihood_mean"}
"""Methods that rank by the language model's own likelihood, each with its column."""


class Estimate(NamedTuple):
    """The values of k methods in one dataset, or on average over several.

    `value` float64[k], NaN if undefined; `replicates` float64[REPLICATES, k], bootstrap replicates paired across the
    methods; `counted` int64[k], the number of examples, or candidates.
    """

    value: np.ndarray
    replicates: np.ndarray
    counted: np.ndarray


def estimate_means(values: np.ndarray, members: np.ndarray, seed: int) -> Estimate:
    """Return the mean of each column of `values` float[n, k] without NaN; `members` int64[n]: see `bootstrap_means`."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0).sum(axis=0)
    value = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return Estimate(value, bootstrap_means(values, members, seed), count)


def estimate_orders(scores: np.ndarray, label: np.ndarray, members: np.ndarray, seed: int) -> dict[str, Estimate]:
    """Return each measure of `OVER_ALL` that the labels allow, over all rows.

    Args:
      scores: float[n, k], NaN for a row without a score. The estimates have k + 1 columns: the last is a random order.
      label: float[n].
      members: int64[n], from 0 on without a gap: rows of one member are resampled together.
      seed: seed of the resamples.
    """
    measures = {name: each for name, each in OVER_ALL.items() if not each.binary or np.isin(label, (0, 1)).all()}
    scored = [~np.isnan(column) for column in scores.T]
    ranked = [
        (RankedRows.of(column[rows], label[rows]), members[rows]) for column, rows in zip(scores.T, scored, strict=True)
    ]
    count = int(members.max()) + 1
    plain = _orders(ranked, np.ones((1, count)), measures)
    resampled = {name: measure for name, measure in measures.items() if measure.interval}
    drawn = [_orders(ranked, weights, resampled) for weights in resamples(count, seed, rows=len(label))]
    counts = np.array([*(int(rows.sum()) for rows in scored), len(label)])
    no_interval = np.full((REPLICATES, len(counts)), np.nan)
    return {
        name: Estimate(
            plain[name][0],
            np.concatenate([part[name] for part in drawn]) if measure.interval else no_interval,
            counts,
        )
        for name, measure in measures.items()
    }


def _orders(
    ranked: Sequence[tuple[RankedRows, np.ndarray]], weights: np.ndarray, measures: Mapping[str, Measure]
) -> dict[str, np.ndarray]:
    """Return each measure as float64[b, k + 1]; member j counts `weights[:, j]` times, float[b, m].

    `ranked` are the rows of each method with the member of each row.
    """
    undefined = np.full(len(weights), np.nan)
    values = {}
    for name, measure in measures.items():
        assert measure.over_all is not None
        columns = [
            measure.over_all(rows, weights[:, members]) if len(members) else undefined for rows, members in ranked
        ]
        values[name] = np.stack([*columns, np.full(len(weights), measure.random)], axis=1)
    return values


def macro_average(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean over datasets; NaN for a method that a dataset lacks."""
    return Estimate(
        np.mean([each.value for each in estimates], axis=0),
        np.mean([each.replicates for each in estimates], axis=0),
        np.sum([each.counted for each in estimates], axis=0),
    )


def describe(estimate: Estimate, methods: Sequence[str]) -> dict[str, Any]:
    """Return an estimate for JSON: `methods` with intervals, the best baseline, and each scorer's difference from it.

    Only methods with a value for every example can be the best baseline. Differences are of paired replicates.
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
    """Describe each dataset and their macro average; `of` names the unit of the counts."""
    return {
        "of": of,
        "datasets": {name: describe(estimate, methods) for name, estimate in by_dataset.items()},
        "macro": describe(macro_average([*by_dataset.values()]), methods) if by_dataset else None,
    }
