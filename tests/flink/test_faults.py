"""What goes wrong on a cluster: lost TaskManagers and workers, a cancelled job, a pool that is not there."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import data_bytes
from tests.end_to_end.inputs import ONE_PROCESS, PLAIN, json_lines, mixture_of
from tests.flink.conftest import SECONDS, command, corpus_of, run
from tools import flink

pytestmark = [pytest.mark.flink, pytest.mark.slow]


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """A mixture that takes some seconds, in eight files."""
    rows = [{"text": f"question {i} {'and so on ' * 20}", "answer": f"answer {i} {i * i}"} for i in range(16_000)]
    files = {f"{i}.jsonl": json_lines(*rows[i * 2_000 : (i + 1) * 2_000]) for i in range(8)}
    return mixture_of(tmp_path, {"d": (files, PLAIN)})


def kill_task_manager(cluster: dict[str, Any]) -> None:
    """Kills one, and starts another in its place, as a cluster's manager would."""
    parts = flink.processes(flink.HOME)
    parts["taskmanager-0"].kill()
    log = flink.HOME / "logs" / "taskmanager-0.log"
    cluster["processes"]["taskmanager-0"] = flink.start(flink.task_manager(flink.HOME, Path(cluster["jar"])), log)
    flink.save(flink.HOME, cluster)


def kill_worker(cluster: dict[str, Any]) -> None:
    """Kills a Python worker of the pool."""
    flink.processes(flink.HOME)["workers"].children()[0].kill()


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {"TaskManager": kill_task_manager, "worker": kill_worker}


def wait_for_a_file(output: Path, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + SECONDS
    while not list(output.rglob("part*.parquet")):
        assert process.poll() is None and time.monotonic() < end, "the job ended before it could be disturbed"
        time.sleep(0.1)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_lost_in_the_middle_is_made_up_for(
    fault: str, cluster: dict[str, Any], larger: Path, tmp_path: Path
) -> None:
    flags = flink.flags(cluster, parallelism=2)
    job = command("build-corpus", "--mixture", larger, "--output", tmp_path / "out", *flags)
    process = subprocess.Popen(job, stderr=subprocess.PIPE, text=True)
    wait_for_a_file(tmp_path / "out", process)
    FAULTS[fault](cluster)
    _, error = process.communicate(timeout=SECONDS)
    assert "Traceback" not in error
    if process.returncode:  # it may have failed clearly: the same command then finishes it
        corpus_of(larger, tmp_path / "out", flags)
    corpus_of(larger, tmp_path / "whole", ONE_PROCESS)
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "whole") != {}


def test_interrupting_the_command_cancels_the_job(cluster: dict[str, Any], larger: Path, tmp_path: Path) -> None:
    flags = flink.flags(cluster, parallelism=2)
    job = command("build-corpus", "--mixture", larger, "--output", tmp_path / "out", *flags)
    process = subprocess.Popen(job, stderr=subprocess.PIPE, text=True)
    wait_for_a_file(tmp_path / "out", process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode in (143, -signal.SIGTERM) and "Traceback" not in error, error
    assert flink.running_jobs(cluster["ports"]["rest"]) == 0
    assert not (tmp_path / "out" / "manifest.json").exists()
    corpus_of(larger, tmp_path / "out", flags)
    corpus_of(larger, tmp_path / "whole", ONE_PROCESS)
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "whole") != {}


def test_no_worker_pool_is_said_in_words(cluster: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    elsewhere = {**cluster, "ports": {**cluster["ports"], "workers": 1}}
    flags = flink.flags(elsewhere, parallelism=1)
    failed = run("build-corpus", "--mixture", corpus, "--output", tmp_path / "out", *flags)
    assert failed.returncode == 1 and "mend --environment_config" in failed.stderr, failed.stderr
    assert psutil.pid_exists(flink.processes(flink.HOME)["jobmanager"].pid)
