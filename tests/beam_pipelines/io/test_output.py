import errno
import posixpath
import socket
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import OutputError
from schemas.errors import CappyError
from schemas.stats import FileEntry, Stats

ROWS = pa.record_batch({"text": ["a", "b", None]})


def some_stats() -> Stats:
    stats = Stats(Counter({("rows", "d"): 3, ("notes", "none"): 0}))
    stats.sample("scores", 2**127, {"text": "é\ud800", "score": 0.1, "error": None, "of": [1, "x"]})
    stats.files.add(FileEntry("rejects/part-0.parquet", 1, 900, "ab" * 16))
    return stats


def test_the_bytes_are_of_the_rows_however_they_are_cut(tmp_path: Path) -> None:
    folder = OutputDir(str(tmp_path))
    entries = [
        folder.write_parquet(f"{index}.parquet", batches, ROWS.schema)
        for index, batches in enumerate([[ROWS], [ROWS.slice(0, 1), ROWS.slice(1)], [ROWS]])
    ]
    assert len({entry.digest for entry in entries}) == 1
    assert pq.read_table(tmp_path / "1.parquet").equals(pa.table(ROWS))


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path, protocol: str) -> None:
    folder = OutputDir(f"{protocol}{tmp_path}/out")
    folder.write("run.json", b"{}")
    folder.check_usable()
    fs, path = url_to_fs(folder.url)
    assert [posixpath.basename(name) for name in fs.find(path)] == ["run.json"]


@pytest.mark.parametrize("method", ["pipe_file", "rm_file"])
def test_a_folder_that_a_worker_cannot_write_is_named(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only disks, and roles that may only read, or only create."""
    folder = OutputDir(str(tmp_path))
    folder.write("run.json", b"{}")
    refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(LocalFileSystem, method, refuse)
    with pytest.raises(OutputError) as caught:
        folder.check_usable()
    message = (
        f"{tmp_path}: cannot be written: Permission denied (on the worker {socket.gethostname()}). Let the user of"
    )
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_finished_unit_is_found_with_what_it_counted(tmp_path: Path, protocol: str) -> None:
    folder = OutputDir(f"{protocol}{tmp_path}/out")
    path = "part-00000-00000-00000.parquet"
    assert folder.existing(path) is None
    returned = folder.write_unit(path, [ROWS], ROWS.schema, some_stats())
    found = folder.existing(path)
    assert found is not None
    entry, kept = found
    assert kept == some_stats(), "its own entry cannot be in the file"
    assert returned == Stats(files={entry}).add(kept)
    assert (entry.path, entry.rows) == (path, 3)


def test_units_of_one_content_have_the_same_bytes_whatever_their_number(tmp_path: Path) -> None:
    folder = OutputDir(str(tmp_path))
    names = [f"part-0000{number}-00000-00000.parquet" for number in range(2)]
    for name in names:
        stats = Stats(files={folder.write_parquet(f"rejects/{name}", [ROWS], ROWS.schema)}).add(some_stats())
        folder.write_unit(f"rows/{name}", [ROWS], ROWS.schema, stats)
        found = folder.existing(f"rows/{name}")
        assert found is not None and found[1] == stats
    one, other = (tmp_path / "rows" / name for name in names)
    assert one.read_bytes() == other.read_bytes()


def test_the_kept_stats_are_no_part_of_the_schema(tmp_path: Path) -> None:
    OutputDir(str(tmp_path)).write_unit("part-0.parquet", [ROWS], ROWS.schema, some_stats())
    assert pq.read_schema(tmp_path / "part-0.parquet").equals(ROWS.schema, check_metadata=True)


def test_a_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    folder = OutputDir(str(tmp_path))
    folder.write_unit("part-0.parquet", [ROWS], ROWS.schema, some_stats())
    whole = (tmp_path / "part-0.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table(ROWS), tmp_path / "foreign.parquet")
    for number, kept in enumerate((b"[]", b"{", b"\xff", b"{}", b'{"counts": 1}')):
        folder.write_parquet(f"{number}.parquet", [ROWS], ROWS.schema, metadata={"cappy.tally": kept})
    for path in sorted(tmp_path.glob("*.parquet")):
        if path.name != "part-0.parquet":
            with pytest.raises(CappyError, match=f"{path}: .*; delete it to have it rebuilt"):
                folder.existing(path.name)
