"""A corpus in ranges: each row once, each instruction in one range, for any order, files and row groups."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.train import arrange as arranging
from cappy_model.train.arrange import Arranged, among, arrange, delete_arranged
from cappy_model.train.corpus import DEFAULT, Columns, CorpusError, instruction_key, read_range
from cappy_model.train.external_sort import sort_by_key
from tests.cappy_model.train.corpora import some_rows, write_columns, write_groups, write_pairs

PREFERENCES = Columns(chosen="good", rejected="bad")


class Row(NamedTuple):
    """A row that is read: the key of its instruction, its response and its label."""

    key: int
    response: str
    label: float


def rows_of(found: Arranged, columns: Columns = DEFAULT) -> list[list[Row]]:
    """The rows of each range that are not to be skipped."""
    moved, ranges = set(found.moved.tolist()), []
    for number, part in enumerate(found.ranges):
        in_place = number < found.in_place
        pairs = read_range(part, np.arange(part.rows), columns if in_place else DEFAULT, storage={})
        rows = zip(map(instruction_key, pairs.instructions), pairs.responses, pairs.labels.tolist(), strict=True)
        ranges.append([Row(*row) for row in rows if not (in_place and row[0] in moved)])
    return ranges


def arranged(urls: list[str], folder: Path, columns: Columns = DEFAULT, *, rows_per_range: int = 40) -> Arranged:
    return arrange(urls, columns, folder, storage={}, rows_per_range=rows_per_range)


def check(found: Arranged, instructions: list[str], *, rows_per_range: int) -> None:
    """Each row is in one range, those of an instruction next to each other in order; ranges are as long as asked."""
    ranges = rows_of(found)
    expected = Counter(Row(instruction_key(text), str(row), row % 2) for row, text in enumerate(instructions))
    assert Counter(row for rows in ranges for row in rows) == expected
    runs = [key for rows in ranges for key in (rows[i].key for i in starts_of(rows))]
    assert len(set(runs)) == len(runs)
    responses: dict[int, list[int]] = {}
    for row in (row for rows in ranges for row in rows):
        responses.setdefault(row.key, []).append(int(row.response))
    assert all(numbers == sorted(numbers) for numbers in responses.values())
    for part in found.ranges:
        if part.rows > rows_per_range:
            pairs = read_range(part, np.arange(part.rows), storage={})
            assert len(set(map(instruction_key, pairs.instructions))) == 1


def starts_of(rows: list[Row]) -> list[int]:
    return [index for index in range(len(rows)) if index == 0 or rows[index].key != rows[index - 1].key]


CORPORA = st.lists(
    st.tuples(st.sampled_from(["a", "A", " a  b", "A B", "b", "c", "d", "e", "f", ""]), st.integers(1, 12)),
    min_size=1,
    max_size=25,
).map(lambda runs: [text for text, length in runs for _ in range(length)])


@given(
    instructions=CORPORA,
    files=st.integers(1, 3),
    group=st.integers(1, 30),
    rows_per_range=st.integers(1, 20),
    shuffled=st.booleans(),
)
def test_each_row_is_in_the_range_of_its_instruction(
    instructions: list[str],
    files: int,
    group: int,
    rows_per_range: int,
    shuffled: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if shuffled:
        instructions = [instructions[row] for row in np.random.default_rng(0).permutation(len(instructions))]
    folder = tmp_path_factory.mktemp("corpus")
    urls = write_groups(folder, instructions, files=files, group=group)
    found = arranged(urls, folder / "local", rows_per_range=rows_per_range)
    check(found, instructions, rows_per_range=rows_per_range)
    in_place = found.ranges[: found.in_place]
    assert [part.url for part in in_place] == sorted(part.url for part in in_place)
    assert sum(part.rows for part in in_place) == len(instructions)
    assert np.array_equal(found.moved, np.unique(found.moved))
    assert not len(found.moved) or found.in_place < len(found.ranges)


@given(keys=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)), moved=st.sets(st.integers(0, 9)))
def test_keys_among_the_moved(keys: list[int], moved: set[int]) -> None:
    found = among(np.array(keys, np.uint64), np.array(sorted(moved), np.uint64))
    assert found.tolist() == [key in moved for key in keys]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shuffled_corpus(folder: Path, count: int = 600, each: int = 5) -> tuple[list[str], list[str]]:
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(count // each), each))
    instructions = [f"question {number}" for number in numbers]
    return instructions, write_groups(folder, instructions, files=2, group=70)


def test_a_corpus_of_whole_groups_stays_in_place(tmp_path: Path) -> None:
    urls = [
        str(write_pairs(tmp_path / f"{number}.parquet", some_rows(60, first=60 * number), group=20))
        for number in (0, 1)
    ]
    found = arranged(urls, tmp_path / "local", rows_per_range=7)
    assert len(found.moved) == 0 and found.in_place == len(found.ranges) and not (tmp_path / "local").exists()
    assert [part[1:] for part in found.ranges[:4]] == [(0, 0, 6), (0, 6, 6), (0, 12, 6), (0, 18, 2)]


def test_groups_that_go_on_in_the_next_row_group_or_file_are_moved(tmp_path: Path) -> None:
    instructions = [f"question {row // 4}" for row in range(60)]
    urls = write_groups(tmp_path, instructions, files=2, group=10)
    found = arranged(urls, tmp_path / "local")
    check(found, instructions, rows_per_range=40)
    cut = {f"question {row // 4}" for row in (10, 20, 30, 40, 50) if row % 4}
    assert set(found.moved.tolist()) == set(map(instruction_key, cut))
    assert [part.rows for part in found.ranges[found.in_place :]] == [4 * len(cut)]


def test_the_same_bytes_again_whatever_was_left(tmp_path: Path) -> None:
    instructions, urls = shuffled_corpus(tmp_path)
    local = tmp_path / "local"
    found = arranged(urls, local)
    check(found, instructions, rows_per_range=40)
    before = content(local)
    assert list(before) == ["arranged-00000.parquet"]
    (local / "arranging").mkdir()
    (local / "arranging" / "0-1.arrow").write_bytes(b"of a run that was killed")
    (local / "arranged-00007.parquet").write_bytes(b"of another corpus")
    again = arranged(urls, local)
    assert content(local) == before and again.ranges == found.ranges and np.array_equal(again.moved, found.moved)
    delete_arranged(local)
    assert content(local) == {}


def test_large_corpora_are_sorted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranges and the rows of each row group do not depend on the memory."""
    _, urls = shuffled_corpus(tmp_path)
    whole = rows_of(arranged(urls, tmp_path / "whole"))
    monkeypatch.setattr(arranging, "sort_by_key", partial(sort_by_key, memory=2_000))
    assert rows_of(arranged(urls, tmp_path / "parts")) == whole


def test_a_file_has_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arranging, "_ROW_GROUPS", 3)
    instructions, urls = shuffled_corpus(tmp_path)
    found = arranged(urls, tmp_path / "local")
    check(found, instructions, rows_per_range=40)
    moved = found.ranges[found.in_place :]
    assert len(moved) == 15 and len({part.url for part in moved}) == 5
    for part in moved:
        assert pq.read_metadata(part.url).row_group(part.group).num_rows == part.rows


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_group_of_ten_thousand_rows_is_one_range(shuffled: bool, tmp_path: Path) -> None:
    instructions = [f"question {row // 2}" for row in range(400)] + ["the same"] * 10_000
    if shuffled:
        instructions = [instructions[row] for row in np.random.default_rng(0).permutation(len(instructions))]
    urls = write_groups(tmp_path, instructions, files=1, group=20_000)
    found = arranged(urls, tmp_path / "local", rows_per_range=100)
    check(found, instructions, rows_per_range=100)
    largest = max(found.ranges[found.in_place if shuffled else 0 :], key=lambda part: part.rows)
    assert largest.rows == 10_000


def test_columns_of_other_names_and_raw_labels(tmp_path: Path) -> None:
    columns = Columns(instruction="prompt", response="answer", label="score", raw=True)
    table = {"prompt": ["a", "b", "a"], "answer": ["1", "2", "3"], "score": [-7.5, 12.0, 3.0]}
    found = arranged([write_columns(tmp_path / "own.parquet", table)], tmp_path / "local", columns)
    a, b = instruction_key("a"), instruction_key("b")
    assert rows_of(found, columns) == [[Row(b, "2", 12.0)], [Row(a, "1", -7.5), Row(a, "3", 3.0)]]


def test_preferences_are_all_moved(tmp_path: Path) -> None:
    table = {
        "instruction": ["a", "b", "A", "c", "d"],
        "good": ["1", "2", "3", "same", "4"],
        "bad": ["-1", "-2", "-3", "same ", "-4"],
    }
    urls = [write_columns(tmp_path / "preferences.parquet", table, group=2)]
    found = arranged(urls, tmp_path / "local", PREFERENCES, rows_per_range=4)
    assert found.in_place == 0 and found.notes == {"equal_preferences": 1}
    rows = rows_of(found)
    assert sorted(map(len, rows)) in ([2, 2, 4], [4, 4])
    by_key = {
        row.key: [(each.response, each.label) for each in part if each.key == row.key] for part in rows for row in part
    }
    assert by_key == {
        instruction_key("a"): [("1", 1.0), ("-1", 0.0), ("3", 1.0), ("-3", 0.0)],
        instruction_key("b"): [("2", 1.0), ("-2", 0.0)],
        instruction_key("d"): [("4", 1.0), ("-4", 0.0)],
    }


def test_preferences_of_which_none_can_be_used(tmp_path: Path) -> None:
    table = {"instruction": ["a", "b"], "good": ["1", "2"], "bad": ["1", "2"]}
    found = arranged([write_columns(tmp_path / "preferences.parquet", table)], tmp_path / "local", PREFERENCES)
    assert found.ranges == [] and found.notes == {"equal_preferences": 2}


def test_a_corpus_without_rows(tmp_path: Path) -> None:
    found = arranged(write_groups(tmp_path, []), tmp_path / "local")
    assert found.ranges == [] and len(found.moved) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": ["a", "b", None]}, r"own\.parquet#2: column 'instruction' is null"),
        ({"response": ["x", "y", None]}, r"own\.parquet#2: column 'response' is null"),
        ({"label": [0.0, 1.0, 2.0]}, r"own\.parquet#2: the label is 2.0; labels lie between 0 and 1"),
        ({"instruction": [0.5, 2.0, 1.0]}, r"own\.parquet: column 'instruction' is double; it must be text"),
        ({"instruction": [b"a", b"b", b"\xff"]}, r"own\.parquet#2: column 'instruction' is bytes that are not UTF-8"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_left(change: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    table = {"instruction": ["a", "b", "a"], "response": ["x", "y", "z"], "label": [0.0, 1.0, 0.5], **change}
    url = write_columns(tmp_path / "own.parquet", table)
    with pytest.raises(CorpusError, match=message):
        arranged([url], tmp_path / "local")
    assert not (tmp_path / "local").exists() or content(tmp_path / "local") == {}


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    _, urls = shuffled_corpus(tmp_path)
    column = pq.read_metadata(urls[1]).row_group(2).column(1)
    assert column.path_in_schema == "response"
    data = bytearray(Path(urls[1]).read_bytes())
    stop = column.dictionary_page_offset + column.total_compressed_size
    data[stop - 20 : stop] = b"\xff" * 20
    Path(urls[1]).write_bytes(data)
    with pytest.raises(CorpusError, match=r"part-1\.parquet: row group 2 cannot be decoded: .*the file is damaged"):
        arranged(urls, tmp_path / "local")
    assert content(tmp_path / "local") == {}


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    instructions, urls = shuffled_corpus(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(CorpusError, match="cannot be sorted there: .*No space left on device; free its disk"):
            arranged(urls, tmp_path / "local")
    assert content(tmp_path / "local") == {}
    check(arranged(urls, tmp_path / "local"), instructions, rows_per_range=40)
