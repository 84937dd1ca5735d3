import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.io.output import OutputDir
from beam_pipelines.runs import progress
from beam_pipelines.runs.progress import Progress, Stage
from beam_pipelines.runs.under_way import begin_unit, end_unit, rows_under_way
from schemas.stats import REAL_TOKENS, Stats


def write(folder: Path, name: str, rows: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"n": range(rows)}), folder / name)


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.02)


def hasten(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Look, list and log every `seconds`."""
    names = ["_LOOK_SECONDS", "_FIRST_LOG_SECONDS", "_LOG_SECONDS", "_LISTING_SECONDS", "_REMOTE_LISTING_SECONDS"]
    for name in names:
        monkeypatch.setattr(progress, name, seconds)


UNITS = Stage("rows", 100, 4, resumes=True, tokens=True)
STAGES = [Stage("instructions", 100, 4, resumes=True), Stage("pairs", None, 2, resumes=True)]


def test_log_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch, 0.05)
    write(tmp_path / "instructions", "part-0.parquet", 20)  # of a run that was interrupted
    with caplog.at_level(logging.INFO, "cappy"), Progress(str(tmp_path), STAGES, {}):
        write(tmp_path / "instructions", "part-1.parquet", 30)
        (tmp_path / "instructions" / ".part-2.parquet.tmp").write_bytes(b"half")
        wait_until(lambda: "50 of 100 rows" in caplog.text)
        write(tmp_path / "pairs", "shard-0.parquet", 7)
        wait_until(lambda: "pairs" in caplog.text)
    assert "instructions: 20 of 100 rows were there" in caplog.text
    assert "instructions: 2 of 4 files, 50 of 100 rows" in caplog.text
    assert " s left" in caplog.text
    assert "pairs: 1 of 2 files, 7 rows" in caplog.text
    messages = [record.message for record in caplog.records]
    assert len(messages) == len(set(messages)), "nothing is said twice"


def test_bars_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    hasten(monkeypatch, 0.05)
    with Progress(str(tmp_path), STAGES, {}):
        write(tmp_path / "instructions", "part-0.parquet", 100)
        write(tmp_path / "pairs", "shard-0.parquet", 7)
        time.sleep(0.3)
    said = capsys.readouterr().err
    assert "instructions: 100%" in said
    assert "100/100" in said
    assert "1/2" in said
    assert "7 rows" in said


def write_unit(folder: Path, name: str, rows: int, tokens: int) -> None:
    """Write a unit of `rows` rows of the input, each of which gives two."""
    batch = pa.record_batch({"n": range(2 * rows)})
    stats = Stats(Counter({REAL_TOKENS: tokens, ("rows", "read"): rows}))
    OutputDir(str(folder)).write_unit(name, [batch], batch.schema, stats)


def test_units_beside_other_folders_with_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch, 0.05)
    monkeypatch.setattr(progress.Progress, "_rate", lambda self, count: float(count))
    write_unit(tmp_path, "part-0.parquet", 20, 1_000)
    write(tmp_path / "rejects", "part-0.parquet", 5)
    stages = [Stage("", 100, 4, resumes=True, tokens=True)]
    with caplog.at_level(logging.INFO, "cappy"), Progress(str(tmp_path), stages, {}):
        write_unit(tmp_path, "part-1.parquet", 30, 7_000)
        wait_until(lambda: "2 of 4 files" in caplog.text)
    assert "output: 20 of 100 rows were there" in caplog.text
    assert "output: 2 of 4 files, 50 of 100 rows, 30 rows/s, 7,000 tokens/s, 2 s left" in caplog.text


def test_rows_under_way_count_once_and_never_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch, 0.02)
    monkeypatch.setattr(progress, "_LISTING_SECONDS", 0.2)
    (tmp_path / "rows").mkdir()
    with caplog.at_level(logging.INFO, "cappy"), Progress(str(tmp_path), [UNITS], {}):
        for number in range(4):
            name = f"part-{number}"
            on_progress = begin_unit(str(tmp_path), name, 25)
            for done in range(11):
                on_progress(done, 10)
                time.sleep(0.02)
            write_unit(tmp_path, f"rows/{name}.parquet", 25, 100)
            end_unit(str(tmp_path), name)
        wait_until(lambda: "4 files, 100 rows" in caplog.text or "4 of 4 files, 100 of 100 rows" in caplog.text)
    rows = [int(found[1]) for found in re.finditer(r"files, (\d+) of 100 rows", caplog.text)]
    assert rows == sorted(rows) and rows[-1] == 100, rows
    assert len({row % 25 for row in rows}) > 3, "it moves within units"
    assert not rows_under_way(str(tmp_path))


def test_a_unit_that_fails_and_begins_again_counts_once(tmp_path: Path) -> None:
    begin_unit(str(tmp_path), "part-0", 100)(6, 10)
    begin_unit(str(tmp_path), "part-0", 100)(2, 10)
    begin_unit(str(tmp_path / "other"), "part-0", 100)(5, 10)
    assert rows_under_way(str(tmp_path)) == {"part-0": 20.0}
    begin_unit(str(tmp_path), "part-1", 7)(0, 0)
    end_unit(str(tmp_path), "part-0")
    assert rows_under_way(str(tmp_path)) == {"part-1": 0.0}


def test_units_of_a_failed_run_are_forgotten(tmp_path: Path) -> None:
    output, other = str(tmp_path), str(tmp_path / "other")
    begin_unit(other, "part-0", 100)(5, 10)
    begin_unit(output, "part-0", 100)(6, 10)

    def fail() -> None:
        with Progress(output, [UNITS], {}):
            assert not rows_under_way(output), "of an earlier run"
            begin_unit(output, "part-1", 100)(6, 10)
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    assert not rows_under_way(output)
    assert rows_under_way(other) == {"part-0": 50.0}
    end_unit(other, "part-0")


def test_a_large_folder_is_listed_seldom_and_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch, 0.01)
    monkeypatch.setattr(progress, "_READING_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_FOOTERS_AT_ONCE", 3)
    monkeypatch.setattr(progress, "_LISTING_SHARE", 1e-9)
    listed, known, list_files = [], [], Progress._listing

    def listing(self: Progress, stage: Stage) -> dict[str, object]:
        listed.append(stage.folder)
        return list_files(self, stage)

    def log_known(self: Progress) -> None:
        known.extend(seen.all.files for _, seen in self._stages)

    monkeypatch.setattr(Progress, "_listing", listing)
    monkeypatch.setattr(Progress, "_log", log_known)
    for number in range(10):
        write_unit(tmp_path, f"rows/part-{number}.parquet", 10, 1)
    with caplog.at_level(logging.INFO, "cappy"), Progress(str(tmp_path), [UNITS], {}):
        wait_until(lambda: len(known) > 10)
    assert "rows: 100 of 100 rows were there" in caplog.text
    assert known[:4] == [3, 6, 9, 10]
    assert listed == ["rows", "rows"], "at the start, and by the first look"


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_files_of_a_run_that_starts_again_count_once_they_are_replaced(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch, 0.05)
    folder = OutputDir(f"{protocol}{tmp_path}/out")
    batch = pa.record_batch({"n": range(30)})
    folder.write_parquet("pairs/shard-0.parquet", [batch], batch.schema)
    folder.write_parquet("pairs/shard-1.parquet", [batch], batch.schema)
    stages = [Stage("pairs", None, 3, resumes=False)]
    with caplog.at_level(logging.INFO, "cappy"), Progress(folder.url, stages, {}):
        folder.write_parquet("pairs/shard-2.parquet", [batch], batch.schema)
        wait_until(lambda: "1 of 3 files, 30 rows" in caplog.text)
        folder.write_parquet("pairs/shard-0.parquet", [batch], batch.schema)
        wait_until(lambda: "2 of 3 files, 60 rows" in caplog.text)
    assert "2 of 3 files, 60 rows" in caplog.text


def test_a_file_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hasten(monkeypatch, 0.05)
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions" / "part-0.parquet").write_bytes(b"no parquet")
    with caplog.at_level(logging.INFO, "cappy"), Progress(str(tmp_path), STAGES, {}):
        write(tmp_path / "instructions", "part-1.parquet", 7)
        wait_until(lambda: "1 of 4 files, 7 of 100 rows" in caplog.text)
    assert "1 of 4 files, 7 of 100 rows" in caplog.text


def test_bars_on_a_terminal_of_unknown_size(tmp_path: Path) -> None:
    """A pseudo-terminal is 0 columns wide until it is told otherwise."""
    write(tmp_path / "pairs", "shard-0.parquet", 7)
    program = f"""if True:
        import time
        from beam_pipelines.runs import progress
        progress._LOOK_SECONDS = 0.05
        with progress.Progress({str(tmp_path)!r}, [progress.Stage("pairs", None, 1, resumes=True)], {{}}):
            time.sleep(0.3)
    """
    mine, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True, timeout=60)
        said = os.read(mine, 100_000).decode()
    finally:
        os.close(theirs)
        os.close(mine)
    assert "pairs: 100%" in said and "1/1" in said and "files/s" in said and "7 rows" in said, said
