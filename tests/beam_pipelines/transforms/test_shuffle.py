from functools import partial
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.output import OutputDir
from beam_pipelines.transforms.results import Result
from beam_pipelines.transforms.shuffle import (
    MAX_SHARDS,
    SHARD_BYTES,
    FinishShards,
    GroupIntoShards,
    ReduceUnits,
    gather,
    shard_of,
    shards_for,
    slice_chunk,
    text_keys,
)
from schemas.ids import text_key
from schemas.records import reject
from schemas.stats import Stats
from tests.conftest import rows_of

SCHEMA = pa.schema([("text", pa.string()), ("n", pa.int64())])


def chunk(texts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"text": texts, "n": list(range(len(texts)))}, SCHEMA)


@pytest.mark.parametrize(
    ("size", "shards"), [(0, 1), (1, 1), (SHARD_BYTES, 1), (SHARD_BYTES + 1, 2), (10**15, MAX_SHARDS)]
)
def test_shards_follow_the_size(size: int, shards: int) -> None:
    assert shards_for(size) == shards


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, MAX_SHARDS))
def test_shards_are_ranges_of_keys(keys: list[int], shards: int) -> None:
    found = shard_of(np.array(sorted(keys), dtype=np.uint64), shards)
    assert found.min() >= 0 and found.max() < shards
    assert (np.diff(found) >= 0).all()
    exact = [(key >> 32) * shards >> 32 for key in sorted(keys)]
    assert found.tolist() == exact


def test_shards_are_even() -> None:
    keys = text_keys(pa.array([f"instruction {i}" for i in range(20_000)]))
    counts = np.bincount(shard_of(keys, 10), minlength=10)
    assert counts.min() > 1800 and counts.max() < 2200


@given(st.lists(st.text("abc", max_size=2), max_size=30), st.integers(1, 6))
def test_slices_hold_every_row_once_by_text(texts: list[str], shards: int) -> None:
    found: list[str] = []
    for shard, data in slice_chunk(chunk(texts), "text", shards):
        (rows,) = gather([data], SCHEMA)
        assert all((text_key(text) >> 32) * shards >> 32 == shard for text in rows["text"].to_pylist())
        found += rows["text"].to_pylist()
    assert sorted(found) == sorted(texts)


def test_every_shard_comes_once_even_without_rows() -> None:
    def check(groups: list[tuple[int, list[bytes]]]) -> None:
        assert sorted(shard for shard, _ in groups) == list(range(50))
        rows = [row["n"] for _, slices in groups for chunk in gather(slices, SCHEMA) for row in chunk.to_pylist()]
        assert sorted(rows) == [0, 0, 1, 1, 2, 2]

    with TestPipeline() as root:
        chunks = root | beam.Create([chunk(["x", "y", "z"]), chunk(["z", "x", "y"])])
        assert_that(chunks | GroupIntoShards("text", 50), check)


def test_gather_passes_over_other_schemas() -> None:
    other = pa.RecordBatch.from_pydict({"other": [1]})
    slices = [data for _, data in slice_chunk(chunk(["a"]), "text", 1)]
    assert [chunk.num_rows for chunk in gather([*slices, b""], other.schema, SCHEMA)] == [0, 1]


def reduce_number(number: int, *, rejected: int) -> Result:
    """A chunk of one text for each number, and a reject for `rejected`."""
    stats = Stats()
    stats.counts["numbers",] += 1
    place = {"stage": "s", "reason": "r", "source": "f", "position": f"#{number}"}
    rejects = [reject(**place, detail="", excerpt=None)] if number == rejected else []
    return Result(f"part-{number}", [chunk([f"text {number % 2}"])], SCHEMA, rejects, stats)


def finish_texts(name: str, texts: pa.RecordBatch, *, factor: int) -> Result:
    stats = Stats()
    stats.counts["rows",] += texts.num_rows * factor
    return Result(name, [texts], SCHEMA, [], stats)


def test_units_are_reduced_and_shards_finished(tmp_path: Path) -> None:
    output = OutputDir(str(tmp_path))

    def check(all_stats: list[Stats]) -> None:
        merged = Stats()
        for stats in all_stats:
            merged.add(stats)
        assert merged.counts["numbers",] == 5
        assert merged.counts["rows",] == 10
        assert merged.under("rejects") == {"s": {"r": 1}}
        paths = sorted(entry.path for entry in merged.files)
        assert paths == [*(f"part/shard-{n:05d}-of-00003.parquet" for n in range(3)), "rejects/part-3.parquet"]
        assert [row["n"] for row in rows_of(tmp_path / "part")] == [0] * 5
        assert [row["position"] for row in rows_of(tmp_path / "rejects")] == ["#3"]

    with TestPipeline() as root:
        units = root | beam.Create(range(5))
        chunks, reduced = units | ReduceUnits(partial(reduce_number, rejected=3), output)
        finish = FinishShards(partial(finish_texts, factor=2), [SCHEMA], 3, output, "part")
        finished = chunks | GroupIntoShards("text", 3) | finish
        assert_that((reduced, finished) | beam.Flatten(), check)
