"""Runs disturbed from outside: full disks, signals, killed workers, and other runs in the same folder."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_pipelines.runners.local import worker_processes
from tests.conftest import build, data_bytes
from tests.end_to_end.inputs import ONE_PROCESS, PLAIN, TWO_PROCESSES, good, json_lines, mixture_of, said


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return mixture_of(tmp_path, {"d": ({"a.jsonl": json_lines(*good(12))}, PLAIN)})


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """Return a mixture of eight files that takes some seconds."""
    rows = [{"text": f"question {i} {'and so on ' * 20}", "answer": f"answer {i} {i * i}"} for i in range(16_000)]
    files = {f"{i}.jsonl": json_lines(*rows[i * 2_000 : (i + 1) * 2_000]) for i in range(8)}
    return mixture_of(tmp_path, {"d": (files, PLAIN)})


def command_of(mixture: Path, output: Path, flags: list[str]) -> list[str]:
    command = [sys.executable, "-m", "beam_pipelines.program", "build-corpus"]
    return [*command, "--mixture", str(mixture), "--output", str(output), *flags]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a file system of 200 KB."""
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path / "disk")]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


WORKERS = pytest.mark.parametrize("flags", [ONE_PROCESS, TWO_PROCESSES], ids=["one", "two"])


@WORKERS
def test_full_disk(flags: list[str], larger: Path, tmp_path: Path, small_disk: Path) -> None:
    command = command_of(larger, small_disk / "out", flags)
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr, failed.stderr
    assert "cannot be written: No space left on device. Free space" in failed.stderr
    assert not (small_disk / "out" / "manifest.json").exists()
    for path in small_disk.rglob("*.parquet"):
        pq.read_table(path)  # every file that exists is complete
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert subprocess.run(command, timeout=120).returncode == 0
    assert build(larger, tmp_path / "whole") == 0
    assert data_bytes(small_disk / "out") == data_bytes(tmp_path / "whole")


def test_file_too_large_for_the_system(larger: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE can be set without privileges, and fails as a full disk does."""
    failed = subprocess.run(
        command_of(larger, tmp_path / "out", ONE_PROCESS),
        capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert failed.returncode == 1 and "Traceback" not in failed.stderr, failed.stderr
    assert "cannot be written: File too large" in failed.stderr
    assert not list((tmp_path / "out").rglob("*.tmp"))


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be disturbed"


def heed_interrupts() -> None:
    """Restore the default of SIGINT, which processes started in the background by a script inherit as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def disturb(mixture: Path, output: Path, flags: list[str], act: Callable[[int], object], at: str) -> tuple[int, str]:
    """Start a run in its own session, disturb it, wait for its end; return exit status and stderr."""
    process = subprocess.Popen(
        command_of(mixture, output, flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    try:
        started = {
            "start": lambda: len(worker_processes(process.pid)) == 2,
            "first file": lambda: list(output.rglob("part*")),
        }
        wait_for(started[at], process)
        act(process.pid)
        _, error = process.communicate(timeout=60)
        return process.returncode, error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


SIGNALS = {
    "Ctrl-C": (lambda launcher: os.killpg(launcher, signal.SIGINT), {130}),
    "terminate": (lambda launcher: os.kill(launcher, signal.SIGTERM), {143, -signal.SIGTERM}),
}


@WORKERS
@pytest.mark.parametrize("case", SIGNALS)
def test_signal_in_the_middle(case: str, flags: list[str], larger: Path, tmp_path: Path) -> None:
    act, statuses = SIGNALS[case]
    status, error = disturb(larger, tmp_path / "out", flags, act, at="first file")
    assert status in statuses and "Traceback" not in error, (status, error)
    assert "goes on" not in error, "a corpus is rebuilt from the start"
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert build(larger, tmp_path / "out") == build(larger, tmp_path / "whole") == 0
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "whole")


def test_interrupt_while_beam_is_imported(tmp_path: Path) -> None:
    hooked = "import signal, sys; sys.meta_path.insert(0, type('', (), {'find_spec': lambda name, *_: "
    hooked += "signal.raise_signal(signal.SIGINT) if name == 'apache_beam' else None})); "
    command = [sys.executable, "-c", hooked + "from beam_pipelines.program import main; sys.exit(main(['doctor']))"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=heed_interrupts)
    assert (ended.returncode, ended.stderr) == (130, "\ncappy: interrupted; run the same command again to finish\n")


@pytest.mark.parametrize("at", ["start", "first file"])
def test_killed_worker_ends_the_run(at: str, larger: Path, tmp_path: Path) -> None:
    def kill_one(launcher: int) -> None:
        worker_processes(launcher)[0].kill()

    status, error = disturb(larger, tmp_path / "out", TWO_PROCESSES, kill_one, at)
    assert status == 1 and "Traceback" not in error and "Run the same command again" in error, (status, error)
    assert build(larger, tmp_path / "out") == build(larger, tmp_path / "whole") == 0
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "whole")


def test_second_run_on_a_folder_is_refused_while_the_first_runs(larger: Path, tmp_path: Path) -> None:
    command = command_of(larger, tmp_path / "out", ONE_PROCESS)
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "out" / "run.json").exists(), first)
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1 and "another job is running in it" in second.stderr, second.stderr
    _, error = first.communicate(timeout=120)
    assert first.returncode == 0 and "Traceback" not in error, error
    assert build(larger, tmp_path / "whole") == 0
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "whole")


def test_another_mixture_on_the_folder_is_refused(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(small, tmp_path / "out") == 0
    before = data_bytes(tmp_path / "out")
    (tmp_path / "data" / "d" / "b.jsonl").write_bytes(json_lines(*good(3)))
    assert build(small, tmp_path / "out") == 1
    error = said(capsys)
    assert "its input has changed: b.jsonl of d is new" in error and "--overwrite" in error
    assert data_bytes(tmp_path / "out") == before
