"""Parquet: units are consecutive rows, independent of row groups; damage costs only the rows it hits."""

import gc
import io
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.columns import UnreadableFile, layouts_in
from beam_pipelines.io.formats import base, parquet
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.resolve import Roles
from beam_pipelines.io.units import list_reads, read_units
from schemas import chunks
from schemas.chunks import row_bytes
from schemas.values import python_values
from tests.beam_pipelines.io.reading import bad, good, units

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


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


def test_columns_that_cannot_be_read_stop_only_who_reads_them(tmp_path: Path) -> None:
    numbers = pa.array([1, 2])
    twice = pa.StructArray.from_arrays([numbers, numbers], ["k", "k"])
    table = pa.Table.from_arrays([numbers, numbers, twice, numbers], ["a", "a", "b", "c"])
    pq.write_table(table, tmp_path / "f.parquet")
    source = open_input([f"{tmp_path}/f.parquet"], {})
    assert source.schema.names == ["c"]
    with pytest.raises(UnreadableFile, match=r"f\.parquet: has 2 columns named 'a'; rename all but one"):
        source.check_usable(["a"])
    with pytest.raises(UnreadableFile, match=r"f\.parquet: column 'b' has a duplicate field: k, k; rename one"):
        source.check_usable(["b", "c"])
    assert good(list(units(tmp_path / "f.parquet"))) == [{"c": 1}, {"c": 2}]


@pytest.mark.parametrize(
    ("one", "other", "expected", "rejected"),
    [
        (pa.array([1, 2], pa.int32()), pa.array([2**40]), [1, 2, 2**40], 0),
        (pa.array([1.5], pa.float32()), pa.array([1, 2**53 + 1]), [1.5, 1.0], 1),
        (
            pa.array([{"a": 1}], pa.struct({"a": pa.int32()})),
            pa.array([{"a": 2**40, "b": "x"}]),
            [{"a": 1, "b": None}, {"a": 2**40, "b": "x"}],
            0,
        ),
        (
            pa.array([[1]], pa.list_(pa.int8(), 1)),
            pa.array([[1, 2], None], pa.large_list(pa.int64())),
            [[1], [1, 2], None],
            0,
        ),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"], pa.large_string()), ["a", "b"], 0),
        (pa.array([b"ab"], pa.binary(2)), pa.array([b"abc"]), [b"ab", b"abc"], 0),
        (pa.array([0], pa.timestamp("ns")), pa.array([72_000_000], pa.date32()), [datetime(1970, 1, 1)], 1),
        (
            pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())),
            pa.array([[("k", 300)]], pa.map_(pa.string(), pa.int64())),
            [[("k", 1)], [("k", 300)]],
            0,
        ),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), None, [[1, 2], None], 0),
    ],
)
def test_types_of_two_files_widen(
    tmp_path: Path, one: pa.Array, other: pa.Array | None, expected: list[object], rejected: int
) -> None:
    pq.write_table(pa.table({"v": one}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"v": other} if other is not None else {"w": [1]}), tmp_path / "2.parquet")
    found = list(units(f"{tmp_path}/*.parquet"))
    values = [value for unit in found for value in python_values(unit.rows["v"])]
    assert values == expected
    assert [reason for _, reason in bad(found)] == ["does_not_fit"] * rejected
    written = pq.read_table(io.BytesIO(parquet_bytes([unit.rows for unit in found], found[0].rows.schema)))
    assert written.num_rows == len(expected), "and Arrow can read what is written of them"


def test_bytes_numbers_and_dictionaries_are_text_where_text_is_wanted(tmp_path: Path) -> None:
    columns = {
        "bytes": pa.array([b"caf\xc3\xa9", b"\xff", None]),
        "coded": pa.array([b"a", b"b", None]).dictionary_encode(),
        "whole": pa.array([1, 2, None], pa.uint8()),
        "truth": pa.array([True, False, None]),
        "lists": pa.array([[b"x", None], [], None], pa.large_list(pa.large_binary())),
        "exact": pa.array([Decimal("3.50"), None, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    source = open_input([f"{tmp_path}/f.parquet"], {}, roles=Roles(text=tuple(columns)))
    assert source.schema.types == [pa.string()] * 4 + [pa.list_(pa.string()), pa.string()]
    spec = source.read_spec(source.schema, 9)
    (part,) = list_reads(source.files[0], spec)
    (unit,) = read_units(part, spec)
    assert [(row.position, row.reason) for row in unit.bad] == [(1, "invalid_utf8")]
    assert unit.rows.to_pylist() == [
        {"bytes": "café", "coded": "a", "whole": "1", "truth": "true", "lists": ["x", None], "exact": "3.50"},
        dict.fromkeys(columns),
    ]


def test_layouts_of_text_and_lists_are_known(tmp_path: Path) -> None:
    columns = {
        "plain": pa.array([["a"]]),
        "large": pa.array(["a"], pa.large_string()),
        "fixed": pa.array([[1]], pa.list_(pa.int8(), 1)),
        "coded": pa.array([["a"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    }
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    assert layouts_in(open_input([f"{tmp_path}/f.parquet"], {}).schema) == {
        "large": "large_string",
        "fixed": "fixed_size_list<item: int8>[1]",
        "coded": "list<item: dictionary<values=string, indices=int32, ordered=0>>",
    }
