"""What a training run warns of: scores that are all alike, that follow no labels, and that choose by chance."""

import pytest

from beam_pipelines.jobs.train.warnings import warnings_of
from tests.beam_pipelines.jobs.train.invented import LEARNED


def test_a_scorer_that_has_learned_gives_none() -> None:
    assert warnings_of(LEARNED) == []
    assert warnings_of(None) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spread": 0.0241}, "the scores are nearly equal, with a standard deviation of 0.024 beside 0.500 of the"),
        (
            {"loss": 0.25},
            "their loss is 0.2500, that of the mean label 0.2496, and the correlation with the labels",
        ),
        ({"pearson": -0.04}, "the correlation with the labels −0.040: train for more steps (--epochs, --max-steps)"),
        (
            {"accuracy": 0.528},
            "right for 0.528 of 300 instructions, where a random choice is for 0.500 with a",
        ),
    ],
)
def test_each_sign_has_its_numbers(changes: dict[str, float], said: str) -> None:
    (warning,) = warnings_of({**LEARNED, **changes})
    assert said in warning and "--learning-rate" in warning and not warning.endswith(".")


@pytest.mark.parametrize("changes", [{"spread": 0.026}, {"loss": 0.2495}, {"pearson": -0.06}, {"accuracy": 0.53}])
def test_just_beyond_the_bounds_there_is_none(changes: dict[str, float]) -> None:
    assert warnings_of({**LEARNED, **changes}) == []


def test_metrics_that_are_not_defined() -> None:
    unknown = dict.fromkeys(("accuracy", "random_accuracy", "groups", "spread"))
    assert warnings_of({**LEARNED, **unknown}) == []


def test_equal_labels_of_the_evaluation() -> None:
    (evaluation,) = warnings_of({**LEARNED, "constant_loss": 0.0, "pearson": 0.0})
    assert evaluation.startswith("all labels of the evaluation pairs are equal") and "--eval-fraction" in evaluation
