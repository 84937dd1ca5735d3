"""A cluster that `make flink-up` has started, pools of other workers, and what is asked of jobs on it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import cappy, data_bytes, sentence
from tests.end_to_end.inputs import ONE_PROCESS, PLAIN, json_lines, mixture_of, parquet
from tests.end_to_end.test_generate import some_rows, table
from tools import flink

SECONDS = 900
CPU = ("--device=cpu", "--dtype=float32", "--tokens-per-batch=1024")
UNITS, UNIT_PROMPTS = 32, 3


@dataclass(frozen=True)
class Work:
    """A job of some seconds: its arguments but for output and runner, and the files of an undisturbed run."""

    arguments: Sequence[object]
    expected: Mapping[str, bytes]

    def command(self, output: Path, flags: Sequence[str]) -> list[str]:
        """Return the command that runs the job as a process."""
        arguments = [*self.arguments, "--output", output, *flags]
        return [sys.executable, "-m", "beam_pipelines.program", *map(str, arguments)]


@pytest.fixture(scope="session")
def cluster() -> dict[str, Any]:
    """Return the state of the running cluster."""
    if not flink.processes(flink.HOME):
        pytest.skip("no Flink cluster is running; `make flink-up` starts one")
    return flink.running(flink.HOME)


@pytest.fixture(scope="session")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """Return a job that shuffles and two that map, of many units each."""
    root = tmp_path_factory.mktemp("works")
    rows = [{"text": f"question {i} {'and so on ' * 20}", "answer": f"answer {i} {i * i}"} for i in range(12_000)]
    files = {f"{i}.jsonl": json_lines(*rows[i * 1_500 : (i + 1) * 1_500]) for i in range(8)}
    arguments: dict[str, Sequence[object]] = {
        "build-corpus": ["--mixture", mixture_of(root, {"d": (files, PLAIN)})],
        "score": ["--input", _pairs(root / "pairs"), "--model", _deep_scorer(root / "scorer"), *CPU],
        "generate": ["--input", _instructions(root / "rows.parquet"), "--model", save_tiny_generator(root / "lm")],
    }
    arguments["generate"] = [*arguments["generate"], *CPU, "--max-new-tokens=12", f"--unit-rows={UNIT_PROMPTS}"]
    found = {}
    for job, given in arguments.items():
        assert cappy(job, *given, "--output", root / job, *ONE_PROCESS) == 0
        found[job] = Work([job, *given], data_bytes(root / job))
    assert all(len(work.expected) > 1 for work in found.values())
    return found


def _deep_scorer(folder: Path) -> Path:
    return save_tiny_scorer(folder, num_hidden_layers=32)


def _pairs(folder: Path) -> Path:
    """Small files, one unit each; their pattern."""
    folder.mkdir()
    for file in range(UNITS):
        numbers = range(file * 60, file * 60 + 60)
        rows = [{"instruction": sentence(i, 12), "response": sentence(i % 60, 30)} for i in numbers]
        (folder / f"{file:02d}.parquet").write_bytes(parquet(rows))
    return folder / "*.parquet"


def _instructions(path: Path) -> Path:
    pq.write_table(table(some_rows(UNIT_PROMPTS * UNITS)), path)
    return path


def bare_python(folder: Path) -> Path:
    """Create a Python with all packages of this one, except editable ones, so without this project."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    installed = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "here.pth").write_text("\n".join(installed))
    return folder / "bin" / "python"


@contextmanager
def pool_of(python: Path, folder: Path, *paths: Path) -> Iterator[int]:
    """Start a pool of workers of another Python in `folder`, with `paths` to import from; yield its port."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    command = [str(python), str(Path(flink.__file__).with_name("worker_pool.py")), str(port)]
    pool = psutil.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + SECONDS
        while not _listens(port):
            assert pool.poll() is None and time.monotonic() < end, "the pool did not start"
            time.sleep(0.1)
        yield port
    finally:
        for process in (*pool.children(recursive=True), pool):
            process.kill()
        pool.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0
