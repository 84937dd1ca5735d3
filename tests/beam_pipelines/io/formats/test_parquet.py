"""Parquet: units are consecutive rows, independent of row groups; damage costs only the rows it hits."""

import gc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats import base, parquet
from schemas import chunks
from schemas.chunks import row_bytes
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
