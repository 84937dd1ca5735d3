"""report.html of train: complete, safe, and with the right numbers, even if there is little to show."""

from collections.abc import Callable
from typing import Any

import pytest

from beam_pipelines.jobs.train.page import page
from beam_pipelines.report.frame import draw
from cappy_model.train.training import Trained
from tests.beam_pipelines.jobs.train.invented import manifest_of, trained
from tests.beam_pipelines.report.pages import Checker, check_page, read

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; </details></svg>"


def text_of(manifest: dict[str, Any]) -> str:
    return read(draw(page(manifest), manifest)).text


def listwise() -> dict[str, Any]:
    manifest = manifest_of()
    manifest["settled"]["loss"] = "mse+listwise"
    return manifest


@pytest.mark.parametrize(
    "manifest",
    [
        manifest_of,
        lambda: manifest_of(trained(1, every=1)),
        lambda: manifest_of(trained(40, evaluates=False)),
        lambda: manifest_of(Trained(0, 0, 0, 0.0, [], [])),
        lambda: manifest_of(trained(4_000, every=4)),
        listwise,
    ],
)
def test_page_is_whole_and_needs_nothing_from_outside(manifest: Callable[[], dict[str, Any]]) -> None:
    check_page(manifest)


def test_numbers_are_there() -> None:
    text = text_of(manifest_of())
    assert "The best-scored response is right for 82.3% of 300 evaluation instructions" in text
    assert "The weights are those of step 120, which has the lowest evaluation loss." in text
    assert "A random choice would be right for 50.0%." in text
    assert "pairs seen 3,840 2.56 epochs of 1,500" in text and "evaluation loss 0.1432 mean label: 0.2496" in text
    assert "2,000 1,500 400 20 30 50 ✓" in text and "10 held-out instructions in the corpus" in text
    assert "cos_e 100 400 500" in text and "evaluation loss at step 12: 0.2485" in text
    assert "Warnings" not in text


def test_warnings_are_there() -> None:
    text = text_of(manifest_of(trained(loss=0.2501, accuracy=0.51)))
    assert "There are 2 warnings, below." in text
    assert "The scores predict the labels no better than the mean label does: their loss is 0.2501" in text


def test_accuracy_that_is_not_defined() -> None:
    log = trained()
    for entry in log.evaluations:
        for name in ("accuracy", "random_accuracy", "groups"):
            del entry[name]
    text = text_of(manifest_of(log))
    assert "Evaluation loss 0.1432, where the mean label's is 0.2496" in text
    assert "Accuracy of choosing" not in text and "accuracy – share of" in text


def test_a_listwise_loss_has_its_own_plot() -> None:
    text = text_of(listwise())
    assert "Training loss (mse+listwise) Mean over the pairs of the steps." in text
    assert "Mean squared error Of scores and labels, on the pairs kept for evaluation." in text


def test_hostile_names_stay_text() -> None:
    manifest = manifest_of(made_of={"training": {HOSTILE: {HOSTILE: 1}}, "evaluation": {}})
    checker: Checker = read(draw(page(manifest), manifest))
    assert not checker.tags & {"script", "img"} and "alert(1)" in checker.text
