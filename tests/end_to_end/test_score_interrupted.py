"""`cappy score` under SIGKILL, signals, full disks and second launches: it goes on, and no unit is scored twice."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_pipelines.runs.lock import hold
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import cappy, data_bytes, sentence
from tests.end_to_end.inputs import TWO_THREADS, json_lines, said
from tests.end_to_end.kills import Launcher, check_what_kills_cost, files_in, kill_again_and_again

FILES, ROWS, KILLS = 60, 60, 20
MANY_FILES, FEW_ROWS = 160, 8  # for the kills


def write_inputs(folder: Path, files: int, rows: int) -> Path:
    """Write a folder of small files, one unit each."""
    folder.mkdir()
    for file in range(files):
        texts = [{"instruction": sentence(file * rows + row, 12), "response": sentence(row, 30)} for row in range(rows)]
        (folder / f"{file:03d}.jsonl").write_bytes(json_lines(*texts))
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of many small files, and a model that takes some time for them."""
    save_tiny_scorer(tmp_path / "model", num_hidden_layers=12)
    return write_inputs(tmp_path / "in", FILES, ROWS)


def command_of(inputs: Path, output: Path) -> list[str]:
    model = inputs.parent / "model"
    flags = ["--input", inputs / "*.jsonl", "--model", model, "--output", output, "--device", "cpu"]
    return [sys.executable, "-m", "beam_pipelines.program", "score", *map(str, flags)]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_twenty_times_and_the_bytes_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    save_tiny_scorer(tmp_path / "model")
    inputs = write_inputs(tmp_path / "in", MANY_FILES, FEW_ROWS)
    output, words = tmp_path / "out", [*command_of(inputs, tmp_path / "out")[3:], *TWO_THREADS]
    modules = ("beam_pipelines.jobs.score.job", "transformers.models.roberta.modeling_roberta")
    with Launcher(tmp_path / "begun", *modules) as launcher:
        killed = kill_again_and_again(launcher, words, output / "rows", kills=KILLS, seed=0)
        assert 0 < len(killed[-1].after) < MANY_FILES
        check_what_kills_cost(killed)
        launcher.start(words)
        assert launcher.wait() == 0
        assert len(launcher.begun()) == MANY_FILES - len(killed[-1].after)
        launcher.start([*command_of(inputs, tmp_path / "plain")[3:], *TWO_THREADS])
        assert launcher.wait() == 0
    assert data_bytes(output) == data_bytes(tmp_path / "plain")
    assert not list(output.rglob(".*"))
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
    wait_for(lambda: len(files_in(output / "rows")) >= 2, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status and b"Traceback" not in error and b"shutdown" not in error, error
    before = files_in(output / "rows")
    assert 2 <= len(before) < FILES
    assert subprocess.run(command_of(inputs, output)).returncode == 0
    after = files_in(output / "rows")
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
    assert len(files_in(tmp_path / "out" / "rows")) == FILES
