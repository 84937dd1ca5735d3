"""The folder of a training run's checkpoints: which of them are whole, and what was reached. Without torch."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

WHOLE = "whole"
"""The file that a checkpoint gets when all of it is written: the sizes of the others."""

_STATE = "trainer_state.json"  # as transformers' Trainer writes it


class State(NamedTuple):
    """Where training stood at a checkpoint: its step, the best evaluated one where that is kept, whether training came
    to its end there (at its last step or by its patience), and what was logged (see `Trained`)."""

    step: int
    best_step: int | None
    stopped: bool
    losses: list[dict[str, float]]
    evaluations: list[dict[str, float]]


def read_state(checkpoint: Path) -> State:
    """The state of a whole checkpoint."""
    found = json.loads((checkpoint / _STATE).read_text())
    stopped = bool(found["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])
    losses, evaluations = [], []
    for entry in found["log_history"]:
        if "loss" in entry:
            losses.append({name: entry[name] for name in ("step", "loss", "grad_norm", "learning_rate")})
        elif "eval_loss" in entry:
            values = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            evaluations.append({"step": entry["step"], **values})
    return State(found["global_step"], found["best_global_step"], stopped, losses, evaluations)


def mark_whole(checkpoint: Path) -> None:
    """Writes the file `WHOLE` into a checkpoint that has all its other files."""
    (checkpoint / WHOLE).write_text(_sizes(checkpoint))


def last_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint of the latest step in a folder, if any."""
    return max(filter(_is_whole, _checkpoints(folder)), key=_step_of, default=None)


def delete_broken(folder: Path) -> None:
    """Deletes the checkpoint that an interrupted run was writing, and any that has lost a part since."""
    for checkpoint in _checkpoints(folder):
        if not _is_whole(checkpoint):
            shutil.rmtree(checkpoint)


def delete_checkpoints(folder: Path) -> None:
    """Deletes all checkpoints in a folder."""
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
    """What stands in `WHOLE`, as JSON."""
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.name != WHOLE}
    return json.dumps(sizes, sort_keys=True)
