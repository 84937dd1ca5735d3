"""`cappy train --report-to tensorboard`, with the packages that the extra `train` installs."""

from pathlib import Path

import pytest

from tests.cappy_model.models import save_tiny_scorer
from tests.cappy_model.train.corpora import write_corpus
from tests.conftest import cappy


def test_the_extra_for_training_has_tensorboard() -> None:
    setup = (Path(__file__).resolve().parents[4] / "setup.py").read_text()
    train = next(line for line in setup.splitlines() if line.startswith("TRAIN = "))
    assert '"tensorboard>=' in train


def test_event_files_hold_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed; the extra `train` has it")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_corpus(tmp_path / "pairs", 60)
    save_tiny_scorer(tmp_path / "init")
    flags = ["--corpus", tmp_path / "pairs" / "*.parquet", "--model", tmp_path / "init", "--output", tmp_path / "out"]
    flags += ["--device", "cpu", "--max-length", 60, "--eval-fraction", 0.3, "--max-steps", 2, "--evaluate-every", 1]
    assert cappy("train", *map(str, flags), "--report-to", "tensorboard") == 0
    (events,) = (tmp_path / "out" / "checkpoints").rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events.parent)).Reload()
    assert [event.step for event in log.Scalars("eval/loss")] == [1, 2]
    assert all(event.value > 0 for event in log.Scalars("train/loss"))
