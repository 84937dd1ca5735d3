import base64
import csv
import fcntl
import json
import math
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.runs.export import export
from beam_pipelines.runs.result import open_result
from schemas.errors import CappyError, UsageError
from tests.beam_pipelines.io.reading import good, units
from tests.beam_pipelines.runs.runs_on_disk import finished_run
from tests.conftest import cappy

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {
        "instruction": TEXT.map("i{}".format),
        "response": st.none() | TEXT,
        "score": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "mean": st.none() | FLOATS,
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "right": st.none() | st.booleans(),
        "choices": st.none() | st.lists(st.none() | TEXT, max_size=3),
        "source": st.none() | st.fixed_dictionaries({"name": st.none() | TEXT, "at": st.none() | FLOATS}),
    }
)
KINDS = pa.schema(
    {
        "instruction": pa.large_string(),
        "response": pa.string(),
        "score": pa.float32(),
        "mean": pa.float64(),
        "count": pa.int64(),
        "right": pa.bool_(),
        "choices": pa.list_(pa.string()),
        "source": pa.struct({"name": pa.string(), "at": pa.float64()}),
    }.items()
)
ENDINGS = [".csv", ".csv.gz", ".csv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".parquet"]
Rows = list[dict[str, Any]]


def exported(folder: Path, tables: list[pa.Table], ending: str) -> Path:
    finished_run(folder, tables)
    file = folder / f"exported{ending}"
    assert export(open_result(str(folder)), str(file), overwrite=True) == sum(table.num_rows for table in tables)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@given(st.lists(ROW, min_size=1, max_size=12))
@settings(max_examples=60)
def test_csv_reads_back_equal(folder: Path, rows: Rows) -> None:
    half = len(rows) // 2
    file = exported(folder, [pa.Table.from_pylist(part, KINDS) for part in (rows[:half], rows[half:])], ".csv")
    frame = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=CSV_TYPES)
    with file.open(newline="") as lines:
        cells = list(csv.DictReader(lines))
    assert len(frame) == len(cells) == len(rows)
    for row, found, cell in zip(rows, frame.to_dict("records"), cells, strict=True):
        assert found["instruction"] == cell["instruction"] == row["instruction"]
        assert cell["response"] == (row["response"] or "")
        for name in ("score", "mean", "count", "right"):
            assert (None if pd.isna(found[name]) else found[name]) == row[name]
        for name in ("choices", "source"):
            assert (json.loads(cell[name]) if cell[name] else None) == row[name]
    convert = pa.csv.ConvertOptions(
        column_types={"response": pa.string()}, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    arrow = pa.csv.read_csv(file, parse_options=pa.csv.ParseOptions(newlines_in_values=True), convert_options=convert)
    assert arrow["response"].to_pylist() == [row["response"] for row in rows]


CSV_TYPES = {"instruction": str, "response": str, "score": "Float64", "mean": "Float64", "count": "Int64"}
CSV_TYPES |= {"right": "boolean", "choices": str, "source": str}


@given(st.lists(ROW, min_size=1, max_size=12))
@settings(max_examples=60)
def test_json_lines_read_back_equal(folder: Path, rows: Rows) -> None:
    file = exported(folder, [pa.Table.from_pylist(rows, KINDS)], ".jsonl")
    assert [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] == rows
    found = good(list(units(file)))
    for row, own in zip(rows, found, strict=True):
        plain = {name: value for name, value in row.items() if name != "source"}
        assert {name: own[name] for name in plain} == plain
    frame = pd.read_json(file, lines=True, dtype=False)
    assert frame["instruction"].tolist() == [row["instruction"] for row in rows]


def test_parquet_has_the_same_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None, "c"], pa.large_string()),
            "kind": pa.array(["x", "y", "x"], pa.dictionary(pa.int8(), pa.string())),
            "id": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
            "price": pa.array([Decimal("1.10"), None, Decimal("-7.00")], pa.decimal128(9, 2)),
            "at": pa.array([1, 2, None], pa.timestamp("ns", "Europe/Paris")),
            "views": pa.array([["a"], None, []], pa.list_view(pa.string())),
        }
    ).replace_schema_metadata({"note": "of the file alone"})
    file = exported(tmp_path, [table.slice(0, 2), table.slice(2)], ".parquet")
    found = pq.read_table(file)
    assert found.schema.equals(table.schema.remove_metadata())
    assert found.to_pylist() == table.to_pylist()


ODD = pa.table(
    {
        "day": pa.array([date(2020, 2, 29), None]),
        "at": pa.array([datetime(2020, 2, 29, 1, 2, 3), None], pa.timestamp("us")),
        "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
        "score": pa.array([math.inf, -math.inf], pa.float32()),
        "nan": pa.array([math.nan, None]),
        "vector": pa.array([[-math.inf, 0.5], None]),
        "id": pa.array([b"\x12" * 16, None], pa.uuid()),
        "image": pa.array([{"bytes": b"\xff\0", "path": "a.png"}, None]),
        "named": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "big": pa.array([2**64 - 1, None], pa.uint64()),
    }
)
ODD_TEXTS = {
    "day": "2020-02-29",
    "at": "2020-02-29 01:02:03",
    "price": "1.10",
    "id": "12121212-1212-1212-1212-121212121212",
}


def test_values_that_csv_and_json_have_no_form_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = {"bytes": base64.b64encode(b"\xff\0").decode(), "path": "a.png"}
    file = exported(tmp_path / "j", [ODD], ".jsonl")
    first, second = map(json.loads, file.read_text().splitlines())
    numbers = {"score": None, "nan": None, "vector": [None, 0.5], "big": 2**64 - 1}
    assert first == {**ODD_TEXTS, **numbers, "image": image, "named": [["k", 1]]}
    assert second == dict.fromkeys(ODD.column_names)
    warned = [f"column {name!r} holds NaN or infinities, which JSON lacks" for name in ("score", "nan", "vector")]
    assert [caplog.text.count(warning) for warning in warned] == [1, 1, 1]
    assert "NaN" not in file.read_text() and "Infinity" not in file.read_text()
    cells = list(csv.DictReader(exported(tmp_path / "c", [ODD], ".csv").read_text().splitlines()))
    assert {name: cells[0][name] for name in ODD_TEXTS} == ODD_TEXTS
    assert caplog.text.count(warned[0]) == 1 and caplog.text.count(warned[2]) == 2, "only what is JSON"
    assert json.loads(cells[0]["vector"]) == [None, 0.5]
    assert json.loads(cells[0]["image"]) == image and json.loads(cells[0]["named"]) == [["k", 1]]
    assert (cells[0]["score"], cells[1]["score"], cells[0]["nan"], cells[1]["nan"]) == ("inf", "-inf", "NaN", "")
    assert "column 'image' holds bytes, which are written as base64" in caplog.text


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_read_by_the_jobs(tmp_path: Path, ending: str) -> None:
    rows = [{"instruction": f'say "{n}",\r\nplease', "response": f" {n}", "score": n / 7} for n in range(3000)]
    file = exported(tmp_path, [pa.Table.from_pylist(rows[:10]), pa.Table.from_pylist(rows[10:])], ending)
    assert good(list(units(file, 1000))) == rows


def test_a_file_is_not_replaced_unless_asked_and_never_written_in_part(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", [pa.Table.from_pylist([{"a": 1, "b": n}]) for n in range(3)])
    result, file = open_result(str(folder)), tmp_path / "made" / "table.csv"
    assert export(result, str(file)) == 3
    before = file.read_bytes()
    with pytest.raises(CappyError, match=f"{file}: exists; give another name, or --overwrite"):
        export(result, str(file))
    (folder / "rows" / "part-00002-00000-00000.parquet").unlink()
    with pytest.raises(CappyError, match="part-00002-00000-00000.parquet: is missing"):
        export(result, str(file), overwrite=True)
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == ["table.csv"]


def test_a_killed_export_leaves_nothing_to_the_next_one(tmp_path: Path) -> None:
    result, file = open_result(str(finished_run(tmp_path / "run", [pa.table({"a": [1]})]))), tmp_path / "table.csv"
    left, other = (tmp_path / f".{name}.{'0a' * 16}.tmp" for name in ("table.csv", "table.csv.gz"))
    alive = tmp_path / f".table.csv.{'0b' * 16}.tmp"
    for path in (left, other, alive):
        path.write_bytes(b"half")
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert export(result, str(file)) == 1
    assert sorted(tmp_path.glob(".*")) == sorted([other, alive])


@pytest.mark.parametrize("name", ["table", "table.txt", "table.csv.xz", "table.parquet.gz", "table.json"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    result = open_result(str(finished_run(tmp_path, [pa.table({"a": [1]})])))
    with pytest.raises(UsageError, match=r"must end in \.csv, \.jsonl, \.parquet; after \.csv and \.jsonl"):
        export(result, str(tmp_path / name))


def test_places_that_cannot_hold_the_file_are_refused(tmp_path: Path) -> None:
    result = open_result(str(finished_run(tmp_path / "run", [pa.table({"a": [1]})])))
    with pytest.raises(CappyError, match="lies among the data files of the run"):
        export(result, str(tmp_path / "run" / "rows" / "table.parquet"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CappyError, match="is a folder; give the name of a file"):
        export(result, str(tmp_path / "folder.csv"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CappyError, match="cannot be written"):
        export(result, str(tmp_path / "file" / "table.csv"))


def test_any_file_system_takes_the_file(tmp_path: Path) -> None:
    result = open_result(str(finished_run(tmp_path, [pa.table({"a": [1, None], "b": ["x", ""]})])))
    assert export(result, "memory://exported/table.csv") == 2
    assert fsspec.filesystem("memory").cat_file("/exported/table.csv") == b'"a","b"\n1,"x"\n,""\n'


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = finished_run(tmp_path / "run", [pa.table({"a": [1, 2], "b": [3, 4]})]), tmp_path / "out.jsonl"
    assert cappy("export", folder, file) == 0
    assert capsys.readouterr().out == f"2 rows: {file}\n"
    assert cappy("export", folder, file) == 1
    assert cappy("export", folder, file, "--overwrite") == 0
    assert cappy("export", folder, "memory://x.csv") == 2
    (folder / "manifest.json").unlink()
    assert cappy("export", folder, file, "--overwrite") == 1
    assert "holds an unfinished run" in capsys.readouterr().err
