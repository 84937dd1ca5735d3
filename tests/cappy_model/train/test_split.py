"""Which pairs are learned from: by instruction, by weight, by limit; and what a corpus must be."""

import math
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.train.corpus import Columns, CorpusError, instruction_key
from cappy_model.train.sample import Sample
from cappy_model.train.selection import ARRANGED, EVALUATION, TRAINING, Selection
from tests.cappy_model.train.corpora import some_rows, write_corpus, write_pairs
from tests.cappy_model.train.selections import selection_of


def ids(selection: Selection, assignment: int) -> set[str]:
    found = selection.read(range(len(selection.ranges)), assignment, {})
    assert len(set(found.ids)) == len(found.ids)
    return set(found.ids)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_an_instruction_stands_on_one_side(corpus: list[str]) -> None:
    by_id = {row["pair_id"]: row["instruction"] for row in some_rows(400)}
    found = selection_of(corpus, evaluation_share=0.25)
    training, evaluation = ids(found, TRAINING), ids(found, EVALUATION)
    assert training | evaluation == set(by_id) and not training & evaluation
    assert not {by_id[each] for each in training} & {by_id[each] for each in evaluation}
    assert 20 < len({by_id[each] for each in evaluation}) < 80
    assert found.counts["training"] + found.counts["evaluation"] == found.counts["read"] == 400


@given(text=st.text(), blanks=st.sampled_from([" ", "\n", "\t ", "  "]))
def test_the_key_ignores_case_and_white_space(text: str, blanks: str) -> None:
    words = text.lower().split()
    assert instruction_key(text.lower()) == instruction_key(f"{blanks}{blanks.join(words)}{blanks}")


def test_held_out_instructions_are_dropped_and_counted(corpus: list[str]) -> None:
    rows = some_rows(400)
    asked = {row["instruction"] for row in rows[:20]}
    held = frozenset(instruction_key(f"  {text.upper()}\n") for text in [*asked, "not in the corpus"])
    found = selection_of(corpus, held_out=held, evaluation_share=0.2)
    kept = ids(found, TRAINING) | ids(found, EVALUATION)
    assert kept == {row["pair_id"] for row in rows if row["instruction"] not in asked}
    assert found.counts["held_out"] == 20 and found.counts["held_out_instructions"] == 10


def test_weights_are_rates(corpus: list[str]) -> None:
    rates = {"label_source": {"wrong_choice": 0.25, "ground_truth": 1.0}, "dataset": {"quiz": 0.5, "notes": 0.0}}
    found = selection_of(corpus, rates=rates)
    made_of = found.made_of["training"]
    assert "notes" not in made_of
    assert made_of["things"]["ground_truth"] == 67
    assert 5 < made_of["things"]["wrong_choice"] < 30 and 20 < made_of["quiz"]["ground_truth"] < 47
    kept = sum(sum(counts.values()) for counts in made_of.values())
    assert found.counts["training"] == kept == len(ids(found, TRAINING)) == 400 - found.counts["left_out"]


@pytest.mark.parametrize("limit", [1, 37, 399, 400, 1_000])
def test_a_limit_draws_pairs_evenly_and_whatever_the_files(corpus: list[str], limit: int, tmp_path: Path) -> None:
    found = selection_of(corpus, max_pairs=limit, grouped=False)
    one = str(write_pairs(tmp_path / "one.parquet", some_rows(400)[::-1], group=7))
    assert ids(found, TRAINING) == ids(selection_of([one], max_pairs=limit, grouped=False), TRAINING)
    assert found.counts["training"] == min(limit, 400) == 400 - found.counts["not_drawn"]
    assert ids(found, TRAINING) <= ids(selection_of(corpus, max_pairs=limit + 1, grouped=False), TRAINING)
    assert sum(sum(counts.values()) for counts in found.made_of["training"].values()) == min(limit, 400)


@pytest.mark.parametrize("limit", [2, 37, 399, 400, 1_000])
def test_a_limit_draws_whole_instructions_whatever_the_files(corpus: list[str], limit: int, tmp_path: Path) -> None:
    found = selection_of(corpus, max_pairs=limit)
    one = str(write_pairs(tmp_path / "one.parquet", some_rows(400)[::-1], group=8))
    assert ids(found, TRAINING) == ids(selection_of([one], tmp_path, max_pairs=limit), TRAINING)
    assert found.counts["training"] == min(limit - limit % 2, 400) == 400 - found.counts["not_drawn"]
    assert found.counts["instructions"] * 2 == found.counts["training"]
    by_id = {row["pair_id"]: row["instruction"] for row in some_rows(400)}
    kept = Counter(by_id[each] for each in ids(found, TRAINING))
    assert set(kept.values()) == {2}
    assert ids(found, TRAINING) <= ids(selection_of(corpus, max_pairs=limit + 1), TRAINING)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    limit=st.integers(1, 60),
    parts=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_a_sample_of_instructions_is_a_prefix_of_their_order(
    sizes: list[int], limit: int, parts: int, seed: int
) -> None:
    keys = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.uint64)
    sample = Sample(limit, together=True)
    for part in np.array_split(np.arange(len(keys)), parts):
        sample.add(part, np.zeros(len(part), np.int64), keys[part])
    kept, codes, dropped = sample.result()
    whole = int(np.searchsorted(np.cumsum(sizes), limit, side="right"))  # instructions in the order of their keys
    assert kept == codes[0] == sum(sizes[:whole]) == len(keys) - len(dropped)
    assert set(dropped.tolist()) == set(np.flatnonzero(keys >= whole).tolist())


def test_a_limit_below_the_first_instruction(tmp_path: Path) -> None:
    path = str(write_pairs(tmp_path / "big.parquet", some_rows(40, responses=20)))
    with pytest.raises(CorpusError, match="the first instruction drawn has more than --max-pairs 19: give more"):
        selection_of([path], max_pairs=19)


def test_rates_of_datasets_take_whole_instructions(corpus: list[str]) -> None:
    found = selection_of(corpus, rates={"dataset": {"quiz": 0.5}})
    by_id = {row["pair_id"]: row["instruction"] for row in some_rows(400) if row["dataset"] == "quiz"}
    kept = Counter(by_id[each] for each in ids(found, TRAINING) if each in by_id)
    assert set(kept.values()) == {2} and 20 < len(kept) < 47


def test_labels_that_are_all_equal(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "same.parquet", [{**row, "label": 0.5} for row in some_rows(40)])
    with pytest.raises(
        CorpusError, match=r"all labels of the instructions for training are 0\.5: nothing tells right responses from"
    ):
        selection_of([str(path)])


def test_single_responses_are_counted_and_used(tmp_path: Path) -> None:
    rows = [row for number, row in enumerate(some_rows(60)) if number % 3]
    found = selection_of([str(write_pairs(tmp_path / "some.parquet", rows))])
    assert found.counts["training"] == 40 and found.counts["single_responses"] == 20
    assert found.counts["instructions"] == 30


def test_rows_far_apart_are_one_group(tmp_path: Path) -> None:
    rows = some_rows(90, responses=3)
    path = str(write_pairs(tmp_path / "apart.parquet", rows[::3] + rows[1::3] + rows[2::3], group=20))
    found = selection_of([path], tmp_path, evaluation_share=0.2, rows_per_range=16)
    assert found.groups is not None and set(found.groups.sizes.tolist()) == {3}
    assert found.counts["read"] == 90 == found.counts["training"] + found.counts["evaluation"]
    found.save(tmp_path, [path])
    loaded = Selection.load(tmp_path, [path], Columns())
    assert loaded is not None and ids(loaded, TRAINING) == ids(found, TRAINING)
    for number in range(len(loaded.ranges)):
        if loaded.training_rows[number]:
            together = loaded.read([number], TRAINING, {})
            sizes = [len(list(each)) for _, each in groupby(together.instructions)]
            assert sizes == loaded.groups_of([number]).sizes.tolist()
    copy = next((tmp_path / ARRANGED).glob("arranged-*.parquet"))
    content = copy.read_bytes()
    copy.write_bytes(content[:-1])
    assert Selection.load(tmp_path, [path], Columns()) is None, "a damaged copy is made again"
    copy.write_bytes(content)
    assert Selection.load(tmp_path, [path], Columns()) is not None
    Selection.delete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apart.parquet"]


def test_the_seed_decides(corpus: list[str]) -> None:
    first, again, other = (ids(selection_of(corpus, seed=seed, max_pairs=50), TRAINING) for seed in (0, 0, 1))
    assert first == again != other


def test_row_groups_are_cut_into_ranges(corpus: list[str]) -> None:
    whole, cut = selection_of(corpus, max_pairs=150), selection_of(corpus, rows_per_range=16, max_pairs=150)
    assert max(part.rows for part in cut.ranges) == 16 and len(cut.ranges) > len(whole.ranges)
    assert ids(whole, TRAINING) == ids(cut, TRAINING)
    assert np.array_equal(whole.assignments, cut.assignments)


def test_it_is_loaded_as_it_was_saved(corpus: list[str], tmp_path: Path) -> None:
    assert Selection.load(tmp_path, corpus, Columns()) is None
    found = selection_of(corpus, tmp_path, evaluation_share=0.2, max_pairs=99)
    found.save(tmp_path, corpus)
    loaded = Selection.load(tmp_path, corpus, Columns())
    assert (
        loaded is not None and loaded.ranges == found.ranges and np.array_equal(loaded.assignments, found.assignments)
    )
    assert loaded.counts == found.counts and loaded.made_of == found.made_of


def test_a_corpus_may_move_between_saving_and_loading(tmp_path: Path) -> None:
    write_pairs(tmp_path / "first" / "a.parquet", [])
    for name, rows in (("b", some_rows(60)), ("c", some_rows(40, first=60))):
        write_pairs(tmp_path / "first" / f"{name}.parquet", rows)
    names = ("a.parquet", "b.parquet", "c.parquet")
    before, after = ([str(tmp_path / folder / name) for name in names] for folder in ("first", "second"))
    found = selection_of(before, evaluation_share=0.2)
    expected = ids(found, TRAINING)
    found.save(tmp_path, before)
    (tmp_path / "first").rename(tmp_path / "second")
    loaded = Selection.load(tmp_path, after, Columns())
    assert loaded is not None and ids(loaded, TRAINING) == expected


@pytest.mark.parametrize("label", [-0.25, 1.5, math.nan, math.inf])
def test_a_label_that_is_none_is_refused(label: float, tmp_path: Path) -> None:
    rows = some_rows(120)
    rows[77]["label"] = label
    path = write_pairs(tmp_path / "bad.parquet", rows, group=50)
    with pytest.raises(CorpusError, match=f"bad.parquet#77: the label is {label}; labels lie between 0 and 1"):
        selection_of([str(path)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns("response"), "no column 'response'; name others with --response-column"),
        (lambda table: table.set_column(8, "label", pa.array(["1"] * 10)), "'label' is string; it must be numbers"),
        (lambda table: table.set_column(7, "response", pa.array([0.5] * 10)), "'response' is double; it must be text"),
        (
            lambda table: table.set_column(8, "label", pa.array([1.0, None] * 5)),
            "bad.parquet#1: column 'label' is null",
        ),
        (lambda table: table.slice(0, 0), "no pair is left for training: of 0 read"),
    ],
)
def test_a_file_that_is_no_corpus(change: Any, message: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "bad.parquet", some_rows(10))
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(CorpusError, match=message):
        selection_of([str(path)])


@pytest.mark.parametrize(
    ("compression", "lost", "reason"), [("snappy", 20, "Corrupt snappy compressed data"), ("none", 2, "Invalid UTF8")]
)
def test_a_row_group_that_is_damaged_is_named(compression: str, lost: int, reason: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "bad.parquet", some_rows(100))
    pq.write_table(pq.read_table(path), path, row_group_size=50, compression=compression, use_dictionary=False)
    found = selection_of([str(path)])
    column = pq.read_metadata(path).row_group(1).column(6)
    assert column.path_in_schema == "instruction"
    data = bytearray(path.read_bytes())
    stop = column.data_page_offset + column.total_compressed_size
    data[stop - lost : stop] = b"\xff" * lost
    path.write_bytes(data)
    for read in (lambda: selection_of([str(path)]), lambda: ids(found, TRAINING)):
        with pytest.raises(CorpusError, match=rf"bad\.parquet: row group 1 cannot be decoded: .*{reason}.*is damaged"):
            read()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "gone.parquet", some_rows(10))
    found = selection_of([str(path)])
    path.unlink()
    with pytest.raises(CorpusError, match=r"gone\.parquet: cannot be read: .*No such file"):
        ids(found, TRAINING)


def test_nothing_left_and_names_that_do_not_occur(corpus: list[str]) -> None:
    with pytest.raises(CorpusError, match=r"of 400 read, 0 have a held-out instruction, 400 were left out"):
        selection_of(corpus, rates={"label_source": {"ground_truth": 0.0, "wrong_choice": 0.0}})
    with pytest.raises(CorpusError, match="the dataset 'quizz', which does not occur in the corpus; choose from notes"):
        selection_of(corpus, rates={"dataset": {"quizz": 0.5}})
    with pytest.raises(CorpusError, match="leaves none for evaluation; give a larger --eval-fraction"):
        selection_of(corpus, evaluation_share=1e-9)
