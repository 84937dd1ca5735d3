"""Which instructions are generated for: a function of their ids, whatever their order."""

import random
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.inputs import open_input
from beam_pipelines.jobs.generate.sampling import Sampling, SmallestHashes, Template, smallest_of, templates_of

IDS = st.integers(0, 30).map(str)
TEMPLATES = st.sampled_from([("d", None, "train", "t-0"), ("d", None, "train", "t-1"), ("d", "x", None, "t-0")])
ROWS = st.lists(st.tuples(IDS, TEMPLATES), max_size=80)


@given(ROWS, st.integers(1, 9), st.integers(0, 3), st.randoms(use_true_random=False))
def test_per_template_keeps_so_many_of_each_whatever_their_order(
    rows: list[tuple[str, Template]], number: int, seed: int, rng: random.Random
) -> None:
    smallest = SmallestHashes(seed, number)
    shuffled = rng.sample(rows, len(rows))
    while shuffled:
        part = [shuffled.pop() for _ in range(min(len(shuffled), rng.randint(1, 7)))]
        smallest.add([instruction_id for instruction_id, _ in part], [template for _, template in part])
    sampling = Sampling(seed, largest=smallest.largest)
    there, kept = defaultdict(set), defaultdict(set)
    for instruction_id, template in rows:
        there[template].add(instruction_id)
        if sampling.keeps(instruction_id, template):
            kept[template].add(instruction_id)
    assert {template: len(ids) for template, ids in kept.items()} == {
        template: min(number, len(ids)) for template, ids in there.items()
    }
    assert smallest.kept == sum(map(len, kept.values()))
    assert not sampling.keeps("0", ("no", "such", "template", "here"))


@given(ROWS, st.integers(1, 9))
def test_one_more_of_each_template_adds_to_those_before(rows: list[tuple[str, Template]], number: int) -> None:
    kept = []
    for count in (number, number + 1):
        smallest = SmallestHashes(0, count)
        smallest.add([instruction_id for instruction_id, _ in rows], [template for _, template in rows])
        sampling = Sampling(0, largest=smallest.largest)
        kept.append({row for row in rows if sampling.keeps(*row)})
    assert kept[0] <= kept[1]


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 5))
def test_a_larger_fraction_adds_to_a_smaller_one(one: float, other: float, seed: int) -> None:
    ids = [str(number) for number in range(100)]
    small, large = ({i for i in ids if Sampling(seed, share).keeps(i, ())} for share in sorted((one, other)))
    assert small <= large
    assert all(Sampling(seed, 1.0).keeps(i, ()) for i in ids)


def test_a_fraction_is_about_that_share_and_another_seed_another_one() -> None:
    ids = [str(number) for number in range(10_000)]
    kept = [{i for i in ids if Sampling(seed, 0.3).keeps(i, ())} for seed in (0, 1)]
    assert all(2_800 < len(found) < 3_200 for found in kept)
    assert 700 < len(kept[0] & kept[1]) < 1_100


def test_templates_are_told_apart_by_the_columns_there_are() -> None:
    rows = pa.RecordBatch.from_pylist([{"instruction": "x", "template_id": "t", "split": None, "dataset": "d"}])
    assert templates_of(rows) == [("d", None, None, "t")]
    assert templates_of(rows.select(["instruction"])) == [(None, None, None, None)]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_only_ids_and_templates_are_read_of_the_input(ending: str, tmp_path: Path) -> None:
    rows = [
        {"instruction_id": str(i) if i % 10 else None, "template_id": f"t-{i % 3}", "dataset": "d", "instruction": "?"}
        for i in range(100)
    ]
    table = pa.Table.from_pylist(rows)
    if ending == "parquet":
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=17)
    else:
        table.to_pandas().to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    found = smallest_of(open_input([str(tmp_path / "rows.*")], {}), 4, 5)
    wanted = SmallestHashes(4, 5)
    wanted.add([row["instruction_id"] for row in rows], [("d", None, None, row["template_id"]) for row in rows])
    assert found.largest == wanted.largest
    assert found.kept == 15
