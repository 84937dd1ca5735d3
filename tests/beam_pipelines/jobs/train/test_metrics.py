"""The numbers of a training run in its manifest."""

import json

from beam_pipelines.jobs.train.metrics import METRICS_OF, MOST_POINTS, curves, final_metrics
from cappy_model.train.training import Trained
from tests.beam_pipelines.jobs.train.invented import LEARNED, trained


def test_the_metrics_are_those_of_the_kept_step() -> None:
    log = trained(120, every=12)
    found = final_metrics(log)
    assert {name: found[name] for name in ("step", "steps", "pairs_seen", "epochs")} == {
        "step": 120,
        "steps": 120,
        "pairs_seen": 3_840,
        "epochs": 2.5601,
    }
    assert found["evaluation"] == LEARNED and list(found["evaluation"]) == list(METRICS_OF)
    earlier = final_metrics(Trained(60, 120, 3_840, 2.56, log.losses, log.evaluations))
    assert earlier["step"] == 60 and 0.5 < earlier["evaluation"]["accuracy"] < 0.6
    assert final_metrics(trained(evaluates=False))["evaluation"] is None


def test_metrics_that_were_not_computed_are_null() -> None:
    entry = {"step": 3, "loss": 0.2, "constant_loss": 0.25, "pearson": float("nan")}
    found = final_metrics(Trained(3, 3, 96, 1.0, [], [entry]))["evaluation"]
    assert found == {**dict.fromkeys(METRICS_OF), "loss": 0.2, "constant_loss": 0.25}
    json.dumps(found, allow_nan=False)


def test_curves_stay_short() -> None:
    losses = [{"step": step, "loss": float(step)} for step in range(1, 1_001)] + [{"step": 1_000, "runtime": 1.0}]
    evaluations = [{"step": step, **LEARNED} for step in range(1, 1_001)]
    found = curves(Trained(777, 1_000, 1, 1.0, losses, evaluations))
    assert len(found["losses"]) == MOST_POINTS and found["losses"][:2] == [
        {"step": 5, "loss": 3.0},
        {"step": 10, "loss": 8.0},
    ]
    steps = [entry["step"] for entry in found["evaluations"]]
    assert len(steps) == MOST_POINTS + 2 and steps[-1] == 1_000 and 777 in steps


def test_short_curves_have_all_points() -> None:
    log = trained(40, every=4)
    found = curves(log)
    assert [entry["loss"] for entry in found["losses"]] == [entry["loss"] for entry in log.losses]
    assert [entry["step"] for entry in found["evaluations"]] == list(range(4, 41, 4))
    assert curves(Trained(0, 0, 0, 0.0, [], [])) == {"losses": [], "evaluations": []}
