import errno
import posixpath
import socket
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from beam_pipelines.io.output import FinishRun, OutputDir
from beam_pipelines.io.storage import OutputError
from beam_pipelines.runs.card import Card, Part, draw_card
from schemas.errors import CappyError
from schemas.stats import FileEntry, Stats

ROWS = pa.record_batch({"text": ["a", "b", None]})


def a_tally() -> Stats:
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
    told = f"{tmp_path}: cannot be written: Permission denied (on the worker {socket.gethostname()}). Let those that"
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_finished_unit_is_found_with_what_it_counted(tmp_path: Path, protocol: str) -> None:
    folder = OutputDir(f"{protocol}{tmp_path}/out")
    path = "part-00000-00000-00000.parquet"
    assert folder.existing(path) is None
    returned = folder.write_unit(path, [ROWS], ROWS.schema, a_tally())
    found = folder.existing(path)
    assert found is not None
    entry, kept = found
    assert kept == a_tally(), "its own entry cannot be in the file"
    assert returned == Stats(files={entry}).add(kept)
    assert (entry.path, entry.rows) == (path, 3)


def test_the_kept_tally_is_no_part_of_the_schema(tmp_path: Path) -> None:
    OutputDir(str(tmp_path)).write_unit("part-0.parquet", [ROWS], ROWS.schema, a_tally())
    assert pq.read_schema(tmp_path / "part-0.parquet").equals(ROWS.schema, check_metadata=True)


def test_a_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    folder = OutputDir(str(tmp_path))
    folder.write_unit("part-0.parquet", [ROWS], ROWS.schema, a_tally())
    whole = (tmp_path / "part-0.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table(ROWS), tmp_path / "foreign.parquet")
    for number, kept in enumerate((b"[]", b"{", b"\xff", b"{}", b'{"counts": 1}')):
        folder.write_parquet(f"{number}.parquet", [ROWS], ROWS.schema, metadata={"cappy.tally": kept})
    for path in sorted(tmp_path.glob("*.parquet")):
        if path.name != "part-0.parquet":
            with pytest.raises(CappyError, match=f"{path}: .*; delete it, and it is made again"):
                folder.existing(path.name)


PARTS = [Part(name, f"{name}/*.parquet", "what they are") for name in ("scored", "pairs", "rejects")]


def test_the_card_has_a_config_for_each_pattern_that_matches(tmp_path: Path) -> None:
    card = Card("A title", lambda manifest: f"{manifest['totals']['rows']} rows", PARTS)
    finish = FinishRun(OutputDir(str(tmp_path)), summarise, card, 0.0)
    paths = ("scored/part-00000-00000-00000.parquet", "rejects/part-00000-00000-00000.parquet")
    with beam.Pipeline(runner="FnApiRunner") as root:
        root | beam.Create([Stats(files={FileEntry(path, 1, 1, "")}) for path in paths]) | finish
    _, front, text = (tmp_path / "README.md").read_text().split("---\n")
    assert [config["config_name"] for config in yaml.safe_load(front)["configs"]] == ["scored", "rejects"]
    assert "3 rows" in text and "`scored/*.parquet`" in text and "pairs" not in text
    assert "cappy 0.1.0" in text and "`0f0f`" in text


def summarise(stats: Stats) -> dict[str, object]:
    return {
        "versions": {"cappy": "0.1.0"},
        "fingerprint": "0f0f",
        "totals": {"rows": 3},
        "rejects": {"rate": 0.0, "of": "rows", "by_reason": {}},
        "files": [entry._asdict() for entry in sorted(stats.files)],
    }


def test_too_many_rejects_are_told_of_with_where_they_stand(tmp_path: Path) -> None:
    known = {**summarise(Stats()), "rejects": {"rate": 0.25, "of": "pairs", "rows": 0, "by_reason": {}}}
    finish = FinishRun(OutputDir(str(tmp_path)), lambda stats: known, Card("", lambda manifest: "", []), 0.1)
    with pytest.raises(CappyError, match=r"25.00% of the pairs .* 10.00%\. .*failure.json counts the reasons"):
        finish._finish(Stats())
    known["rejects"] = {"rate": 0.25, "of": "pairs", "rows": 2, "by_reason": {"read": {"broken_json": 2}}}
    with pytest.raises(CappyError, match=rf"reason: 2 broken_json\. They stand in {tmp_path}/rejects"):
        finish._finish(Stats())
    assert not (tmp_path / "manifest.json").exists()


def test_columns_of_a_part_are_a_table() -> None:
    part = Part("pairs", "*.parquet", "pairs", {"label": ("float32", "1 | 0")})
    manifest = {**summarise(Stats()), "files": [{"path": "a.parquet"}]}
    drawn = draw_card(Card("A title", lambda manifest: "", [part]), manifest)
    assert (
        "## Columns of `pairs`\n\n| column | type |  |\n| --- | --- | --- |\n| `label` | float32 | 1 \\| 0 |" in drawn
    )
