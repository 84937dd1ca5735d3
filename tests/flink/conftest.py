"""A cluster that `make flink-up` has started: what is skipped where there is none, and how a job is put on it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import flink

SECONDS = 600


@pytest.fixture(scope="session")
def cluster() -> dict[str, Any]:
    """The running cluster's state."""
    if not flink.processes(flink.HOME):
        pytest.skip("no Flink cluster is running; `make flink-up` starts one")
    state: dict[str, Any] = yaml.safe_load((flink.HOME / flink.STATE).read_text())
    return state


def command(*arguments: object) -> list[str]:
    """The program as a process of its own."""
    return [sys.executable, "-m", "beam_pipelines.program", *map(str, arguments)]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Runs the program to its end; never a traceback."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=SECONDS)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def corpus_of(mixture: Path, output: Path, flags: list[str]) -> None:
    """`cappy build-corpus` that succeeds."""
    done = run("build-corpus", "--mixture", mixture, "--output", output, *flags)
    assert done.returncode == 0, done.stderr
