"""Checkpoints of a training run: mark and find the complete ones, and read their state. Without torch."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

WHOLE = "whole"
"""The file that marks a complete checkpoint: the sizes of its other files."""

_STATE = "trainer_state.json"  # as transformers' Trainer writes it


class State(NamedTuple):
    """The state of training at a checkpoint.

    `step`; `best_step`: the step with the best evaluation, if that is tracked; `stopped`: whether training ended here,
    at its last step or by early stopping; `losses` and `evaluations`: see `Trained`.
    """

    step: int
    best_step: int | None
    stopped: bool
    losses: list[dict[str, float]]
    evaluations: list[dict[str, float]]


def read_state(checkpoint: Path) -> State:
    """Read the state of a complete checkpoint."""
    state = json.loads((checkpoint / _STATE).read_text())
    stopped = bool(state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])
    losses, evaluations = [], []
    for entry in state["log_history"]:
        if "loss" in entry:
            losses.append({name: entry[name] for name in ("step", "loss", "grad_norm", "learning_rate")})
        elif "eval_loss" in entry:
            values = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            evaluations.append({"step": entry["step"], **values})
    return State(state["global_step"], state["best_global_step"], stopped, losses, evaluations)


def mark_whole(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, after all of its other files are written."""
    (checkpoint / WHOLE).write_text(_sizes(checkpoint))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the complete checkpoint with the latest step in a folder, if any."""
    return max(filter(_is_whole, _checkpoints(folder)), key=_step_of, default=None)


def delete_broken(folder: Path) -> None:
    """Delete incomplete checkpoints: interrupted writes, and those that have lost a file."""
    for checkpoint in _checkpoints(folder):
        if not _is_whole(checkpoint):
            shutil.rmtree(checkpoint)


def delete_checkpoints(folder: Path) -> None:
    """Delete all checkpoints in a folder."""
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("checkpoint-*"))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    mark = checkpoint / WHOLE
    return mark.is_file() and mark.read_text() == _sizes(checkpoint)


def _sizes(checkpoint: Path) -> str:
    """Return the content of the file `WHOLE`, as JSON."""
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.name != WHOLE}
    return json.dumps(sizes, sort_keys=True)
