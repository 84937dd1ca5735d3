"""The numbers that describe a training run: those of the kept weights, and curves short enough for a manifest."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cappy_model.train.training import Trained

METRICS_OF = {
    "loss": "mean squared error of the scores; lower is better",
    "constant_loss": "mean squared error of the mean label as the score of every pair; learning goes below it",
    "pearson": "linear correlation of scores and labels, from −1 to 1",
    "accuracy": "share of instructions for which the response with the highest score has the highest label",
    "random_accuracy": "the same share for a random choice",
    "groups": "instructions with responses of different labels; the accuracy is of these",
    "spread": "standard deviation of the scores; near 0 they are all alike",
}
"""The metrics of an evaluation (`Assessment.metrics`) and their meanings."""

MOST_POINTS = 200
"""The most points of a curve; consecutive losses are averaged, and evaluations left out."""


def final_metrics(trained: "Trained") -> dict[str, Any]:
    """Return the step that was kept, the steps done, pairs seen and epochs, and the evaluation at the kept step.

    The evaluation has every metric, None for those that are not defined; it is None if there was none.
    """
    at_step = [entry for entry in trained.evaluations if entry["step"] == trained.step]
    return {
        "step": trained.step,
        "steps": trained.steps_done,
        "pairs_seen": trained.pairs_seen,
        "epochs": round(trained.epochs, 4),
        "evaluation": _evaluation(at_step[-1]) if at_step else None,
    }


def curves(trained: "Trained") -> dict[str, list[dict[str, Any]]]:
    """Return the training losses and the evaluations over the steps, at most `MOST_POINTS` of each.

    A loss is the mean over the log entries up to its step. The last evaluation and that of the kept step stay.
    """
    losses = [entry for entry in trained.losses if "loss" in entry]
    size = -(-len(losses) // MOST_POINTS) or 1
    parts = [losses[start : start + size] for start in range(0, len(losses), size)]
    every = -(-len(trained.evaluations) // MOST_POINTS) or 1
    last = len(trained.evaluations) - 1
    return {
        "losses": [
            {"step": part[-1]["step"], "loss": sum(entry["loss"] for entry in part) / len(part)} for part in parts
        ],
        "evaluations": [
            {"step": entry["step"], **_evaluation(entry)}
            for number, entry in enumerate(trained.evaluations)
            if number % every == 0 or number == last or entry["step"] == trained.step
        ],
    }


def _evaluation(entry: Mapping[str, float]) -> dict[str, float | None]:
    """Return all metrics of an evaluation; None for one that was not computed."""
    return {name: _defined(entry.get(name)) for name in METRICS_OF}


def _defined(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def metric_rows(evaluation: Mapping[str, float | None]) -> Sequence[tuple[str, str, str]]:
    """Return the name, the value as text, and the meaning of each metric; a dash for one that is not defined."""
    return [(name, _text(name, evaluation[name]), meaning) for name, meaning in METRICS_OF.items()]


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{int(value):,}" if name == "groups" else f"{value:.4f}".replace("-", "−")
