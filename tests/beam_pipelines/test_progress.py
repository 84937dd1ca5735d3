import logging
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines import progress
from beam_pipelines.progress import Progress, Stage


def write(folder: Path, name: str, rows: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"n": range(rows)}), folder / name)


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.02)


STAGES = [Stage("instructions", 100, 4), Stage("pairs", None, 2)]


def test_log_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.05)
    write(tmp_path / "instructions", "part-0.parquet", 20)  # of a run that was interrupted
    with caplog.at_level(logging.INFO, "cappy"), Progress(str(tmp_path), STAGES, {}):
        write(tmp_path / "instructions", "part-1.parquet", 30)
        (tmp_path / "instructions" / ".part-2.parquet.tmp").write_bytes(b"half")
        wait_until(lambda: "50 rows" in caplog.text)
        write(tmp_path / "pairs", "shard-0.parquet", 7)
        wait_until(lambda: "pairs" in caplog.text)
    assert "instructions: 2 of 4 files, 50 rows" in caplog.text
    assert " s left" in caplog.text
    assert "pairs: 1 of 2 files, 7 rows" in caplog.text
    messages = [record.message for record in caplog.records]
    assert len(messages) == len(set(messages)), "nothing is said twice"


def test_bars_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.05)
    with Progress(str(tmp_path), STAGES, {}):
        write(tmp_path / "instructions", "part-0.parquet", 100)
        write(tmp_path / "pairs", "shard-0.parquet", 7)
        time.sleep(0.3)
    said = capsys.readouterr().err
    assert "instructions: 100%" in said
    assert "100/100" in said
    assert "1/2" in said
    assert "7 rows" in said


def test_a_folder_that_cannot_be_looked_at_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions" / "part-0.parquet").write_bytes(b"no parquet")
    with Progress(str(tmp_path), STAGES, {}):
        pass
