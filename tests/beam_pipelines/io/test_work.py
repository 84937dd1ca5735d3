"""Units by work: every row once and in order, none larger than its work but by one row, whatever wrote the file."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import BadRow, ReadSpec, RowBlock, UnitWork, unit_rows_of
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.resolve import Roles
from beam_pipelines.io.work import cut_by_work, work_of_rows
from schemas.chunks import CHUNK_ROWS
from tests.beam_pipelines.io.reading import good, units

TEXTS = st.none() | st.text(max_size=30)
COLUMNS = ("q", "a")
works = st.builds(
    UnitWork,
    bytes=st.integers(1, 200),
    columns=st.just(COLUMNS),
    row_bytes=st.none() | st.integers(1, 40),
    fixed=st.integers(0, 20),
)
anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def size_of(text: str | None) -> int:
    return len((text or "").encode())


def expected(question: str | None, answers: list[str | None], work: UnitWork) -> int:
    most = 10**9 if work.row_bytes is None else work.row_bytes
    return sum(min(most, size_of(question) + size_of(answer)) + work.fixed for answer in answers)


@given(rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=12), work=works, start=st.integers(0, 3))
def test_the_work_of_a_row_is_that_of_its_texts(
    rows: list[tuple[str | None, str | None]], work: UnitWork, start: int
) -> None:
    schema = pa.schema({"q": pa.string(), "a": pa.string()})
    batch = pa.RecordBatch.from_pylist([{"q": q, "a": a} for q, a in rows], schema).slice(start)
    assert work_of_rows(batch, work).tolist() == [expected(q, [a], work) for q, a in rows[start:]]


@given(rows=st.lists(st.tuples(TEXTS, st.none() | st.lists(TEXTS, max_size=3)), max_size=8), work=works)
def test_the_work_of_a_row_with_choices_is_that_of_its_pairs(
    rows: list[tuple[str | None, list[str | None] | None]], work: UnitWork
) -> None:
    schema = pa.schema({"q": pa.string(), "a": pa.list_(pa.string())})
    batch = pa.RecordBatch.from_pylist([{"q": q, "a": a} for q, a in rows], schema)
    assert work_of_rows(batch, work).tolist() == [expected(q, a or [], work) for q, a in rows]


@given(
    kinds=st.lists(st.one_of(st.just(None), st.integers(0, 300)), max_size=30),
    work=works,
    step=st.integers(1, 3),
)
def test_blocks_are_cut_evenly(kinds: list[int | None], work: UnitWork, step: int) -> None:
    """A kind of None is a bad row, any other is the length of the text of a good one."""
    positions = [step * row for row, kind in enumerate(kinds) if kind is not None]
    texts = [{"q": "x" * kind, "a": ""} for kind in kinds if kind is not None]
    bad = [BadRow(step * row, "broken", "", None) for row, kind in enumerate(kinds) if kind is None]
    batch = pa.RecordBatch.from_pylist(texts, pa.schema({"q": pa.string(), "a": pa.string()}))
    found = list(cut_by_work([RowBlock(np.array(positions, np.int64), batch, bad)], work))
    assert [p for block in found for p in block.positions.tolist()] == positions
    assert [row for block in found for row in block.rows.to_pylist()] == texts
    assert [row for block in found for row in block.bad] == bad
    for before, after in pairwise(found):
        assert all(row.position < after.positions[0] for row in before.bad)
        assert all(row.position > before.positions[-1] for row in after.bad)
    sizes = [work_of_rows(block.rows, work) for block in found]
    total, largest = sum(size.sum() for size in sizes), max((size.max(initial=0) for size in sizes), default=0)
    parts = max(1, -(-total // work.bytes))
    assert len(found) <= parts
    assert all(size[:-1].sum() <= work.bytes for size in sizes)
    assert all(size.sum() > total / parts - parts - largest for size in sizes) or not total


@anywhere
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    groups=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=st.integers(1, 500),
)
def test_units_of_parquet_do_not_depend_on_row_groups(
    tmp_path: Path, lengths: list[int], groups: tuple[int, int], size: int
) -> None:
    table = pa.table({"q": [f"{i}" for i in range(len(lengths))], "a": ["x" * n for n in lengths]})
    work = UnitWork(size, COLUMNS)
    found = []
    for group in groups:
        pq.write_table(table, tmp_path / "f.parquet", row_group_size=group, use_dictionary=False)
        rows = list(units(tmp_path / "f.parquet", 16, work=work))
        assert good(rows) == table.to_pylist()
        assert all(work_of_rows(unit.rows, work)[:-1].sum() < size for unit in rows)
        found.append(rows)
    if len({unit_rows_of(unit.file, ReadSpec(table.schema, 16, work=work)) for rows in found for unit in rows}) == 1:
        assert [u.positions.tolist() for u in found[0]] == [u.positions.tolist() for u in found[1]]


def test_units_are_even_where_a_dictionary_hides_the_bytes(tmp_path: Path) -> None:
    """Parquet stores a repeated instruction once, so the rows of a chunk have more bytes than the file tells."""
    table = pa.table(
        {"q": [f"question {i // 50} " * 10 for i in range(2_000)], "a": [f"{i:050d}" for i in range(2_000)]}
    )
    pq.write_table(table, tmp_path / "f.parquet", use_dictionary=True)
    work = UnitWork(20_000, COLUMNS)
    found = list(units(tmp_path / "f.parquet", CHUNK_ROWS, work=work, roles=Roles(text=COLUMNS)))
    rows = unit_rows_of(found[0].file, ReadSpec(table.schema, CHUNK_ROWS, work=work))
    sizes = [len(unit.positions) for unit in found]
    assert sum(sizes) == 2_000 and max(sizes) < rows, "the file understates the work"
    assert min(sizes) > 0.7 * max(sizes), sizes


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_units_follow_from_the_file_alone(tmp_path: Path, ending: str) -> None:
    def write(name: str, length: int) -> None:
        rows = [{"q": f"question {i}", "a": "x" * length, "carried": "y" * 1000} for i in range(64)]
        path = tmp_path / f"{name}.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, use_dictionary=False, compression="none")
        elif ending == "csv":
            path.write_text("q,a,carried\n" + "".join(f"{r['q']},{r['a']},{r['carried']}\n" for r in rows))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read(pattern: str) -> dict[str, list[list[int]]]:
        found: dict[str, list[list[int]]] = {}
        for unit in units(tmp_path / pattern, CHUNK_ROWS, work=UnitWork(2_000, COLUMNS), roles=Roles(text=COLUMNS)):
            found.setdefault(unit.file.name, []).append(unit.positions.tolist())
        return found

    write("b", 100)
    alone = read(f"*.{ending}")
    write("a", 900)
    write("c", 0)
    together = read(f"*.{ending}")
    assert together[f"b.{ending}"] == alone[f"b.{ending}"]
    counts = [max(map(len, together[f"{name}.{ending}"])) for name in "abc"]
    # The carried column counts only for the spans of JSON Lines: of eight rows, about eight units with all its bytes.
    assert counts == {"parquet": [2, 16, 64], "csv": [3, 17, 64], "jsonl": [3, 9, 9]}[ending]


def test_a_limit_scales_the_bytes(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"q": ["x" * 50] * 100, "a": ["y" * 50] * 100}), tmp_path / "f.parquet", use_dictionary=False
    )
    whole = open_input([f"{tmp_path}/f.parquet"], {}, roles=Roles(text=COLUMNS))
    part = open_input([f"{tmp_path}/f.parquet"], {}, roles=Roles(text=COLUMNS), limit=10)
    spec = whole.read_spec(whole.schema, CHUNK_ROWS, work=UnitWork(1_000, COLUMNS))
    assert part.files[0].bytes == whole.files[0].bytes // 10
    assert unit_rows_of(part.files[0], spec) == unit_rows_of(whole.files[0], spec) == 8
