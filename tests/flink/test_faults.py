"""Losses in the middle of a job: TaskManagers, workers, the job itself, the command that submitted it."""

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import cappy, data_bytes
from tests.end_to_end.inputs import said
from tests.end_to_end.kills import File, files_in
from tests.flink.conftest import SECONDS, UNITS, Work
from tools import flink

pytestmark = [pytest.mark.flink, pytest.mark.slow]

Parts = dict[str, File]
ALL_SLOTS = flink.TASK_MANAGERS * flink.SLOTS  # so that each TaskManager, and its worker, has a part in a job


def kill_task_manager(cluster: dict[str, Any]) -> None:
    """Kill one, and start another in its place, as a cluster's manager would."""
    flink.processes(flink.HOME)["taskmanager-0"].kill()
    log = flink.HOME / "logs" / "taskmanager-0.log"
    cluster["processes"]["taskmanager-0"] = flink.start(flink.task_manager(flink.HOME, Path(cluster["jar"])), log)
    flink.save(flink.HOME, cluster)


def kill_worker(cluster: dict[str, Any]) -> None:
    """Kills the Python worker that was started last: of two, if the job before left one idle, that of this job."""
    max(living_workers(), key=psutil.Process.create_time).kill()


def living_workers() -> list[psutil.Process]:
    workers = flink.processes(flink.HOME)["workers"].children()
    return [worker for worker in workers if worker.status() != psutil.STATUS_ZOMBIE]


def check_disturbed(cluster: dict[str, Any]) -> None:
    """Flink has noted a failure of the job that started last: what was killed was at work for it."""
    rest = cluster["ports"]["rest"]
    last = max(flink.ask(rest, "jobs/overview")["jobs"], key=lambda job: job["start-time"])
    assert flink.ask(rest, f"jobs/{last['jid']}/exceptions")["exceptionHistory"]["entries"], "nothing was disturbed"


def running_jobs(cluster: dict[str, Any]) -> int:
    return int(flink.ask(cluster["ports"]["rest"], "overview")["jobs-running"])


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def parts(output: Path) -> Parts:
    """The finished units of score or generate."""
    return files_in(output / "rows") | files_in(output / "candidates")


def run_disturbed(work: Work, output: Path, flags: list[str], disturb: Callable[[], None]) -> tuple[int, Parts]:
    """Run a job and disturb it two files later; return its exit status, and the files that existed then."""
    wanted = len(parts(output)) + 2
    status: Future[int] = Future()

    def look_on() -> Parts:
        wait_for(lambda: status.done() or len(parts(output)) >= wanted)
        disturb()
        return parts(output)

    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(look_on)
        status.set_result(cappy(*work.arguments, "--output", output, *flags))
        return status.result(), found.result()


def start(work: Work, output: Path, flags: list[str]) -> "subprocess.Popen[str]":
    """Start a job and wait until it has written some files, but not all."""
    process = subprocess.Popen(work.command(output, flags), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: process.poll() is not None or len(list(output.rglob("part*.parquet"))) >= 2)
    assert process.poll() is None, "the job ended before it could be disturbed"
    return process


def check_kept(output: Path, before: Parts) -> None:
    assert 2 <= len(before) < UNITS
    assert {name: parts(output)[name] for name in before} == before, "a unit whose file stood was done again"


def test_a_lost_worker_is_made_up_for(cluster: dict[str, Any], works: dict[str, Work], tmp_path: Path) -> None:
    work, output, flags = works["generate"], tmp_path / "out", flink.flags(cluster, parallelism=ALL_SLOTS)
    status, before = run_disturbed(work, output, flags, lambda: kill_worker(cluster))
    assert status == 0
    check_disturbed(cluster)
    assert data_bytes(output) == work.expected
    check_kept(output, before)


def test_a_cancelled_job_goes_on_and_loses_a_task_manager(
    cluster: dict[str, Any], works: dict[str, Work], tmp_path: Path
) -> None:
    work, output, flags = works["score"], tmp_path / "out", flink.flags(cluster, parallelism=ALL_SLOTS)
    process = start(work, output, flags)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: running_jobs(cluster) == 0)
    for worker in living_workers():
        worker.kill()  # Flink has let go of it, and it would do all that it was given before
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode in (143, -signal.SIGTERM) and "Traceback" not in error, error
    assert not (output / "manifest.json").exists()
    cancelled = parts(output)
    status, before = run_disturbed(work, output, flags, lambda: kill_task_manager(cluster))
    assert status == 0
    check_disturbed(cluster)
    assert data_bytes(output) == work.expected
    check_kept(output, cancelled)
    check_kept(output, before)


def test_a_job_outlives_its_command_and_a_task_manager(
    cluster: dict[str, Any], works: dict[str, Work], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, output, flags = works["build-corpus"], tmp_path / "out", flink.flags(cluster, parallelism=ALL_SLOTS)
    process = start(work, output, flags)
    process.kill()
    process.communicate()
    kill_task_manager(cluster)
    assert cappy(*work.arguments, "--output", output, *flags) == 1
    assert "a job that was submitted before is still running" in said(capsys)
    wait_for(lambda: running_jobs(cluster) == 0)
    check_disturbed(cluster)
    assert cappy(*work.arguments, "--output", output, *flags) == 0
    assert "already finished" in said(capsys)
    assert data_bytes(output) == work.expected
