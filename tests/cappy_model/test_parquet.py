"""Row groups of Parquet: which rows are read, in which batches, and from where."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cappy_model.parquet import UndecodableGroup, open_parquet, read_group


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = pa.table({"number": range(100), "text": [f"text {number}" for number in range(100)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=50, compression="none", use_dictionary=False)
    return tmp_path / "rows.parquet"


@pytest.mark.parametrize("rows", [range(50), range(1), range(7, 8), range(16, 32), range(10, 47), range(49, 50)])
def test_the_rows_of_a_range_in_order(path: Path, rows: range) -> None:
    with path.open("rb") as file, open_parquet(file) as parquet:
        batches = list(read_group(parquet, 1, rows, columns=["number", "missing"], batch_rows=16))
    assert [50 + row for row in rows] == [row for _, batch in batches for row in batch.column("number").to_pylist()]
    assert [start + 50 for start, _ in batches] == [batch.column("number")[0].as_py() for _, batch in batches]
    assert max(batch.num_rows for _, batch in batches) <= 16 and batches[0][1].schema.names == ["number"]


def test_a_file_is_read_alike_wherever_it_is(path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/parquet/rows.parquet", path.read_bytes())
    found = []
    for url in (str(path), "memory://parquet/rows.parquet"):
        with fsspec.open(url, "rb") as file, open_parquet(file) as parquet:
            found.append([batch for _, batch in read_group(parquet, 0, range(50), columns=["text"], batch_rows=20)])
    assert found[0] == found[1]


def test_text_is_validated_on_request(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"text 77", b"text \xff7"))
    with path.open("rb") as file, open_parquet(file) as parquet:
        assert len(list(read_group(parquet, 1, range(50), columns=["text"], batch_rows=10))) == 5
        valid = read_group(parquet, 1, range(50), columns=["text"], batch_rows=10, validate=True)
        assert [start for start, _ in (next(valid), next(valid))] == [0, 10]
        with pytest.raises(UndecodableGroup, match="row group 1 cannot be decoded: .*Invalid UTF8"):
            next(valid)
