"""Inputs: files, their names, and the schema that they share."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.io.inputs import open_input
from schemas import chunks
from schemas.errors import CappyError
from tests.beam_pipelines.io.reading import bad, good, units


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.parquet", b"", "not a whole Parquet file"),
        ("f.parquet", b"PAR1" + b"\0" * 40, "not a whole Parquet file"),
        ("f.jsonl", b"", "holds no rows"),
        ("f.jsonl", b"not json\n", "none of its first 1 lines"),
        ("f.jsonl.gz", b"no gzip", "is not compressed by gzip"),
        ("f.jsonl.zst", b"no zstd", "is not compressed by zstd"),
        ("f.csv", b"", "holds no rows"),
        ("f.csv", b"\xff,b\n1,2\n", "its header is not UTF-8"),
        ("f.csv.gz", b"no gzip", "is not compressed by gzip"),
        ("f.txt", b"x", "unknown input format"),
        ("f.parquet.gz", b"x", "unknown input format"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CappyError, match=message) as caught:
        open_input([str(tmp_path / name)], {})
    assert name in str(caught.value)


def test_files_of_one_input_must_agree(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"], "b": pa.array([None], pa.null())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array(["y"], pa.large_string()), "b": [2]}), tmp_path / "2.parquet")
    source = open_input([f"{tmp_path}/*.parquet"], {})
    assert source.schema == pa.schema([("a", pa.large_string()), ("b", pa.int64())])
    assert good(list(units(tmp_path / "*.parquet"))) == [{"a": "x", "b": None}, {"a": "y", "b": 2}]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "3.parquet")
    with pytest.raises(CappyError, match=r"column 'a' is int64 in .*3\.parquet and large_string in .*2\.parquet"):
        open_input([f"{tmp_path}/*.parquet"], {}).check_usable(["a"])


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ([], ["q"], pa.list_(pa.string())),
        (1, 1.5, pa.float64()),
        ([1], [1.5], pa.list_(pa.float64())),
        ({"a": None}, {"a": [{"b": "x"}], "c": 1}, None),
        (None, {"a": "x"}, pa.struct([("a", pa.string())])),
    ],
)
def test_the_wider_type_wins(tmp_path: Path, one: object, other: object, kind: pa.DataType | None) -> None:
    kind = kind or pa.array([other]).type
    for first, second in ((one, other), (other, one)):
        (tmp_path / "1.jsonl").write_text(json.dumps({"v": first}))
        (tmp_path / "2.jsonl").write_text(json.dumps({"v": second}))
        assert open_input([f"{tmp_path}/*.jsonl"], {}).schema == pa.schema([("v", kind)])
        found = list(units(f"{tmp_path}/*.jsonl"))
        assert [row["v"] for row in good(found)] == pa.array([first, second], kind).to_pylist()


def test_parquet_numbers_of_two_widths(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2**53 + 1, 3]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"n": pa.array([0.5], pa.float32())}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"n": pa.array([0.25], pa.float32())}), tmp_path / "3.parquet")
    found = list(units(f"{tmp_path}/*.parquet"))
    assert [row["n"] for row in good(found)] == [1.0, 3.0, 0.5, 0.25]
    assert bad(found) == [("1.parquet#1", "does_not_fit")]
    assert found[0].bad[0].excerpt == '{"n": 9007199254740993}'


def test_json_that_no_type_holds_is_carried_as_text(tmp_path: Path) -> None:
    deep: list[Any] = ["x"]
    for _ in range(61):
        deep = [deep]
    row = {"empty": {}, "inside": [{"a": {}}], "too_deep": [deep], "deep": deep}
    (tmp_path / "e.jsonl").write_text(json.dumps(row))
    (unit,) = units(tmp_path / "e.jsonl")
    assert unit.rows.schema.types[:3] == [pa.string()] * 3
    read = unit.rows.to_pylist()[0]
    assert [json.loads(read[name]) for name in ("empty", "inside", "too_deep")] == [{}, [{"a": {}}], [deep]]
    assert read["deep"] == deep
    assert chunks.from_ipc(chunks.to_ipc(unit.rows)).equals(unit.rows)


def test_patterns_name_files_relative_to_their_fixed_part(tmp_path: Path) -> None:
    for name in ("x/1.parquet", "y/1.parquet", "y/z/2.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"a": [name]}), tmp_path / name)
    found = open_input([f"{tmp_path}/**/*.parquet"], {})
    assert [file.name for file in found.files] == ["x/1.parquet", "y/1.parquet", "y/z/2.parquet"]
    assert [file.name for file in open_input([f"{tmp_path}/x/1.parquet"], {}).files] == ["1.parquet"]
    with pytest.raises(CappyError, match="have the same name '1.parquet'"):
        open_input([f"{tmp_path}/x/1.parquet", f"{tmp_path}/y/1.parquet"], {})
    with pytest.raises(CappyError, match="no file matches"):
        open_input([f"{tmp_path}/*.jsonl"], {})
    with pytest.raises(CappyError, match="is a folder"):
        open_input([str(tmp_path)], {})
    with pytest.raises(CappyError, match="cappy doctor"):
        open_input(["nosuch://bucket/f.parquet"], {})


def test_a_file_may_match_one_pattern_only(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(CappyError, match=r"s/a\.jsonl: matches two patterns of .*narrower"):
        open_input([f"{tmp_path}/**/*.jsonl", f"{tmp_path}/s/*.jsonl"], {})
