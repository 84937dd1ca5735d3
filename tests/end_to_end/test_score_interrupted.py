"""`cappy score` under SIGKILL, signals, full disks and second launches: it goes on, and no unit is scored twice."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_pipelines.runs.folder import hold
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import cappy, data_bytes, sentence
from tests.end_to_end.inputs import json_lines, said

FILES, ROWS, KILLS = 40, 60, 10


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of many small files, one unit each, and a model that takes some time for them."""
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        rows = [
            {"instruction": sentence(number * ROWS + row, 12), "response": sentence(row, 30)} for row in range(ROWS)
        ]
        (tmp_path / "in" / f"{number:02d}.jsonl").write_bytes(json_lines(*rows))
    save_tiny_scorer(tmp_path / "model", num_hidden_layers=12)
    return tmp_path / "in"


def command_of(inputs: Path, output: Path) -> list[str]:
    model = inputs.parent / "model"
    flags = ["--input", inputs / "*.jsonl", "--model", model, "--output", output, "--device", "cpu"]
    return [sys.executable, "-m", "beam_pipelines.program", "score", *map(str, flags)]


def parts(output: Path) -> dict[str, tuple[int, int]]:
    """The finished units of a run: inode and time of change of each file, which a second writing would alter."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.glob("rows/part-*.parquet")}


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_ten_times_and_the_bytes_are_those_of_an_undisturbed_run(inputs: Path, tmp_path: Path) -> None:
    rng, output = random.Random(0), tmp_path / "out"
    seen: dict[str, tuple[int, int]] = {}
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen(command_of(inputs, output), stderr=subprocess.PIPE)
        done = len(seen) + rng.randint(0, 3)
        wait_for(lambda done=done: len(parts(output)) >= done, process)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.1))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        found = parts(output)
        assert {name: found[name] for name in seen} == seen  # no unit is written twice
        seen = found
    assert killed == KILLS and 0 < len(seen) < FILES
    assert subprocess.run(command_of(inputs, output)).returncode == 0
    assert {name: parts(output)[name] for name in seen} == seen
    assert subprocess.run(command_of(inputs, tmp_path / "plain")).returncode == 0
    assert data_bytes(output) == data_bytes(tmp_path / "plain")
    assert not list(output.glob(".*"))
    assert cappy("verify", output) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_soon_and_the_same_command_goes_on(
    number: signal.Signals, status: int, inputs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        command_of(inputs, output),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    wait_for(lambda: len(parts(output)) >= 2, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status and b"Traceback" not in error and b"shutdown" not in error, error
    before = parts(output)
    assert 2 <= len(before) < FILES
    assert subprocess.run(command_of(inputs, output)).returncode == 0
    after = parts(output)
    assert len(after) == FILES and {name: after[name] for name in before} == before


def test_a_second_job_on_the_same_folder(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(str(tmp_path / "out"), {}):
        assert cappy(*command_of(inputs, tmp_path / "out")[3:]) == 1
    assert "another job is running in it" in said(capsys)


def test_a_folder_that_cannot_be_written(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_only = Path("/proc/cappy")  # where not even root writes
    assert cappy(*command_of(inputs, read_only)[3:]) == 1
    assert "/proc/cappy: cannot be written" in said(capsys)


def test_a_disk_that_is_full(inputs: Path, tmp_path: Path) -> None:
    """A limit on the size of files, which needs no rights to set, fails as a full disk does."""
    import resource

    limited = subprocess.run(
        command_of(inputs, tmp_path / "out"),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000)),
    )
    assert limited.returncode == 1 and "Traceback" not in limited.stderr, limited.stderr
    assert "cannot be written: File too large. Free space" in limited.stderr
    assert subprocess.run(command_of(inputs, tmp_path / "out")).returncode == 0
    assert len(parts(tmp_path / "out")) == FILES
