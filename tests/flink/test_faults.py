"""What is lost in the middle of a job: TaskManagers, workers, the job itself, the command that submitted it."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import cappy, data_bytes
from tests.end_to_end.inputs import said
from tests.end_to_end.test_score_interrupted import parts
from tests.flink.conftest import FILES, SECONDS, Work
from tools import flink

pytestmark = [pytest.mark.flink, pytest.mark.slow]


def kill_task_manager(cluster: dict[str, Any]) -> None:
    """Kills one, and starts another in its place, as a cluster's manager would."""
    flink.processes(flink.HOME)["taskmanager-0"].kill()
    log = flink.HOME / "logs" / "taskmanager-0.log"
    cluster["processes"]["taskmanager-0"] = flink.start(flink.task_manager(flink.HOME, Path(cluster["jar"])), log)
    flink.save(flink.HOME, cluster)


def kill_worker(cluster: dict[str, Any]) -> None:
    """Kills the Python worker that was started last."""
    workers = flink.processes(flink.HOME)["workers"].children()
    max(
        (worker for worker in workers if worker.status() != psutil.STATUS_ZOMBIE), key=psutil.Process.create_time
    ).kill()


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {"TaskManager": kill_task_manager, "worker": kill_worker}


def start(work: Work, output: Path, flags: list[str], files: int) -> "subprocess.Popen[str]":
    """Starts a job and waits until it has written some files, and not all."""
    process = subprocess.Popen(work.command(output, flags), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + SECONDS
    while len(list(output.rglob("part*.parquet"))) < files:
        assert process.poll() is None and time.monotonic() < end, "the job ended before it could be disturbed"
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("fault", "job"), [("TaskManager", "build-corpus"), ("TaskManager", "score"), ("worker", "generate")]
)
def test_what_is_lost_is_made_up_for(
    fault: str, job: str, cluster: dict[str, Any], works: dict[str, Work], tmp_path: Path
) -> None:
    work, output, flags = works[job], tmp_path / "out", flink.flags(cluster, parallelism=2)
    process = start(work, output, flags, files=2)
    FAULTS[fault](cluster)
    before = parts(output)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, error
    assert data_bytes(output) == work.expected
    assert job == "build-corpus" or 2 <= len(before) < FILES
    assert {name: parts(output)[name] for name in before} == before, "a unit whose file stood was done again"


def test_a_command_that_is_ended_cancels_its_job(
    cluster: dict[str, Any], works: dict[str, Work], tmp_path: Path
) -> None:
    work, output, flags = works["score"], tmp_path / "out", flink.flags(cluster, parallelism=2)
    process = start(work, output, flags, files=2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode in (143, -signal.SIGTERM) and "Traceback" not in error, error
    assert flink.running_jobs(cluster["ports"]["rest"]) == 0
    assert not (output / "manifest.json").exists()
    before = parts(output)
    assert cappy(*work.arguments, "--output", output, *flags) == 0
    assert data_bytes(output) == work.expected
    assert {name: parts(output)[name] for name in before} == before, "a unit whose file stood was done again"


def test_a_command_that_is_killed_leaves_a_job_that_goes_on(
    cluster: dict[str, Any], works: dict[str, Work], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, output, flags = works["build-corpus"], tmp_path / "out", flink.flags(cluster, parallelism=2)
    process = start(work, output, flags, files=1)
    process.kill()
    process.communicate()
    assert cappy(*work.arguments, "--output", output, *flags) == 1
    assert "a job that was submitted before is still at work" in said(capsys)
    end = time.monotonic() + SECONDS
    while flink.running_jobs(cluster["ports"]["rest"]):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert cappy(*work.arguments, "--output", output, *flags) == 0
    assert "already finished" in said(capsys)
    assert data_bytes(output) == work.expected
