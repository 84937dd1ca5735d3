"""Columns that nobody reads, of any type that Parquet holds: equal in the output of score and rerank."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import UTF_8
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.resolve import Roles
from beam_pipelines.io.units import Unit, list_reads, read_units
from beam_pipelines.jobs.evaluate.columns import evaluated_columns
from beam_pipelines.jobs.evaluate.measure import measure_unit
from beam_pipelines.jobs.rerank.reduction import kept_schema, part_schema, reduce_unit
from beam_pipelines.jobs.rerank.scored_rows import scored_columns
from beam_pipelines.jobs.rerank.selection import select_shard
from beam_pipelines.jobs.score.scoring import ScoreColumns, score_unit
from beam_pipelines.transforms.candidates import GROUP
from beam_pipelines.transforms.shuffle import gather, slice_chunk
from cappy_model.metrics.rouge import RougeL
from schemas.values import python_values
from tests.schemas.arrays import arrays, types

SIZE = 5
ROLES = Roles(text=("instruction", "response", "references"), numbers=("score",))
TEXT = {"instruction": [f"i{n}" for n in range(SIZE)], "response": ["r", "s", "t", "u", "v"]}


class Scorer:
    """Scores each pair by its length."""

    def score_pairs(self, instructions: Sequence[str], responses: Sequence[str], *, on_progress: Any = None) -> Any:
        pairs = list(zip(instructions, responses, strict=True))
        zeros = np.zeros(len(pairs), np.int32)
        return SimpleNamespace(
            scores=np.array([len(a) + len(b) for a, b in pairs], np.float32),
            errors={},
            num_tokens=zeros,
            truncated=zeros.astype(bool),
            work=SimpleNamespace(distinct=len(pairs), tokens=0, padding=0, out_of_memory=0, reused=0),
        )


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Tables of instructions and responses, with other columns of any types, as Arrow reads them from Parquet."""
    kinds = draw(st.lists(types(), min_size=1, max_size=3))
    columns = {f"c{i}": draw(arrays(kind, SIZE)) for i, kind in enumerate(kinds)}
    table = pa.table({**TEXT, **columns, "score": pa.array([1.0, 2.0, 3.0, 4.0, 5.0])})
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink, row_group_size=2)
        return pq.read_table(sink)
    except (pa.ArrowException, OSError):  # no type of Parquet: dictionaries of bytes in lists, seconds with a zone
        assume(False)
        raise


def read(table: pa.Table, folder: str, names: Sequence[str] | None = None) -> tuple[Input, list[Unit]]:
    """Write the rows as two files, and read them as a job does."""
    for number, rows in enumerate((table.slice(0, 3), table.slice(3))):
        pq.write_table(rows, f"{folder}/{number}.parquet", row_group_size=2)
    source = open_input([f"{folder}/*.parquet"], {}, dialect=UTF_8, roles=ROLES)
    assert not source.unusable
    schema = source.schema if names is None else pa.schema([source.schema.field(name) for name in names])
    spec = source.read_spec(schema, 4)
    return source, [unit for file in source.files for part in list_reads(file, spec) for unit in read_units(part, spec)]


def assert_equal(found: pa.Table, table: pa.Table, order: Sequence[int]) -> None:
    """The columns `c*` have the type and the values of the input, row by row."""
    for name in (name for name in table.column_names if name.startswith("c")):
        assert found[name].type.equals(table[name].type), name
        expected = python_values(table[name])
        assert repr(python_values(found[name])) == repr([expected[place] for place in order]), name


@settings(max_examples=60)
@given(tables())
def test_score_leaves_them_as_they_are(table: pa.Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, units = read(table.drop_columns("score"), folder)
    columns = ScoreColumns("instruction", "response", "score")
    results = [score_unit(unit, Scorer(), columns) for unit in units]  # type: ignore[arg-type]
    files = [pq.read_table(io.BytesIO(parquet_bytes(result.rows, result.schema))) for result in results]
    assert not any(result.rejects for result in results)
    assert_equal(pa.concat_tables(files), table, range(SIZE))


@settings(max_examples=60)
@given(tables(), st.integers(1, 2), st.booleans())
def test_rerank_leaves_them_as_they_are(table: pa.Table, shards: int, backwards: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, units = read(table, folder)
    columns = scored_columns(
        source.schema, group=None, instruction="instruction", response="response", score="score", order=None
    )
    slices: list[list[bytes]] = [[] for _ in range(shards)]
    for unit in reversed(units) if backwards else units:
        for chunk in reduce_unit(unit, columns, 1).rows:
            for shard, data in slice_chunk(chunk, GROUP, shards):
                slices[shard].append(data)
    files = []
    for part in slices:
        kept, parts = gather(part, kept_schema(columns), part_schema(columns))
        result = select_shard("shard", kept, parts, columns=columns, top_k=1)
        files.append(pq.read_table(io.BytesIO(parquet_bytes(result.rows, result.schema))))
    found = pa.concat_tables(files)
    assert_equal(found, table, [int(text[1:]) for text in found["instruction"].to_pylist()])


@settings(max_examples=30)
@given(tables())
def test_evaluate_does_not_read_them(table: pa.Table) -> None:
    references = pa.array([[text] for text in TEXT["response"]], pa.large_list(pa.large_string()))
    with tempfile.TemporaryDirectory() as folder:
        source, _ = read(table.append_column("references", references), folder)
        columns = evaluated_columns(
            source.schema,
            task="generation",
            group=None,
            instruction="instruction",
            response="response",
            scores=["score"],
            reference="references",
            label=None,
        )
        _, units = read(table.append_column("references", references), folder, columns.schema.names)
    results = [measure_unit(unit, columns, RougeL()) for unit in units]
    assert sum(batch.num_rows for result in results for batch in result.rows) == SIZE
    assert not any(name.startswith("c") for unit in units for name in unit.rows.schema.names)


def test_a_reject_beside_any_column(tmp_path: Path) -> None:
    kinds = [pa.timestamp("ns"), pa.uuid(), pa.json_(), pa.date32(), pa.list_(pa.float16()), pa.string_view()]
    storage = [
        pa.array([1, None]).cast(kinds[0]),
        pa.array([b"0123456789abcdef", None], pa.uuid()),
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None])),
        pa.array([72_000_000, None], pa.int32()).view(pa.date32()),
        pa.array([[1.5], None], kinds[4]),
        pa.array(["é", None], kinds[5]),
    ]
    columns = {f"c{i}": array for i, array in enumerate(storage)}
    table = pa.table({"instruction": [None, "x"], "response": ["a", "b"], "score": [1.0, 2.0], **columns})
    pq.write_table(table, tmp_path / "f.parquet")
    source = open_input([f"{tmp_path}/f.parquet"], {}, roles=ROLES)
    spec = source.read_spec(source.schema, 4)
    (part,) = list_reads(source.files[0], spec)
    (unit,) = read_units(part, spec)
    roles = {"instruction": "instruction", "response": "response", "score": "score"}
    result = reduce_unit(unit, scored_columns(source.schema, group=None, order=None, **roles), 1)
    (reject,) = result.rejects
    assert reject["excerpt"] == (
        '{"instruction": null, "response": "a", "score": 1.0, "c0": "1970-01-01 00:00:00.000000001", '
        '"c1": "30313233-3435-3637-3839-616263646566", "c2": "{}", "c3": "199099-04-22", "c4": [1.5], "c5": "é"}'
    )
