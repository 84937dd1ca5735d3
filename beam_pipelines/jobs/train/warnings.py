"""Signs that a scorer has learned nothing, each with its numbers and a remedy."""

from collections.abc import Mapping
from math import sqrt

from beam_pipelines.report.text import decimal, plural

LEAST_SPREAD = 0.05
"""Scores that spread less than this share of the labels' standard deviation are called equal."""
LEAST_CORRELATION = 0.05

_LONGER = "train for more steps (--epochs, --max-steps), or at another --learning-rate"

Evaluation = Mapping[str, float | None]
"""The metrics of an evaluation (see `metrics.METRICS`); None where a metric is not defined or was not computed."""


def warnings_of(evaluation: Evaluation | None) -> list[str]:
    """Return a sentence, without its full stop, for each sign that the scores are worth little.

    `evaluation`: the metrics of the weights that are kept; None without an evaluation, which gives no sign.
    """
    if evaluation is None:
        return []
    if evaluation["constant_loss"] == 0:
        return [
            "all labels of the evaluation pairs are equal, so nothing shows whether the scores follow labels: evaluate "
            "on more pairs (--eval-fraction, --max-eval-pairs)"
        ]
    return [*_flat(evaluation), *_unrelated(evaluation), *_by_chance(evaluation)]


def _flat(evaluation: Evaluation) -> list[str]:
    spread, variance = evaluation["spread"], evaluation["constant_loss"]
    if spread is None or variance is None or spread >= LEAST_SPREAD * sqrt(variance):
        return []
    return [
        f"the scores are nearly equal, with a standard deviation of {spread:.2g} beside {decimal(sqrt(variance))} of "
        f"the labels: {_LONGER}"
    ]


def _unrelated(evaluation: Evaluation) -> list[str]:
    loss, constant, pearson = (evaluation[name] for name in ("loss", "constant_loss", "pearson"))
    if loss is None or constant is None or pearson is None:
        return []
    if loss < constant and abs(pearson) >= LEAST_CORRELATION:
        return []
    return [
        f"the scores predict the labels no better than the mean label does: their loss is {decimal(loss, '.4f')}, that "
        f"of the mean label {decimal(constant, '.4f')}, and the correlation with the labels {decimal(pearson)}: "
        f"{_LONGER}"
    ]


def _by_chance(evaluation: Evaluation) -> list[str]:
    accuracy, chance, groups = (evaluation[name] for name in ("accuracy", "random_accuracy", "groups"))
    if accuracy is None or chance is None or not groups:
        return []
    error = sqrt(chance * (1 - chance) / groups)
    if accuracy > chance + error:
        return []
    return [
        f"choosing by score is right for {decimal(accuracy)} of {plural(int(groups), 'instruction')}, where a random "
        f"choice is for {decimal(chance)} with a standard error of {decimal(error)}: {_LONGER}; or evaluate on more "
        "pairs (--eval-fraction, --max-eval-pairs)"
    ]
