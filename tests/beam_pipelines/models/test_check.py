"""Picking pairs of the input: the same at each launch, from few places, and cheap however large the input is."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.units import Read
from beam_pipelines.models import check
from beam_pipelines.models.check import PAIR_CHARACTERS, SAMPLED_ROWS, pick_pairs, sample_rows

COUNT = 16
ROWS = 20_000


def rows_of(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"q": f"question {i}", "a": f"answer {i}", "other": i} for i in range(start, start + count)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7_000)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(pattern: Path, **options: Any) -> Input:
    return open_input([str(pattern)], {}, **options)


def numbers(pairs: list[tuple[str, str]]) -> list[int]:
    """The rows of pairs; both texts are of one row."""
    found = [(int(a.removeprefix("question ")), int(b.removeprefix("answer "))) for a, b in pairs]
    assert all(a == b for a, b in found)
    return [a for a, _ in found]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_pairs_are_the_same_at_each_launch_and_from_several_places(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"rows.{ending}", rows_of(ROWS))
    source = opened(tmp_path / f"*.{ending}")
    pairs = pick_pairs(source, "q", "a", COUNT)
    assert pairs == pick_pairs(opened(tmp_path / f"*.{ending}"), "q", "a", COUNT)
    assert len(set(numbers(pairs))) == COUNT
    if ending == "parquet":  # plain JSON Lines of less than 16 MB are one read
        assert max(numbers(pairs)) - min(numbers(pairs)) > SAMPLED_ROWS
    assert pick_pairs(source, "q", "a", 3) == pairs[:3]


def test_few_rows_of_few_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        write(tmp_path / f"{number}.parquet", rows_of(1_000, 1_000 * number))
    source, read, listed = opened(tmp_path / "*.parquet"), [], []
    real_units, real_reads = check.read_units, check.list_reads

    def read_units(part: Read, spec: Any) -> Any:
        assert spec.schema.names == ["q", "a"]
        read.append(part.file.name)
        return real_units(part, spec)

    def list_reads(file: Any, spec: Any) -> Any:
        listed.append(file.name)
        return real_reads(file, spec)

    monkeypatch.setattr(check, "read_units", read_units)
    monkeypatch.setattr(check, "list_reads", list_reads)
    batches = list(sample_rows(source, ("q", "a")))
    assert sum(batch.num_rows for batch in batches) == SAMPLED_ROWS
    assert len(set(read)) == len(read) == len(listed) == 5


def test_many_small_files_give_a_pair_each_until_enough_are_opened(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"{number:02}.jsonl", rows_of(1, number))
    pairs = pick_pairs(opened(tmp_path / "*.jsonl"), "q", "a", 99)
    assert len(set(numbers(pairs))) == len(pairs) == 16


def test_nulls_equal_pairs_and_unreadable_rows_are_left_out(tmp_path: Path) -> None:
    rows = [*rows_of(4), {"q": None, "a": "answer 9"}, {"q": "question 9", "a": None}, *rows_of(4)]
    path = write(tmp_path / "rows.jsonl", rows)
    with path.open("a") as file:
        file.write('{"q": "question 10", "a": \n')
    assert sorted(numbers(pick_pairs(opened(path), "q", "a", COUNT))) == [0, 1, 2, 3]


def test_lists_of_responses_give_a_pair_each(tmp_path: Path) -> None:
    lists = [["one", "two"], None, [], ["three", None]]
    path = write(tmp_path / "rows.jsonl", [{"q": f"question {i}", "a": texts} for i, texts in enumerate(lists)])
    expected = {("question 0", "one"), ("question 0", "two"), ("question 3", "three")}
    assert set(pick_pairs(opened(path), "q", "a", COUNT)) == expected


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_limit_holds_and_texts_are_cut(tmp_path: Path, ending: str) -> None:
    rows = [*rows_of(5), {"q": "question 5", "a": "x" * 2 * PAIR_CHARACTERS, "other": 5}]
    path = write(tmp_path / f"rows.{ending}", rows)
    assert sorted(numbers(pick_pairs(opened(path, limit=3), "q", "a", COUNT))) == [0, 1, 2]
    assert ("question 5", "x" * PAIR_CHARACTERS) in pick_pairs(opened(path), "q", "a", COUNT)
    assert pick_pairs(opened(path), "q", "a", 0) == []


def test_a_place_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.parquet", rows_of(2, 2 * number))
    source = opened(tmp_path / "*.parquet")
    (tmp_path / "1.parquet").unlink()
    assert sorted(numbers(pick_pairs(source, "q", "a", COUNT))) == [0, 1, 4, 5]
