"""The folder of a finished training run: its report, card and manifest, and the logs of an experiment tracker."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from cappy_model.score.scorer import Scorer
from tests.cappy_model.models import save_tiny_scorer
from tests.cappy_model.train.corpora import write_corpus
from tests.conftest import cappy, manifest_of

LICENSE = "---\nlicense: mit\n---\n"
TENSORBOARD = find_spec("tensorboard") is not None


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_corpus(folder / "pairs", 60)
    (save_tiny_scorer(folder / "init") / "README.md").write_text(LICENSE)
    flags = ["--corpus", folder / "pairs" / "*.parquet", "--model", folder / "init", "--output", folder / "out"]
    flags += ["--device", "cpu", "--max-length", 60, "--eval-fraction", 0.3, "--max-steps", 2, "--evaluate-every", 1]
    assert cappy("train", *flags, "--report-to", "tensorboard" if TENSORBOARD else "none") == 0
    return folder / "out"


def test_the_report_is_drawn_and_can_be_drawn_again(output: Path) -> None:
    page = (output / "report.html").read_bytes()
    assert b"Accuracy of choosing" in page
    (output / "report.html").unlink()
    assert cappy("report", output) == 0
    assert (output / "report.html").read_bytes() == page
    assert cappy("verify", output) == 0


def test_the_manifest_has_what_the_page_shows(output: Path) -> None:
    manifest = manifest_of(output)
    metrics, curves = manifest["metrics"], manifest["curves"]
    assert metrics["pairs_seen"] > 0 and metrics["epochs"] > 0
    assert [entry["step"] for entry in curves["evaluations"]] == [1, 2]
    kept = next(entry for entry in curves["evaluations"] if entry["step"] == metrics["step"])
    assert metrics["evaluation"] == {name: value for name, value in kept.items() if name != "step"}


def test_the_card_has_the_license_of_the_base_model(output: Path) -> None:
    assert ModelCard.load(output / "README.md").data.license == "mit"


def test_a_manifest_of_an_earlier_version_is_named(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = {name: value for name, value in manifest_of(output).items() if name != "curves"}
    (tmp_path / "manifest.json").write_text(json.dumps(earlier))
    assert cappy("report", tmp_path) == 1
    assert "the manifest lacks 'curves': it is damaged, or another version of cappy wrote it" in capsys.readouterr().err


def test_the_extra_for_training_has_tensorboard() -> None:
    setup = (Path(__file__).resolve().parents[4] / "setup.py").read_text()
    train = next(line for line in setup.splitlines() if line.startswith("TRAIN = "))
    assert '"tensorboard>=' in train


@pytest.mark.skipif(not TENSORBOARD, reason="tensorboard is not installed; the extra `train` has it")
def test_event_files_hold_the_losses(output: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (output / "checkpoints").rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events.parent)).Reload()
    assert [event.step for event in log.Scalars("eval/loss")] == [1, 2]
    assert all(event.value > 0 for event in log.Scalars("train/loss"))


def test_a_classifier_of_three_logits_wants_a_new_head(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_scorer(tmp_path / "nli", num_labels=3)
    flags = ["--corpus", output.parent / "pairs" / "*.parquet", "--model", model, "--output", tmp_path / "out"]
    flags += ["--device", "cpu", "--max-length", 60, "--eval-fraction", 0, "--max-steps", 1]
    assert cappy("train", *flags) == 1
    assert "has a head of 3 logits; a scorer has one. Give --new-head" in capsys.readouterr().err
    assert cappy("train", *flags, "--new-head") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "LABEL_0"}
    assert Scorer.from_pretrained(str(tmp_path / "out"), device="cpu").score(["What is it?"], ["the fox"]).shape == (1,)
