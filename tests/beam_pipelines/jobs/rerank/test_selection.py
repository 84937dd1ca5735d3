"""The best of each group, against a plain group-by in pandas, however the rows are cut."""

import random
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.rerank.reduction import kept_schema, part_schema, reduce_unit
from beam_pipelines.jobs.rerank.scored_rows import ScoredColumns, scored_columns
from beam_pipelines.jobs.rerank.selection import select_shard, size_bucket
from beam_pipelines.transforms.candidates import GROUP, best_of, over_groups
from beam_pipelines.transforms.shuffle import FinishShards, GroupIntoShards, ReduceUnits, gather, slice_chunk
from schemas.ids import digest, text_key
from schemas.stats import BINS_PER_SCORE, SCORE_BINS, Stats

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("instruction", pa.string()),
        ("response", pa.string()),
        ("score", pa.float32()),
        ("turn", pa.string()),
        ("generator", pa.string()),
    ]
)
LISTED = SCHEMA.set(2, pa.field("response", pa.list_(pa.string()))).set(3, pa.field("score", pa.list_(pa.float32())))
Rows = list[dict[str, Any]]


def columns_of(schema: pa.Schema, group: str | None = "id", order: str | None = None) -> ScoredColumns:
    return scored_columns(
        schema, group=group, instruction="instruction", response="response", score="score", order=order
    )


def units_of(files: Sequence[Rows], schema: pa.Schema, sizes: Iterator[int]) -> Iterator[Unit]:
    """Files of rows as units of this many rows; what is missing in a row is null."""
    for number, rows in enumerate(files):
        file = InputFile(number, 0, f"/{number}.parquet", f"{number}.parquet", 1, "", len(rows), None)
        start = 0
        while start < len(rows):
            part = rows[start : start + next(sizes)]
            batch = pa.RecordBatch.from_pylist(part, schema)
            yield Unit(file, start, 0, np.arange(start, start + len(part)), batch, [])
            start += len(part)


class Outcome(NamedTuple):
    rows: pa.Table
    stats: Stats
    rejects: set[tuple[str, str, str]]


def outcome_of(units: Sequence[Unit], columns: ScoredColumns, top_k: int, shards: int, seed: int) -> Outcome:
    """Everything that the job does with units, their slices arriving in an order of chance."""
    reduced = [reduce_unit(unit, columns, top_k) for unit in units]
    slices = [s for unit in reduced for chunk in unit.rows for s in slice_chunk(chunk, GROUP, shards)]
    random.Random(seed).shuffle(slices)
    all_stats, rejects, batches = (
        [unit.stats for unit in reduced],
        [row for unit in reduced for row in unit.rejects],
        [],
    )
    for shard in range(shards):
        data = [data for number, data in slices if number == shard]
        chunks = gather(data, kept_schema(columns), part_schema(columns))
        selected = select_shard(f"shard-{shard}", *chunks, columns=columns, top_k=top_k)
        all_stats.append(selected.stats)
        rejects += selected.rejects
        batches += selected.rows
    places = {(str(row["source"]), str(row["position"]), str(row["reason"])) for row in rejects}
    return Outcome(pa.Table.from_batches(batches), reduce(Stats.add, all_stats, Stats()), places)


def by_pandas(
    files: Sequence[Rows], group: str, order: str | None, top_k: int
) -> dict[tuple[Any, int], tuple[str, int]]:
    """(group, rank) -> (response, candidates), by sorting everything."""
    frame = pd.DataFrame([row for rows in files for row in rows], columns=SCHEMA.names)
    frame["place"] = range(len(frame))
    frame = frame[
        frame["score"].notna() & frame["response"].notna() & frame["instruction"].notna() & frame[group].notna()
    ]
    frame = frame[frame.groupby(group)["instruction"].transform("nunique") == 1]
    keys, ascending = (["score", order, "place"], [False, True, True]) if order else (["score", "place"], [False, True])
    frame = frame.sort_values(keys, ascending=ascending, na_position="last")
    sizes = frame.groupby(group)["place"].transform("size")
    ranks = frame.groupby(group).cumcount() + 1
    found = zip(frame[group], ranks, frame["response"], sizes, strict=True)
    return {(key, rank): (response, size) for key, rank, response, size in found if rank <= top_k}


@st.composite
def some_files(draw: st.DrawFn) -> list[Rows]:
    """Candidates with many ties, some without a score, an id or an instruction; a group may mix instructions."""
    row = st.fixed_dictionaries(
        {
            "id": st.sampled_from([0, 1, 2, 3, None]),
            "score": st.sampled_from([0.0, 0.5, 0.5, -1.25, 2.0, float("inf"), float("-inf"), None]),
            "turn": st.sampled_from(["a", "b", "", None]),
            "generator": st.sampled_from(["x", "y", None]),
            "wording": st.sampled_from([0] * 30 + [1, None]),
        }
    )
    files = draw(st.lists(st.lists(row, min_size=1, max_size=20), min_size=1, max_size=3))
    for number, rows in enumerate(files):
        for index, candidate in enumerate(rows):
            wording = candidate.pop("wording")
            candidate["instruction"] = None if wording is None else f"task {candidate['id']} wording {wording}"
            candidate["response"] = f"file {number} row {index}"
    return files


CUTS = st.lists(st.integers(1, 8), min_size=70, max_size=70)


@given(
    some_files(),
    CUTS,
    st.sampled_from(["id", "instruction"]),
    st.sampled_from([None, "turn"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(),
)
def test_equals_a_group_by_of_everything(
    files: list[Rows], cuts: list[int], group: str, order: str | None, top_k: int, shards: int, seed: int
) -> None:
    columns = columns_of(SCHEMA, group, order)
    found = outcome_of([*units_of(files, SCHEMA, iter(cuts))], columns, top_k, shards, seed)
    rows = found.rows.to_pylist()
    expected = by_pandas(files, group, order, top_k)
    assert {(row[group], row["rank"]): (row["response"], row["num_candidates"]) for row in rows} == expected
    assert len(rows) == len(expected)
    origin = {row["response"]: row for candidates in files for row in candidates}
    for row in rows:
        assert row["instruction_id"] == digest(row["instruction"])
        assert {name: row[name] for name in SCHEMA.names} == origin[row["response"]]
    keys = [(text_key(digest(str(row[group]))), row["rank"]) for row in rows]
    assert keys == sorted(keys)
    counts = found.stats.counts
    assert counts["candidates", "read"] == sum(map(len, files))
    assert counts["candidates", "read"] == counts["candidates", "compared"] + counts["candidates", "rejected"]
    assert counts["selected",] == len(rows) and counts["groups",] == len({row[group] for row in rows})


@settings(max_examples=50)
@given(some_files(), CUTS, CUTS, st.integers(1, 4), st.integers())
def test_is_the_same_however_rows_are_cut(
    files: list[Rows], cuts: list[int], others: list[int], top_k: int, seed: int
) -> None:
    columns = columns_of(SCHEMA, order="turn")
    one = outcome_of([*units_of(files, SCHEMA, iter(cuts))], columns, top_k, 2, 0)
    other = outcome_of([*units_of(files, SCHEMA, iter(others))], columns, top_k, 2, seed)
    assert one == other


def as_lists(rows: Rows) -> Rows:
    """Consecutive candidates that differ in response and score alone, as one row of lists."""
    same = ("id", "instruction", "turn", "generator")
    lists = []
    for key, run in groupby(rows, key=lambda row: tuple(row[name] for name in same)):
        members = list(run)
        values = {name: [row[name] for row in members] for name in ("response", "score")}
        lists.append({**dict(zip(same, key, strict=True)), **values})
    return lists


@settings(max_examples=50)
@given(some_files(), CUTS, st.sampled_from(["id", "instruction"]), st.integers(1, 4))
def test_lists_give_what_rows_give(files: list[Rows], cuts: list[int], group: str, top_k: int) -> None:
    files = [sorted(rows, key=lambda row: (row["id"] is None, row["id"], str(row["turn"]))) for rows in files]
    by_row = outcome_of([*units_of(files, SCHEMA, iter(cuts))], columns_of(SCHEMA, group), top_k, 2, 0)
    listed = [as_lists(rows) for rows in files]
    by_list = outcome_of([*units_of(listed, LISTED, iter(cuts))], columns_of(LISTED, group), top_k, 2, 1)
    assert by_list.rows == by_row.rows
    for key in (("candidates", "read"), ("candidates", "rejected"), ("candidates", "unscored"), ("groups",)):
        assert by_list.stats.counts[key] == by_row.stats.counts[key]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0]), st.integers(0, 2))), st.integers(1, 3))
def test_best_of(rows: list[tuple[int, float, int]], limit: int) -> None:
    group, score, place = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.empty(0, int),) * 3
    ordered = sorted(range(len(rows)), key=lambda i: (rows[i][0], -rows[i][1], rows[i][2]))
    expected = [i for _, members in groupby(ordered, key=lambda i: rows[i][0]) for i in list(members)[:limit]]
    assert best_of(group, score, [place], limit).tolist() == expected


def test_over_groups() -> None:
    values, group = np.array([5, 1, 7, 2]), np.array([3, 0, 3, 0])
    assert over_groups(np.add, values, group).tolist() == [3, 12]
    assert over_groups(np.minimum, values, group).tolist() == [1, 5]


def test_size_buckets_double() -> None:
    sizes = [1, 2, 3, 4, 5, 8, 9, 10_000]
    assert size_bucket(np.array(sizes)).tolist() == [0, 1, 2, 2, 3, 3, 4, 14]


def selected_counts(rows: Rows) -> Stats:
    return outcome_of([*units_of([rows], SCHEMA, iter([3] * len(rows)))], columns_of(SCHEMA), 1, 1, 0).stats


def candidates(key: int, scores: Sequence[float | None]) -> Rows:
    return [{"id": key, "instruction": f"task {key}", "response": f"{i}", "score": s} for i, s in enumerate(scores)]


def test_gain_is_counted_in_whole_numbers_by_size_of_group() -> None:
    unit = 2**20
    stats = selected_counts(
        [*candidates(0, [0.5]), *candidates(1, [1.0, 2.0, 0.0]), *candidates(2, [None, -1.0, 0.0, 4.0])]
    )
    assert stats.under("gain") == {
        "00": {"groups": 1, "measured": 1, "best": unit // 2, "first": unit // 2, "mean": unit // 2},
        "02": {"groups": 2, "measured": 2, "best": 6 * unit, "first": 0, "mean": 2 * unit},
    }
    assert stats.under("scores", "all") == {"1980": 1, "2000": 2, "2010": 1, "2020": 1, "2040": 1, "2080": 1}
    assert stats.under("scores", "best") == {"2010": 1, "2040": 1, "2080": 1}


def test_groups_with_endless_scores_are_left_out_of_means() -> None:
    stats = selected_counts([*candidates(0, [float("inf"), 1.0]), *candidates(1, [2.0, 1.0])])
    gain = stats.under("gain", "01")
    assert gain == {"groups": 2, "measured": 1, "best": 2 * 2**20, "first": 2 * 2**20, "mean": 3 * 2**19}
    assert stats.under("scores", "best") == {f"{2 * BINS_PER_SCORE + SCORE_BINS // 2}": 1, f"{SCORE_BINS - 1}": 1}
    assert [row["num_candidates"] for _, row in stats.samples["selections"]] == [2]


def test_a_group_of_ten_thousand_over_many_units() -> None:
    rng = np.random.default_rng(0)
    rows = candidates(7, rng.integers(0, 50, 10_000).astype(float).tolist()) + candidates(8, [1.0])
    found = outcome_of([*units_of([rows], SCHEMA, iter([999] * 20))], columns_of(SCHEMA), 3, 2, 0)
    expected = by_pandas([rows], "id", None, 3)
    got = found.rows.to_pylist()
    assert {(row["id"], row["rank"]): (row["response"], row["num_candidates"]) for row in got} == expected
    assert {row["num_candidates"] for row in got} == {10_000, 1}


def test_a_group_of_mixed_instructions_is_one_reject() -> None:
    rows = [*candidates(1, [0.5, 1.5, None]), *candidates(2, [1.0])]
    rows[1]["instruction"] = "another task"
    found = outcome_of([*units_of([rows], SCHEMA, iter([1, 1, 1, 1]))], columns_of(SCHEMA), 2, 1, 0)
    assert found.rejects == {("0.parquet", "#0", "mixed_instructions"), ("0.parquet", "#2", "unscored")}
    assert found.rows["id"].to_pylist() == [2]
    assert found.stats.under("candidates") == {"compared": 1, "read": 4, "rejected": 3, "unscored": 1}


def test_transforms_write_shards_and_rejects(tmp_path: Path) -> None:
    rows = [*candidates(1, [0.5, 1.5, None]), *candidates(2, [1.0, 1.0])]
    columns, output = columns_of(SCHEMA), OutputDir(str(tmp_path))

    def check(all_stats: list[Stats]) -> None:
        total = reduce(Stats.add, all_stats, Stats())
        written = {entry.path: entry.rows for entry in total.files}
        assert written.pop("rejects/part-00000-00002-00000.parquet") == 1
        assert set(written) == {f"shard-{shard:05d}-of-00003.parquet" for shard in range(3)}
        assert sum(written.values()) == total.counts["selected",] == 2

    with TestPipeline() as root:
        units = root | beam.Create([*units_of([rows], SCHEMA, iter([2, 2, 2]))])
        chunks, reduced = units | ReduceUnits(partial(reduce_unit, columns=columns, top_k=1), output)
        schemas = [kept_schema(columns), part_schema(columns)]
        finish = FinishShards(partial(select_shard, columns=columns, top_k=1), schemas, 3, output)
        selected = chunks | GroupIntoShards(GROUP, 3) | finish
        assert_that((reduced, selected) | beam.Flatten(), check)
    shards = [pq.read_table(path) for path in sorted(tmp_path.glob("shard-*.parquet"))]
    assert all(shard.schema.equals(columns.output) for shard in shards)
    best = {row["id"]: row["response"] for row in pa.concat_tables(shards).to_pylist()}
    assert best == {1: "1", 2: "0"}


@pytest.mark.parametrize(
    ("kind", "values"), [(pa.string(), ["1", "2"]), (pa.int32(), [1, 2]), (pa.bool_(), [True, False])]
)
def test_groups_of_any_kind(kind: pa.DataType, values: list[Any]) -> None:
    schema = SCHEMA.set(0, pa.field("id", kind))
    rows = [{**row, "id": value} for value in values for row in candidates(0, [1.0, 2.0])]
    found = outcome_of([*units_of([rows], schema, iter([3, 3]))], columns_of(schema), 1, 1, 0)
    assert sorted(found.rows["id"].to_pylist()) == sorted(values)
    assert found.rows["response"].to_pylist() == ["1", "1"]
