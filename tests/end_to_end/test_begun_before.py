"""Runs that older code began and that were killed: the same command finishes them and redoes nothing, or refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from beam_pipelines.program import main

BEGUN = Path(__file__).parents[1] / "fixtures" / "begun"

torch.set_num_threads(1)


def copied(job: str, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a begun run with its inputs, and what the undisturbed run gave."""
    folder = Path(shutil.copytree(BEGUN / job, tmp_path / job))
    return folder, json.loads((folder / "expected.json").read_text())


def state_of(path: Path) -> tuple[bytes, int, int]:
    return path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_score_is_refused_as_its_folder_has_an_older_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, expected = copied("score", tmp_path)
    run, given = folder / "run", ["--input", folder / "rows" / "*.jsonl", "--model", folder / "model"]
    standing = {path: state_of(path) for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in run.glob("part-*.parquet")} == set(expected["standing"])
    assert main(["score", *map(str, given), *expected["flags"], "--output", str(run)]) == 1
    said = capsys.readouterr().err
    assert f"{run}: was started by an earlier version of cappy" in said and "finish it with that version" in said
    assert {path: state_of(path) for path in run.rglob("*") if path.is_file()} == standing


def test_train_goes_on(tmp_path: Path) -> None:
    folder, expected = copied("train", tmp_path)
    run, step = folder / "run", expected["resumed_from"]
    checkpoint = run / "checkpoints" / f"checkpoint-{step}"
    # A loss that no training gives: it reaches metrics.json only from the checkpoint. `whole` knows the file's size.
    state = (checkpoint / "trainer_state.json").read_text()
    loss = next(str(entry["loss"]) for entry in json.loads(state)["log_history"] if "loss" in entry)
    mark = "9." + loss[2:]
    assert state.count(loss) == 1
    (checkpoint / "trainer_state.json").write_text(state.replace(loss, mark))
    given = ["--corpus", folder / "pairs" / "*.parquet", "--model", folder / "init", "--output", run]
    assert main(["train", *map(str, given), *expected["flags"]]) == 0

    metrics, whole = read_json(run / "metrics.json"), expected["metrics"]
    assert metrics["losses"][0]["loss"] == float(mark)
    whole["losses"][0]["loss"] = float(mark)
    # Older code did not follow the best step unless it was asked to: it is the best one after the resumption.
    losses = {entry["step"]: entry["loss"] for entry in whole["evaluations"] if entry["step"] > step}
    assert (metrics["step"], metrics["steps"]) == (min(losses, key=losses.__getitem__), whole["steps"])
    assert metrics["losses"][:step] == whole["losses"][:step]
    assert metrics["evaluations"][:step] == whole["evaluations"][:step]
    for name in ("losses", "evaluations"):
        assert len(metrics[name]) == len(whole[name])
        for ours, theirs in zip(metrics[name], whole[name], strict=True):
            assert {key: ours[key] for key in theirs} == pytest.approx(theirs, rel=1e-3)
    manifest = read_json(run / "manifest.json")
    for name in ("fingerprint", "pairs", "made_of"):
        assert manifest[name] == expected[name]
    assert expected["settled"].items() <= manifest["settled"].items()
    assert sorted(entry["path"] for entry in manifest["files"]) == expected["files"]
    assert read_json(run / "run.json")["facts"] == read_json(BEGUN / "train" / "run" / "run.json")["facts"]
    assert not (run / "checkpoints").exists()
    assert main(["verify", str(run)]) == 0


def test_train_refuses_to_go_on_with_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, expected = copied("train", tmp_path)
    given = ["--corpus", folder / "pairs" / "*.parquet", "--model", folder / "init", "--output", folder / "run"]
    assert main(["train", *map(str, given), *expected["flags"], "--batches", "grouped"]) == 1
    assert "settings.batches" in capsys.readouterr().err
    assert main(["train", *map(str, given), *expected["flags"], "--loss", "mse+listwise"]) == 2
    assert "it needs --batches grouped" in capsys.readouterr().err


def test_a_finished_train_run_is_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, expected = copied("train", tmp_path)
    given = ["--corpus", folder / "pairs" / "*.parquet", "--model", folder / "init", "--output", folder / "run"]
    command = ["train", *map(str, given), *expected["flags"]]
    assert main(command) == 0
    path = folder / "run" / "manifest.json"
    manifest = read_json(path)
    for name in ("pairs_seen", "epochs"):
        del manifest["metrics"][name]
    for name in ("spread", "accuracy", "random_accuracy", "groups"):
        del manifest["metrics"]["evaluation"][name]
    path.write_text(json.dumps(manifest))
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("5 steps, weights of step 4; on 8 held-out pairs loss ")
