"""CSV: fields become values only if they can be written back unchanged; bad rows fail alone."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from beam_pipelines.io.formats import delimited
from beam_pipelines.io.inputs import open_input
from tests.beam_pipelines.io.reading import bad, good, units


def test_leading_zeros_and_line_breaks_are_text(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text('id,text,n\n007,"two\nlines, ""quoted""",1\n008,,\n')
    assert good(list(units(tmp_path / "f.csv"))) == [
        {"id": "007", "text": 'two\nlines, "quoted"', "n": 1},
        {"id": "008", "text": "", "n": None},
    ]


@pytest.mark.parametrize(
    ("first", "fitting", "others"),
    [
        ("1", ["-2", "0", ""], ["007", "1_000", " 12 ", "+5", "٣", "nan", "1.5", "-0", "9" * 19, "true"]),
        ("1.5", ["-2", "1e3", ""], ["007.5", "1_0.5", " 1.5", "+5", "٣.5", "nan", "inf", "1e999", "9" * 18, "x"]),
        ("true", ["False", ""], ["TRUE", "1", "yes"]),
    ],
)
def test_a_csv_field_is_a_value_only_where_it_reads_back_the_same(
    tmp_path: Path, first: str, fitting: list[str], others: list[str]
) -> None:
    rows = [first, *fitting, *others]
    (tmp_path / "f.csv").write_text("t,v\n" + "".join(f"x,{text}\n" for text in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "HEAD_ROWS", 1)
        found = list(units(tmp_path / "f.csv", 100))
    assert [row["v"] for row in good(found)] == [json.loads(text.lower() or "null") for text in [first, *fitting]]
    assert bad(found) == [(f"f.csv#{i}", "does_not_fit") for i in range(len(fitting) + 1, len(rows))]
    assert {row["v"] for row in good(list(units(tmp_path / "f.csv")))} == set(rows), "text, where all of them are seen"


def test_an_empty_csv_column_takes_the_type_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("n,t,m\n,,1\n")
    (tmp_path / "2.csv").write_text("n,t,m\n5,,\n")
    expected = pa.schema([("n", pa.int64()), ("t", pa.string()), ("m", pa.int64())])
    assert open_input([f"{tmp_path}/*.csv"], {}).schema == expected
    assert good(list(units(f"{tmp_path}/*.csv"))) == [{"n": None, "t": "", "m": 1}, {"n": 5, "t": "", "m": None}]


def test_csv_rows_fail_alone(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b'a,n\nx,1\nx,1,extra\ny,2\n\xff\xfe,3\nz,4\n"q"q,5\nlast,6\n')
    found = list(units(tmp_path / "f.csv"))
    assert [row["a"] for row in good(found)] == ["x", "y", "z", "last"]
    assert bad(found) == [("f.csv#1", "broken_csv"), ("f.csv#3", "invalid_utf8"), ("f.csv#5", "broken_csv")]
