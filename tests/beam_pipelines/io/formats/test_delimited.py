"""CSV and TSV: what Python's csv writes is read as it was; bad rows and bad columns fail alone."""

import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats import delimited
from beam_pipelines.io.formats.base import Dialect
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.resolve import Roles
from schemas.errors import CappyError
from tests.beam_pipelines.io.reading import bad, good, units

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

CELLS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["", '"', "a;b", "a\tb", "a,b", 'x"y', '""', "\n", "\r", "\r\n", "3.50", "007", "1e3", "true", "null", "\x00", " "]
)


@anywhere
@given(data=st.data())
def test_what_csv_writes_gives_back_its_cells(tmp_path: Path, data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=columns, max_size=columns), max_size=8))
    delimiter = data.draw(st.sampled_from(",;\t|"))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    end = data.draw(st.sampled_from(["\r\n", "\n", "\r"]))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=end)
    names = [f"column {i}" for i in range(columns)]
    writer.writerows([names, *rows])
    text = buffer.getvalue()
    # Python 3.11 leaves CR unquoted if lines end in LF, and LF if they end in CR: its own reader then sees other rows.
    expected = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[1:]
    (tmp_path / "f.csv").write_bytes(text.encode())
    roles = Roles(text_columns=names)
    found = list(units(tmp_path / "f.csv", dialect=Dialect(delimiter), roles=roles))
    if all(len(row) == columns for row in expected):
        assert [list(row.values()) for row in good(found)] == expected
        assert not bad(found)
    if quoting != csv.QUOTE_MINIMAL or end == "\r\n":
        assert [list(row.values()) for row in good(found)] == rows


def test_cells_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text('id,text,n,price\n007,"two\nlines, ""quoted""",1,3.50\n008,,,42\n')
    assert good(list(units(tmp_path / "f.csv"))) == [
        {"id": "007", "text": 'two\nlines, "quoted"', "n": 1, "price": "3.50"},
        {"id": "008", "text": "", "n": None, "price": "42"},
    ]


def test_cells_of_another_type_behind_the_head(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("t,v\nx,1\nx,2\nx,007\nx,n/a\nx,3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "HEAD_ROWS", 1)
        found = list(units(tmp_path / "f.csv", 100))
    assert [row["v"] for row in good(found)] == [1, 2, 3]
    assert bad(found) == [("f.csv#2", "does_not_fit"), ("f.csv#3", "does_not_fit")]
    assert found[0].bad[1].detail == (
        "column 'v': 'n/a' does not fit its type, int64; if the job only carries it, "
        "--text-columns v keeps the text of the file"
    )
    assert found[0].bad[1].excerpt == "x,n/a"


def test_numbers_and_templates_of_csv(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("t,label,score\nx,0.0,3.50\ny,1.0,true\nz,,1e3\nz,,7\n")
    found = list(units(tmp_path / "f.csv", roles=Roles(numbers=["label", "score"])))
    assert [(row["label"], row["score"]) for row in good(found)] == [(0.0, 3.5), (None, 1000.0), (None, 7.0)]
    assert bad(found) == [("f.csv#1", "does_not_fit")]
    found = list(units(tmp_path / "f.csv", roles=Roles(templates=True)))
    assert [(row["label"], row["score"]) for row in good(found)] == [
        ("0.0", "3.50"),
        ("1.0", "true"),
        (None, "1e3"),
        (None, "7"),
    ]


def test_an_empty_csv_column_takes_the_type_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("n,t,m\n,,1\n")
    (tmp_path / "2.csv").write_text("n,t,m\n5,,\n")
    expected = pa.schema([("n", pa.int64()), ("t", pa.string()), ("m", pa.int64())])
    assert open_input([f"{tmp_path}/*.csv"], {}).schema == expected
    assert good(list(units(f"{tmp_path}/*.csv"))) == [{"n": None, "t": "", "m": 1}, {"n": 5, "t": "", "m": None}]


def test_csv_rows_fail_alone(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b'\n\na,n\nx,1\nx,1,extra\n\ny,2\n\xff\xfe,3\nz"z,4\n"q"q,5\n"r\ns"s,6\nlast,7\n')
    found = list(units(tmp_path / "f.csv", 100))
    assert [row["a"] for row in good(found)] == ["x", "y", 'z"z', "last"]
    assert bad(found) == [
        ("f.csv#1", "broken_csv"),
        ("f.csv#3", "invalid_utf8"),
        ("f.csv#5", "broken_csv"),
        ("f.csv#6", "broken_csv"),
    ]
    assert "takes in 1 more lines" in found[0].bad[3].detail
    assert "--encoding" in found[0].bad[1].detail


def test_columns_without_a_name_and_with_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(",Unnamed: 0,a,a,b,\n0,1,2,3,4,\n")
    source = open_input([str(tmp_path / "f.csv")], {})
    assert source.schema.names == ["Unnamed: 0.1", "Unnamed: 0", "b", "Unnamed: 5"], "as pandas names them"
    assert good(list(units(tmp_path / "f.csv"))) == [{"Unnamed: 0.1": 0, "Unnamed: 0": 1, "b": 4, "Unnamed: 5": ""}]
    with pytest.raises(CappyError, match=r"f\.csv: has 2 columns named 'a'; rename all but one"):
        source.check_usable(["a"])
    source.check_usable(["b"])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("f.csv", "a;b\n1;2\n", "';'"),
        ("f.csv", "a;b\n1,5;2\n3,5;4\n", "';'"),
        ("f.csv", 'a;b;c\nx;"a;b";1\ny;"say ""z""\nz";2\n', "';'"),
        ("f.csv", "a;b\n", "';'"),
        ("f.csv", "a;price, EUR\n1;2\n3;4\n", "';'"),
        ("f.csv", "a\tb\n1\t2\n", "tab"),
        ("f.csv", "a|b\n1|2\n", r"'\|'"),
        ("f.tsv", "a,b\n1,2\n", ","),
        ("f.csv", "sep=;\na;b\n1;2\n", "';'"),
    ],
)
def test_another_delimiter_is_proposed(tmp_path: Path, name: str, text: str, value: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CappyError, match=f"{name}: .*give --csv-delimiter {value}$"):
        open_input([str(tmp_path / name)], {})


@pytest.mark.parametrize(
    ("name", "text", "delimiter", "rows"),
    [
        ("f.tsv", "a\tb\nx,1\ty\n", None, [{"a": "x,1", "b": "y"}]),
        ("f.TSV.GZ", "a\tb\nx\ty\n", None, [{"a": "x", "b": "y"}]),
        ("f.tsv", "a;b\nx;y\n", ";", [{"a": "x", "b": "y"}]),
        ("f.csv", "a\tb\nx\ty\n", "\t", [{"a": "x", "b": "y"}]),
        ("f.csv", "text\nhello; you\nbye\n", None, [{"text": "hello; you"}, {"text": "bye"}]),
        ("f.csv", '"a, b"\n"x, y"\n', None, [{"a, b": "x, y"}]),
        ("f.csv", "a,b\rx,1\ry,2\r", None, [{"a": "x", "b": 1}, {"a": "y", "b": 2}]),
        ("f.csv", '\ufeff"a",b\r\nx,1\r\n', None, [{"a": "x", "b": 1}]),
    ],
)
def test_delimiters(tmp_path: Path, name: str, text: str, delimiter: str | None, rows: list[dict[str, object]]) -> None:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("GZ") else text.encode())
    assert good(list(units(tmp_path / name, dialect=Dialect(delimiter)))) == rows


@pytest.mark.parametrize("content", [b"", b"\n\r\n"])
def test_a_csv_file_without_lines_has_no_columns(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.csv").write_bytes(content)
    (tmp_path / "2.csv").write_text("a,b\n1,x\n")
    assert good(list(units(f"{tmp_path}/*.csv"))) == [{"a": 1, "b": "x"}]
    with pytest.raises(CappyError, match="holds no rows"):
        open_input([str(tmp_path / "1.csv")], {})


def test_runs_that_read_csv_in_another_way_have_another_fingerprint(tmp_path: Path) -> None:
    for name, text in (("a.csv", "a\n1\n"), ("b.TSV", "a\n1\n"), ("c.jsonl", '{"a": 1}\n')):
        (tmp_path / name).write_text(text)
        (file,) = open_input([str(tmp_path / name)], {}).files
        assert (file.fingerprint_inputs().get("cells") == "as written") is (name != "c.jsonl")


def test_a_quote_that_is_never_closed_is_told(tmp_path: Path) -> None:
    lines = ["a,b"] + [f"{i},x" for i in range(50)]
    lines[20] = '19,"Yes'
    (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        CappyError, match=r"f\.csv: the quote in the row that begins .*Yes.* takes in the 30 lines behind"
    ):
        list(units(tmp_path / "f.csv"))
