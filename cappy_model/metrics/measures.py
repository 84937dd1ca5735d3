"""The measures of an evaluation in one table: how each is computed, and what reports call it.

A new measure of a ranking is an entry of `MEASURES`, and its function in `ranking`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cappy_model.metrics.ranking import RankedGroups, RankedRows, auc, kendall, spearman, spearman_rows


@dataclass(frozen=True)
class Measure:
    """One measure. Without a function it is the mean over examples of the value of the chosen candidate.

    Args:
      label: name in reports, in the middle of a sentence.
      random: the value of a random order, and of an order by equal scores.
      within: computes the measure within each of g groups, as float64[g]; NaN where all labels of a group are equal.
      over_all: computes the measure over all rows of a dataset, as float64[b], for weights float64[b, n]: row i counts
        `weights[:, i]` times.
      binary: only for labels that are all 0 or 1.
      interval: whether `over_all` takes weights other than 1, as bootstrap intervals require.
    """

    label: str
    random: float = 0.0
    within: Callable[[RankedGroups], np.ndarray] | None = None
    over_all: Callable[[RankedRows, np.ndarray], np.ndarray] | None = None
    binary: bool = False
    interval: bool = True


MEASURES = {
    "rouge_l": Measure("Rouge-L of the chosen response"),
    "accuracy": Measure("accuracy of the chosen answer"),
    "spearman": Measure(
        "Spearman's rank correlation within groups",
        within=lambda groups: spearman_rows(groups.score, groups.label),
    ),
    "kendall": Measure("Kendall's tau-b within groups", within=lambda groups: groups.pairs.kendall),
    "pairwise_accuracy": Measure(
        "pairwise accuracy within groups", random=0.5, within=lambda groups: groups.pairs.accuracy
    ),
    "spearman_over_all": Measure(
        "Spearman's rank correlation over all candidates",
        over_all=lambda rows, weights: spearman(rows.by_score, rows.by_label, weights),
    ),
    "auc_over_all": Measure(
        "AUC over all candidates",
        random=0.5,
        over_all=lambda rows, weights: auc(rows.by_score, rows.label == 1, weights),
        binary=True,
    ),
    # No interval: the sorted order that makes Kendall's tau fast cannot be resampled.
    "kendall_over_all": Measure(
        "Kendall's tau-b over all candidates",
        over_all=lambda rows, _: np.array([kendall(rows.score, rows.label)]),
        interval=False,
    ),
}
"""All measures by their keys in metrics.json, in the order in which they are written."""

WITHIN = {name: measure for name, measure in MEASURES.items() if measure.within is not None}
"""Measures of an order within a group."""
OVER_ALL = {name: measure for name, measure in MEASURES.items() if measure.over_all is not None}
"""Measures of an order of all candidates of a dataset."""


def measure_groups(groups: RankedGroups) -> dict[str, np.ndarray]:
    """Return each measure of `WITHIN` for g groups, float64[g].

    A measure is NaN where the labels of a group are all equal. Equal scores give the value of a random order.
    """
    tied = (groups.pairs.label > 0) & (groups.pairs.score == 0)
    return {
        name: np.where(tied, measure.random, measure.within(groups))
        for name, measure in WITHIN.items()
        if measure.within is not None
    }
