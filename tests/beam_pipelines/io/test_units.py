"""Reads and units of every format: each row once, in place, whatever the cut; bad rows alone."""

import csv
import gc
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from apache_beam import coders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats import base, delimited, json_lines, parquet
from beam_pipelines.io.formats.base import ReadSpec, compression_of
from beam_pipelines.io.formats.delimited import CSV
from beam_pipelines.io.formats.json_lines import JSON_LINES
from beam_pipelines.io.formats.parquet import PARQUET
from beam_pipelines.io.formats.registry import format_of
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.units import Unit, list_reads, read_units
from schemas import chunks
from schemas.chunks import row_bytes
from schemas.errors import CappyError

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


LINES = ['{"a": 1}', '{"a": 22, "b": "é\\u00e9"}', "{broken", "", "  ", "[1]", '{"a": "x"}']


def units(pattern: str | Path, unit_rows: int = 7, limit: int | None = None, **flags: bool) -> Iterator[Unit]:
    source = open_input([str(pattern)], {}, limit=limit)
    for file in source.files:
        for read in list_reads(file, unit_rows):
            yield from read_units(read, ReadSpec(source.schema, unit_rows, **flags))


def good(found: list[Unit]) -> list[dict[str, Any]]:
    return [row for unit in found for row in unit.rows.to_pylist()]


def bad(found: list[Unit]) -> list[tuple[str, str]]:
    return [
        (f"{unit.file.name}{'@' if 'jsonl' in unit.file.name else '#'}{b.position}", b.reason)
        for unit in found
        for b in unit.bad
    ]


@anywhere
@given(
    rows=st.integers(1, 60),
    group=st.integers(1, 70),
    unit_rows=st.integers(1, 20),
    limit=st.none() | st.integers(1, 70),
)
def test_parquet_units_are_consecutive_rows_of_the_file(
    tmp_path: Path, rows: int, group: int, unit_rows: int, limit: int | None
) -> None:
    pq.write_table(
        pa.table({"n": range(rows), "t": [f"row {i}" for i in range(rows)]}),
        tmp_path / "f.parquet",
        row_group_size=group,
    )
    found = list(units(tmp_path / "f.parquet", unit_rows, limit))
    expected = min(rows, limit or rows)
    assert [row["n"] for row in good(found)] == list(range(expected))
    assert [p for unit in found for p in unit.positions.tolist()] == list(range(expected))
    assert all(unit.rows.num_rows == unit_rows for unit in found[:-1]), "whatever the row groups"
    assert len({unit.name for unit in found}) == len(found)
    assert [unit.name for unit in found] == sorted(unit.name for unit in found)


@anywhere
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=40),
    span=st.integers(1, 60),
    unit_rows=st.integers(1, 9),
    newline=st.sampled_from(["\n", "\r\n"]),
    ends=st.booleans(),
)  # fmt: skip
def test_json_lines_are_read_once_whatever_the_spans(
    tmp_path: Path, lines: list[str], span: int, unit_rows: int, newline: str, ends: bool
) -> None:
    lines = ['{"a": 0, "b": "first"}', *lines]
    data = (newline.join(lines) + newline * ends).encode()
    path = tmp_path / "f.jsonl"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "SPAN_BYTES", span)
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        found = list(units(path, unit_rows))
    kept = [line for line in lines if line.strip()]
    reasons = {"{broken": "broken_json", "[1]": "broken_json", '{"a": "x"}': "does_not_fit"}
    assert [row["a"] for row in good(found)] == [json.loads(line)["a"] for line in kept if line not in reasons]
    assert [reason for _, reason in bad(found)].count("broken_json") == sum(
        reasons.get(k) == "broken_json" for k in kept
    )
    assert len(bad(found)) == sum(line in reasons for line in kept)
    for unit in found:
        for position, row in zip(unit.positions.tolist(), unit.rows.to_pylist(), strict=True):
            assert json.loads(data[position:].split(b"\n")[0])["a"] == row["a"], "the position is the byte of the line"


@anywhere
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=60),
    groups=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    batch_bytes=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    unit_rows=st.integers(1, 20),
)
def test_parquet_units_depend_on_the_rows_alone(
    tmp_path: Path, lengths: list[int], groups: tuple[int, int], batch_bytes: tuple[int, int], unit_rows: int
) -> None:
    limit, found = 1000, []
    rows = [{"t": "x" * n, "l": [str(n)] * (n % 5) if n % 3 else None} for n in lengths]
    table = pa.Table.from_pylist(rows, pa.schema([("t", pa.string()), ("l", pa.list_(pa.string()))]))
    for group, batch in zip(groups, batch_bytes, strict=True):
        pq.write_table(table, tmp_path / "f.parquet", row_group_size=group)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parquet, "_BATCH_BYTES", batch)
            for module in (parquet, base):
                patch.setattr(module, "CHUNK_BYTES", limit)
            found.append([(u.positions.tolist(), u.rows.to_pylist()) for u in units(tmp_path / "f.parquet", unit_rows)])
    assert found[0] == found[1]
    assert [row for _, part in found[0] for row in part] == rows
    for positions, _ in found[0]:
        size = row_bytes(table.to_batches()[0])[positions]
        assert size[:-1].sum() < limit
        ends_block = (positions[-1] + 1) % unit_rows == 0 or positions[-1] + 1 == len(rows)
        assert ends_block or size.sum() >= limit


def test_few_parquet_bytes_are_decoded_at_once(tmp_path: Path) -> None:
    """However large a row group is, and however many rows a unit has."""
    count = 3_000
    table = pa.table({"t": [f"{i:06}" * 5_000 for i in range(count)]})
    pq.write_table(table, tmp_path / "f.parquet", use_dictionary=False)
    del table
    gc.collect()
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    for unit in units(tmp_path / "f.parquet", 16_384):
        seen += unit.rows.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
        del unit
    assert seen == count
    assert most < 4 * chunks.CHUNK_BYTES, f"{most:,} bytes held of {count * 30_000:,}"


def compressed(data: bytes, ending: str) -> bytes:
    return {"": lambda d: d, ".gz": gzip.compress, ".zst": zstandard.compress}[ending](data)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("limit", [None, 3])
def test_text_formats_plain_and_compressed(tmp_path: Path, ending: str, limit: int | None) -> None:
    rows = [{"q": f"question {i}, ok?", "n": i, "x": i / 4, "yes": i % 2 == 0} for i in range(20)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows({**row, "yes": str(row["yes"]).lower()} for row in rows)
    (tmp_path / f"a.csv{ending}").write_bytes(compressed(buffer.getvalue().encode(), ending))
    (tmp_path / f"b.jsonl{ending}").write_bytes(compressed("\n".join(map(json.dumps, rows)).encode(), ending))
    for name in ("a.csv", "b.jsonl"):
        assert good(list(units(tmp_path / f"{name}{ending}", limit=limit))) == rows[:limit]


def test_csv_fields_that_are_not_what_they_seem(tmp_path: Path) -> None:
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


def test_an_empty_csv_column_is_of_any_type(tmp_path: Path) -> None:
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


def test_json_rows_fail_alone(tmp_path: Path) -> None:
    huge = json.dumps({"a": "x" * (chunks.CHUNK_BYTES + 10), "n": 0}).encode()
    lines = [
        b'{"a": "one", "n": 1}',
        b'{"a": "two"',
        b"\xff\xfe",
        huge,
        b'{"a": ["three"], "n": 3}',
        b'{"a": "f", "n": 2.5}',
    ]
    lines += [
        b'{"a": "\\ud800", "n": 4}',
        b'{"n": 99999999999999999999}',
        b'{"a": null, "n": null}',
        b'{"a": "z", "c": 1}',
    ]
    lines += [b"[" * 100_000, b'{"a": "last", "n": 7}']
    (tmp_path / "f.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        found = list(units(tmp_path / "f.jsonl", exact=True))
    assert [row["a"] for row in good(found)] == ["one", None, "last"]
    reasons = [reason for _, reason in bad(found)]
    assert reasons[:5] == ["broken_json", "invalid_utf8", "row_too_large", "does_not_fit", "does_not_fit"]
    assert reasons[5:] == ["invalid_utf8", "does_not_fit", "does_not_fit", "broken_json"]
    assert all(len(b.detail) < 2000 for unit in found for b in unit.bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        projected = list(units(tmp_path / "f.jsonl", exact=False))
    assert [row["a"] for row in good(projected)] == ["one", None, "z", "last"]


def test_arrow_would_have_lost_something(tmp_path: Path) -> None:
    """Values that Arrow cuts: a float to an integer, a text to its characters, a struct to the fields known."""
    first = {"n": 1, "l": ["a"], "s": {"k": 1}}
    others = [{"n": 1.5, "l": [], "s": None}, {"n": 1, "l": "ab", "s": None}, {"n": 1, "l": [], "s": {"k": 1, "z": 2}}]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, [first, *others])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        found = list(units(tmp_path / "f.jsonl"))
    assert good(found) == [first]
    assert [reason for _, reason in bad(found)] == ["does_not_fit"] * 3


def test_parquet_rows_with_invalid_utf8_or_too_large_fail_alone(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff\xfe", b"x" * (chunks.CHUNK_BYTES + 1), b"b"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 4, texts.buffers())
    pq.write_table(pa.table({"t": broken}), tmp_path / "f.parquet")
    found = list(units(tmp_path / "f.parquet", 100))
    assert [row["t"] for row in good(found)] == ["a", "b"]
    assert sorted(bad(found)) == [("f.parquet#1", "invalid_utf8"), ("f.parquet#2", "row_too_large")]


def test_a_damaged_row_group_loses_its_rows_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    table = pa.table({"t": [f"text number {i}" for i in range(300)]})
    pq.write_table(table, path, row_group_size=100, compression="zstd", use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    found = list(units(path, 40))
    assert [row["t"] for row in good(found)] == [f"text number {i}" for i in (*range(100), *range(200, 300))]
    assert bad(found) == [(f"f.parquet#{i}", "unreadable") for i in range(100, 200)]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_that_breaks_off_says_so(tmp_path: Path, ending: str) -> None:
    draw = [json.dumps({"a": f"{i * 7919 % 100_003:x} text {i}"}) for i in range(50_000)]
    data = compressed("\n".join(draw).encode(), ending)
    path = tmp_path / f"f.jsonl{ending}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CappyError, match=r"cannot be read after [\d,]+ rows"):
        open_input([str(path)], {})
    path.write_bytes(data)
    source = open_input([str(path)], {})
    path.write_bytes(data[: len(data) // 2])  # after the launcher has looked at it
    (read,) = list_reads(source.files[0], 1000)
    found = list(read_units(read, ReadSpec(source.schema, 1000)))
    rows = [row["a"] for row in good(found)]
    assert 0 < len(rows) < 50_000
    assert rows == [json.loads(line)["a"] for line in draw[: len(rows)]]
    assert "unreadable" in [reason for _, reason in bad(found)], "the rest is accounted for"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.parquet", b"", "not a whole Parquet file"),
        ("f.parquet", b"PAR1" + b"\0" * 40, "not a whole Parquet file"),
        ("f.jsonl", b"", "holds no row"),
        ("f.jsonl", b"not json\n", "none of its first 1 lines"),
        ("f.jsonl", b'{"a": 1}\n{"a": "x"}\n', "column 'a' mixes types"),
        ("f.jsonl.gz", b"no gzip", "cannot be read"),
        ("f.jsonl.zst", b"no zstd", "cannot be read"),
        ("f.csv", b"", "must name each column once"),
        ("f.csv", b"a,a\n1,2\n", "must name each column once"),
        ("f.csv.gz", b"no gzip", "cannot be read"),
        ("f.txt", b"x", "unknown input format"),
        ("f.parquet.gz", b"x", "unknown input format"),
    ],
)
def test_files_that_are_no_input(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CappyError, match=message) as caught:
        open_input([str(tmp_path / name)], {})
    assert name in str(caught.value)


def test_files_of_one_input_must_agree(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"], "b": pa.array([None], pa.null())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array(["y"], pa.large_string()), "b": [2]}), tmp_path / "2.parquet")
    source = open_input([f"{tmp_path}/*.parquet"], {})
    assert source.schema == pa.schema([("a", pa.string()), ("b", pa.int64())])
    assert good(list(units(tmp_path / "*.parquet"))) == [{"a": "x", "b": None}, {"a": "y", "b": 2}]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "3.parquet")
    with pytest.raises(CappyError, match=r"column 'a' is int64 in .*3\.parquet and string in .*1\.parquet"):
        open_input([f"{tmp_path}/*.parquet"], {})


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ([], ["q"], pa.list_(pa.string())),
        (1, 1.5, pa.float64()),
        ([1], [1.5], pa.list_(pa.float64())),
        ({}, {"a": 1}, pa.struct([("a", pa.int64())])),
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
    with pytest.raises(CappyError, match="column 'n' is float in .* and int64 in"):
        open_input([f"{tmp_path}/*.parquet"], {})
    pq.write_table(pa.table({"n": [0.5]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"n": pa.array([0.25], pa.float32())}), tmp_path / "3.parquet")
    found = list(units(f"{tmp_path}/*.parquet"))
    assert [row["n"] for row in good(found)] == [1.0, 3.0, 0.5, 0.25]
    assert bad(found) == [("1.parquet#1", "does_not_fit")]
    assert found[0].bad[0].excerpt == '{"n": 9007199254740993}'


def test_columns_that_nothing_could_write(tmp_path: Path) -> None:
    deep: list[Any] = ["x"]
    for _ in range(62):
        deep = [deep]
    for name, value, message in (
        ("empty", {}, r"e\.jsonl: column 'empty' is struct<>.*write null for \{\}"),
        ("inside", [{"a": {}}], r"column 'inside' is list<.*objects are empty"),
        ("deep", [deep], r"column 'deep' is nested more than 64 levels deep"),
    ):
        (tmp_path / "e.jsonl").write_text(json.dumps({"t": "x", name: value}))
        with pytest.raises(CappyError, match=message):
            open_input([f"{tmp_path}/e.jsonl"], {})
    (tmp_path / "e.jsonl").write_text(json.dumps({"deep": deep}))
    (unit,) = units(tmp_path / "e.jsonl")
    assert chunks.from_ipc(chunks.to_ipc(unit.rows)).equals(unit.rows)


def test_a_parquet_column_has_a_name_of_its_own(tmp_path: Path) -> None:
    numbers = pa.array([1])
    twice = pa.StructArray.from_arrays([numbers, numbers], ["k", "k"])
    for columns, message in (
        ([numbers, numbers], r"f\.parquet: has 2 columns named 'a'; rename"),
        ([numbers, twice], r"f\.parquet: column 'b' has a duplicate field: k, k; rename"),
    ):
        names = ["a", "b"] if columns[1] is twice else ["a", "a"]
        pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "f.parquet")
        with pytest.raises(CappyError, match=message):
            open_input([f"{tmp_path}/f.parquet"], {})


def test_a_unit_is_encoded_small(tmp_path: Path) -> None:
    """As Beam encodes what passes between two steps that it does not fuse."""
    pq.write_table(pa.table({"t": [f"{i}" * 200 for i in range(1000)]}), tmp_path / "f.parquet")
    coder = coders.registry.get_coder(Unit)
    for unit in units(tmp_path / "f.parquet", 10):
        data = coder.encode(unit)
        assert len(data) < 2_000
        assert coder.decode(data).rows.equals(unit.rows)


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


def test_the_ending_of_the_name_decides_the_format() -> None:
    assert format_of("s3://b/x.parquet") is PARQUET
    assert format_of("x.jsonl.zst") is JSON_LINES and compression_of("x.jsonl.zst") == "zstd"
    assert format_of("x.csv.gz") is CSV and compression_of("x.csv.gz") == "gzip"
    endings = r"\.parquet, \.pq, \.jsonl, \.ndjson, \.csv, or \.jsonl, \.ndjson, \.csv followed by \.gz or \.zst"
    with pytest.raises(CappyError, match=rf"x\.csv\.bz2: unknown input format; .* must end in {endings}$"):
        format_of("x.csv.bz2")


def test_remote_json_lines(remote: dict[str, bytes]) -> None:
    remote["/d/a.jsonl"] = b"".join(b'{"a": %d}\n' % i for i in range(300))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "SPAN_BYTES", 1000)
        found = list(units("remote://host:1/d/*.jsonl"))
    assert [row["a"] for row in good(found)] == list(range(300))
    assert {(unit.file.url, unit.file.name) for unit in found} == {("remote://host:1/d/a.jsonl", "a.jsonl")}
    with pytest.raises(CappyError, match="remote://locked/a.jsonl: cannot be listed: NoCredentials"):
        open_input(["remote://locked/a.jsonl"], {})


def test_a_file_may_match_one_pattern_only(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(CappyError, match=r"s/a\.jsonl: matches two patterns of .*narrower"):
        open_input([f"{tmp_path}/**/*.jsonl", f"{tmp_path}/s/*.jsonl"], {})
