"""Which pairs are learned from: by instruction, by weight, by limit; and what a corpus must be."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.train.corpus import CorpusError, instruction_key
from cappy_model.train.data import read_rows
from cappy_model.train.split import EVALUATION, TRAINING, Policy, Selection, select
from tests.cappy_model.train.corpora import some_rows, write_corpus, write_pairs


def selected(urls: list[str], *, rows_per_range: int = 1_000, **policy: Any) -> Selection:
    return select(urls, Policy(**{"seed": 0, **policy}), storage={}, rows_per_range=rows_per_range)


def ids(selection: Selection, assignment: int) -> set[str]:
    found = read_rows(selection, list(range(len(selection.ranges))), assignment, {})
    assert len(set(found.ids)) == len(found.ids)
    return set(found.ids)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_an_instruction_stands_on_one_side(corpus: list[str]) -> None:
    by_id = {row["pair_id"]: row["instruction"] for row in some_rows(400)}
    found = selected(corpus, evaluation_share=0.25)
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
    found = selected(corpus, held_out=held, evaluation_share=0.2)
    kept = ids(found, TRAINING) | ids(found, EVALUATION)
    assert kept == {row["pair_id"] for row in rows if row["instruction"] not in asked}
    assert found.counts["held_out"] == 20 and found.counts["held_out_instructions"] == 10


def test_weights_are_rates(corpus: list[str]) -> None:
    rates = {"label_source": {"wrong_choice": 0.25, "ground_truth": 1.0}, "dataset": {"quiz": 0.5, "notes": 0.0}}
    found = selected(corpus, rates=rates)
    made_of = found.made_of["training"]
    assert "notes" not in made_of
    assert made_of["things"]["ground_truth"] == 67
    assert 5 < made_of["things"]["wrong_choice"] < 30 and 20 < made_of["quiz"]["ground_truth"] < 47
    kept = sum(sum(counts.values()) for counts in made_of.values())
    assert found.counts["training"] == kept == len(ids(found, TRAINING)) == 400 - found.counts["left_out"]


@pytest.mark.parametrize("limit", [1, 37, 399, 400, 1_000])
def test_a_limit_draws_evenly_and_whatever_the_files(corpus: list[str], limit: int, tmp_path: Path) -> None:
    found = selected(corpus, max_pairs=limit)
    one = str(write_pairs(tmp_path / "one.parquet", some_rows(400)[::-1], group=7))
    assert ids(found, TRAINING) == ids(selected([one], max_pairs=limit), TRAINING)
    assert found.counts["training"] == min(limit, 400) == 400 - found.counts["not_drawn"]
    assert ids(found, TRAINING) <= ids(selected(corpus, max_pairs=limit + 1), TRAINING)
    assert sum(sum(counts.values()) for counts in found.made_of["training"].values()) == min(limit, 400)


def test_the_seed_decides(corpus: list[str]) -> None:
    first, again, other = (ids(selected(corpus, seed=seed, max_pairs=50), TRAINING) for seed in (0, 0, 1))
    assert first == again != other


def test_row_groups_are_cut_into_ranges(corpus: list[str]) -> None:
    whole, cut = selected(corpus, max_pairs=150), selected(corpus, rows_per_range=16, max_pairs=150)
    assert max(part.rows for part in cut.ranges) == 16 and len(cut.ranges) > len(whole.ranges)
    assert ids(whole, TRAINING) == ids(cut, TRAINING)
    assert np.array_equal(whole.assignments, cut.assignments)


def test_it_is_loaded_as_it_was_saved(corpus: list[str], tmp_path: Path) -> None:
    assert Selection.load(tmp_path, corpus) is None
    found = selected(corpus, evaluation_share=0.2, max_pairs=99)
    found.save(tmp_path, corpus)
    loaded = Selection.load(tmp_path, corpus)
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
    found = selected(before, evaluation_share=0.2)
    expected = ids(found, TRAINING)
    found.save(tmp_path, before)
    (tmp_path / "first").rename(tmp_path / "second")
    loaded = Selection.load(tmp_path, after)
    assert loaded is not None and ids(loaded, TRAINING) == expected


@pytest.mark.parametrize("label", [-0.25, 1.5, math.nan, math.inf])
def test_a_label_that_is_none_is_refused(label: float, tmp_path: Path) -> None:
    rows = some_rows(120)
    rows[77]["label"] = label
    path = write_pairs(tmp_path / "bad.parquet", rows, group=50)
    with pytest.raises(CorpusError, match=f"bad.parquet#77: the label is {label}; labels lie between 0 and 1"):
        selected([str(path)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns("response"), "no column 'response'; --response-column"),
        (lambda table: table.set_column(8, "label", pa.array(["1"] * 10)), "'label' is string; it must be numbers"),
        (lambda table: table.set_column(7, "response", pa.array(range(10))), "'response' is int64; it must be text"),
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
        selected([str(path)])


@pytest.mark.parametrize(
    ("compression", "lost", "reason"), [("snappy", 20, "Corrupt snappy compressed data"), ("none", 2, "Invalid UTF8")]
)
def test_a_row_group_that_is_damaged_is_named(compression: str, lost: int, reason: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "bad.parquet", some_rows(100))
    pq.write_table(pq.read_table(path), path, row_group_size=50, compression=compression, use_dictionary=False)
    found = selected([str(path)])
    column = pq.read_metadata(path).row_group(1).column(6)
    assert column.path_in_schema == "instruction"
    data = bytearray(path.read_bytes())
    stop = column.data_page_offset + column.total_compressed_size
    data[stop - lost : stop] = b"\xff" * lost
    path.write_bytes(data)
    for read in (lambda: selected([str(path)]), lambda: ids(found, TRAINING)):
        with pytest.raises(CorpusError, match=rf"bad\.parquet: row group 1 cannot be decoded: .*{reason}.*is damaged"):
            read()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "gone.parquet", some_rows(10))
    found = selected([str(path)])
    path.unlink()
    with pytest.raises(CorpusError, match=r"gone\.parquet: cannot be read: .*No such file"):
        ids(found, TRAINING)


def test_nothing_left_and_names_that_do_not_occur(corpus: list[str]) -> None:
    with pytest.raises(CorpusError, match=r"of 400 read, 0 have a held-out instruction, 400 were left out"):
        selected(corpus, rates={"label_source": {"ground_truth": 0.0, "wrong_choice": 0.0}})
    with pytest.raises(CorpusError, match="the dataset 'quizz', which does not occur in the corpus; choose from notes"):
        selected(corpus, rates={"dataset": {"quizz": 0.5}})
    with pytest.raises(CorpusError, match="leaves none for evaluation; give a larger --eval-fraction"):
        selected(corpus, evaluation_share=1e-9)
