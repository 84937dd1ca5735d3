"""Rows under way: how much of its unfinished units this process has done, for the progress of the run.

A worker that is a thread of the launcher's process registers it here; the progress of other workers shows by their
files.
"""

import threading
from functools import partial

from cappy_model.work import ProgressCallback

_LOCK = threading.Lock()
_DONE: dict[tuple[str, str], float] = {}
"""Output folder and name of a unit -> its rows that are done."""


def begin_unit(output: str, name: str, rows: int) -> ProgressCallback:
    """Register a unit of `rows` rows by the name of its file without the ending; return its progress callback."""
    with _LOCK:
        _DONE[output, name] = 0.0
    return partial(_advance, (output, name), rows)


def _advance(unit: tuple[str, str], rows: int, done: float, of: float) -> None:
    with _LOCK:
        if unit in _DONE:
            _DONE[unit] = rows * min(1.0, done / of) if of else 0.0


def end_unit(output: str, name: str) -> None:
    """Forget a unit whose file has been written."""
    with _LOCK:
        _DONE.pop((output, name), None)


def rows_under_way(output: str) -> dict[str, float]:
    """Return the rows that are done of each unfinished unit below an output folder, by name."""
    with _LOCK:
        return {name: done for (folder, name), done in _DONE.items() if folder == output}


def forget_units(output: str) -> None:
    """Forget the units below an output folder, as of a run that has failed."""
    with _LOCK:
        for unit in [unit for unit in _DONE if unit[0] == output]:
            del _DONE[unit]
