"""Commands of map jobs that are killed at random moments, and what each kill costs.

Run as a script, it starts one command after another, each in a fork of itself. What takes seconds to import is then
imported once, and a kill costs tenths of a second.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 120.0
_STARTING, _BETWEEN = 1.0, 0.15
_EARLY = 0.2
_UNIT_SECONDS = 0.15  # at least, so that no machine is through before the last kill


class File(NamedTuple):
    """A file as it is on disk; a second writing would alter it."""

    inode: int
    changed: int


class Kill(NamedTuple):
    """A launch that was killed: units whose files were there before and after it, and those that it had begun."""

    before: set[str]
    begun: list[str]
    after: set[str]

    @property
    def lost(self) -> int:
        """The number of units that were begun in vain."""
        return len(set(self.begun) - self.after)


class Launcher:
    """Starts `cappy` commands in forks of a process that has imported `modules`; logs the units that each begins."""

    def __init__(self, log: Path, *modules: str) -> None:
        command = [sys.executable, "-m", __name__, str(log), *modules]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._log = log

    def __enter__(self) -> "Launcher":
        assert self._read() == 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def start(self, words: Sequence[object]) -> int:
        """Start a command; return the id of its process."""
        assert self._process.stdin is not None
        self._log.write_text("")
        self._process.stdin.write(json.dumps([*map(str, words)]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """Wait for the end of the command; return its exit status, negative for a signal."""
        return self._read()

    def begun(self) -> list[str]:
        """Return the names of the units that the last command has begun."""
        return self._log.read_text().split()


def files_in(folder: Path) -> dict[str, File]:
    """Return the finished units of a run by their names, which are without `part-` and the ending."""
    found = {path: path.stat() for path in folder.glob("part-*.parquet")}
    return {path.stem.removeprefix("part-"): File(s.st_ino, s.st_mtime_ns) for path, s in found.items()}


def kill_again_and_again(
    launcher: Launcher, words: Sequence[object], folder: Path, *, kills: int, seed: int
) -> list[Kill]:
    """Launch a command and kill it at a random moment, in its start, within a unit or between two, `kills` times.

    `folder` is that of the job's data files. Fails if a file that was there is written again, or if the run ends.
    """
    rng, found = random.Random(seed), list[Kill]()
    for _ in range(kills):
        before = files_in(folder)
        process = launcher.start(words)
        if rng.random() < _EARLY:
            time.sleep(rng.uniform(0, _STARTING))
        else:
            _wait_for_files(folder, len(before) + rng.randint(1, 3))
            time.sleep(rng.uniform(0, _BETWEEN))
        os.kill(process, signal.SIGKILL)
        assert launcher.wait() == -signal.SIGKILL
        after = files_in(folder)
        assert {name: after[name] for name in before} == before
        found.append(Kill(set(before), launcher.begun(), set(after)))
    return found


def check_what_kills_cost(killed: Sequence[Kill], *, at_a_time: int = 2) -> None:
    """Check that no launch began a unit that was there, and that each lost at most those that it computed."""
    for kill in killed:
        assert not set(kill.begun) & kill.before and len(set(kill.begun)) == len(kill.begun)
        assert kill.after - kill.before <= set(kill.begun)
        assert kill.lost <= at_a_time
    assert any(kill.lost for kill in killed)


def _wait_for_files(folder: Path, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(files_in(folder)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _log_units(path: Path) -> None:
    """Have the names of units written to a file as they are begun, and make them last a while."""
    from beam_pipelines.models.inference import UnitHandler

    run, log = UnitHandler.run_inference, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def logged(self: Any, batch: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        os.write(log, "".join(f"{unit.name}\n" for unit in batch).encode())
        time.sleep(_UNIT_SECONDS)
        return run(self, batch, *arguments, **options)

    UnitHandler.run_inference = logged


def _serve(log: Path, modules: Sequence[str]) -> None:
    """Run each command of stdin, a list in JSON a line, in a fork; print its process id, then its exit status."""
    from importlib import import_module

    from beam_pipelines.program import main

    for module in modules:
        import_module(module)
    _log_units(log)
    print(0, flush=True)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            sys.exit(main(json.loads(line)))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
