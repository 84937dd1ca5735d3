"""The folder of a training run's checkpoints: which of them are whole. Without torch."""

import json
import shutil
from pathlib import Path

WHOLE = "whole"
"""The file that a checkpoint gets when all of it is written: the sizes of the others."""


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
