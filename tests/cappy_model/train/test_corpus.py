"""What a corpus may be: columns of other names and types, labels of any range, preferences; and what it may not."""

import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.train.corpus import (
    SCHEMA,
    Columns,
    CorpusError,
    instruction_key,
    instruction_keys,
    read_range,
    scan,
    scan_preferences,
)
from schemas.ids import pair_ids
from tests.cappy_model.train.corpora import some_rows, write_columns, write_pairs

RAW = Columns(raw=True)
PREFERENCES = Columns(chosen="good", rejected="bad")


def scanned(url: str, columns: Columns) -> list[dict[str, Any]]:
    batches = [batch for _, batch in scan(url, columns, storage={}, rows_per_range=7)]
    rows: list[dict[str, Any]] = pa.Table.from_batches(batches, SCHEMA).to_pylist()
    return rows


def test_a_corpus_of_build_corpus_comes_out_as_it_is(tmp_path: Path) -> None:
    rows = some_rows(120)
    url = str(write_pairs(tmp_path / "pairs.parquet", rows, group=50))
    assert scanned(url, Columns()) == [{name: row[name] for name in SCHEMA.names} for row in rows]


def test_ranges_cover_the_rows_and_are_read_alone(tmp_path: Path) -> None:
    rows = some_rows(120)
    url = str(write_pairs(tmp_path / "pairs.parquet", rows, group=50))
    ranges = [part for parts, _ in scan(url, storage={}, rows_per_range=20) for part in parts]
    assert [part[1:] for part in ranges] == [
        *((0, 0, 20), (0, 20, 20), (0, 40, 10), (1, 0, 20), (1, 20, 20), (1, 40, 10), (2, 0, 20))
    ]
    found = read_range(ranges[4], np.array([0, 3, 19]), storage={})
    expected = [rows[70], rows[73], rows[89]]
    assert found.ids == [row["pair_id"] for row in expected]
    assert found.instructions == [row["instruction"] for row in expected]
    assert found.responses == [row["response"] for row in expected]
    assert found.labels.tolist() == [row["label"] for row in expected] and found.labels.dtype == np.float32


def test_columns_have_other_names_and_ids_and_sources_are_optional(tmp_path: Path) -> None:
    content = {"prompt": ["a b", "a b", "c"], "answer": ["x", "y", "x"], "quality": [0.25, 1.0, 0.0]}
    columns = Columns(instruction="prompt", response="answer", label="quality")
    url = write_columns(tmp_path / "own.parquet", content)
    rows = scanned(url, columns)
    assert [(row["instruction"], row["response"], row["label"]) for row in rows] == list(
        zip(*content.values(), strict=True)
    )
    assert [row["pair_id"] for row in rows] == [pair_ids("a b")("x"), pair_ids("a b")("y"), pair_ids("c")("x")]
    assert {(row["dataset"], row["label_source"]) for row in rows} == {("unnamed", "unnamed")}
    (parts, _), *_ = scan(url, columns, storage={}, rows_per_range=7)
    assert read_range(parts[0], np.array([1, 2]), columns, storage={}).ids == [row["pair_id"] for row in rows[1:]]


def test_a_missing_dataset_or_source_is_unnamed(tmp_path: Path) -> None:
    content = {"instruction": ["a", "b"], "response": ["x", "y"], "label": [1, 0], "dataset": ["quiz", None]}
    rows = scanned(write_columns(tmp_path / "own.parquet", content), Columns())
    assert [row["dataset"] for row in rows] == ["quiz", "unnamed"] and rows[0]["label_source"] == "unnamed"


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
)
def test_texts_of_all_types(kind: pa.DataType, tmp_path: Path) -> None:
    texts = pa.array(["one", "one", "ä\n", ""]).cast(kind)
    content = dict.fromkeys(("instruction", "response", "dataset", "label_source", "pair_id"), texts)
    url = write_columns(tmp_path / "own.parquet", {**content, "label": [0, 1, 0, 1]}, group=3)
    assert [row["response"] for row in scanned(url, Columns())] == texts.to_pylist()
    preferences = {"instruction": texts, "good": texts, "bad": pa.array(["two"] * 4).cast(kind)}
    url = write_columns(tmp_path / "preferences.parquet", preferences, group=3)
    assert sum(batch.num_rows for _, batch in scan_preferences(url, PREFERENCES, storage={})) == 8


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int64(), pa.uint8(), pa.uint64()]
)
def test_labels_of_all_types(kind: pa.DataType, tmp_path: Path) -> None:
    labels = pa.array([0, 1, 1], kind)
    url = write_columns(
        tmp_path / "own.parquet", {"instruction": list("abc"), "response": list("xyz"), "label": labels}
    )
    assert [row["label"] for row in scanned(url, Columns())] == [0.0, 1.0, 1.0]


@given(labels=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_raw_labels_are_any_finite_number(labels: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("raw") / "own.parquet"
    texts = [str(number) for number in range(len(labels))]
    url = write_columns(path, {"instruction": texts, "response": texts, "label": labels})
    assert [row["label"] for row in scanned(url, RAW)] == labels


@pytest.mark.parametrize(
    ("label", "columns", "message"),
    [
        (1.5, Columns(), "the label is 1.5; labels lie between 0 and 1, or are any finite number with --labels raw"),
        (-1e-9, Columns(), "the label is -1e-09; labels lie between 0 and 1"),
        (math.nan, Columns(), "the label is nan; labels lie between 0 and 1"),
        (math.nan, RAW, "the label is nan; labels are finite 32-bit numbers: leave the row out"),
        (-math.inf, RAW, "the label is -inf; labels are finite 32-bit numbers"),
        (1e300, RAW, r"the label is 1e\+300; labels are finite 32-bit numbers"),
        (None, RAW, "column 'label' is null; each row needs a value in instruction, response and label: leave"),
    ],
)
def test_a_label_out_of_range_is_named(label: float | None, columns: Columns, message: str, tmp_path: Path) -> None:
    texts = [str(number) for number in range(120)]
    labels = [label if number == 77 else 0.5 for number in range(120)]
    url = write_columns(tmp_path / "own.parquet", {"instruction": texts, "response": texts, "label": labels})
    with pytest.raises(CorpusError, match=rf"own\.parquet#77: {message}"):
        scanned(url, columns)


def test_scores_of_a_teacher_are_labels(tmp_path: Path) -> None:
    """A file as score writes it: a row that could not be scored has a null and an error."""
    content = {
        "instruction_id": ["1", "1", "2"],
        "dataset": pa.array([None, None, None], pa.string()),
        "instruction": ["a", "a", "b"],
        "response": ["x", "y", "z"],
        "score": pa.array([7.5, -3.25, None], pa.float32()),
        "score_error": [None, None, "no tokens"],
        "num_tokens": pa.array([4, 4, 0], pa.int32()),
        "truncated": [False, False, False],
    }
    columns = Columns(label="score", raw=True)
    scored = {name: column[:2] for name, column in content.items()}
    url = write_columns(tmp_path / "scored.parquet", scored)
    assert [(row["label"], row["dataset"]) for row in scanned(url, columns)] == [(7.5, "unnamed"), (-3.25, "unnamed")]
    with pytest.raises(CorpusError, match="the label is 7.5; .*with --labels raw"):
        scanned(url, Columns(label="score"))
    with pytest.raises(CorpusError, match=r"all\.parquet#2: column 'score' is null"):
        scanned(write_columns(tmp_path / "all.parquet", content), columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            Columns(instruction="prompt"),
            "has no column 'prompt'; name others with --instruction-column; there are instruction, response, label",
        ),
        (
            Columns(response="text", label="score"),
            "has no columns 'text' and 'score'; name others with --response-column, --label-column or --chosen-column "
            "with --rejected-column; there are",
        ),
        (
            Columns(chosen="best", rejected="worst"),
            "has no columns 'best' and 'worst'; name others with --chosen-column or --rejected-column; there are",
        ),
        (Columns(response="label"), "column 'label' is double; it must be text"),
        (Columns(chosen="good", rejected="label"), "column 'label' is double; it must be text"),
        (Columns(label="response"), "column 'response' is string; it must be numbers"),
        (Columns(label="born"), r"column 'born' is date32\[day\]; it must be numbers or booleans"),
    ],
)
def test_a_missing_or_wrong_column_is_named(columns: Columns, message: str, tmp_path: Path) -> None:
    content = {"instruction": ["a"], "response": ["x"], "label": [0.5], "good": ["g"], "born": [date(2020, 1, 2)]}
    url = write_columns(tmp_path / "own.parquet", content)
    with pytest.raises(CorpusError, match=rf"own\.parquet: {message}"):
        scanned(url, columns)


def test_an_optional_column_of_another_type_is_named(tmp_path: Path) -> None:
    content = {"instruction": ["a"], "response": ["x"], "label": [0.5], "pair_id": [0.5]}
    with pytest.raises(CorpusError, match="column 'pair_id' is double; it must be text or whole numbers: rename"):
        scanned(write_columns(tmp_path / "own.parquet", content), Columns())


def test_whole_numbers_name_pairs_and_booleans_are_labels(tmp_path: Path) -> None:
    content = {"instruction": ["a", "a"], "response": ["x", "y"], "label": [True, False], "pair_id": [3, 4]}
    rows = scanned(write_columns(tmp_path / "own.parquet", content), Columns())
    assert [(row["pair_id"], row["label"]) for row in rows] == [("3", 1.0), ("4", 0.0)]


@pytest.mark.parametrize(
    ("responses", "texts"),
    [
        ([42, 7], ["42", "7"]),
        ([True, False], ["true", "false"]),
        ([b"caf\xc3\xa9", b""], ["caf\xe9", ""]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        ([Decimal("3.50"), Decimal("0.10")], ["3.50", "0.10"]),
    ],
)
def test_responses_may_have_any_type_with_a_form_as_text(responses: Any, texts: list[str], tmp_path: Path) -> None:
    content = {"instruction": ["a", "a"], "response": responses, "label": [Decimal("0.5"), Decimal("1.0")]}
    rows = scanned(write_columns(tmp_path / "own.parquet", content), Columns())
    assert [row["response"] for row in rows] == texts
    assert [row["label"] for row in rows] == [0.5, 1.0]


def test_a_preference_is_two_pairs_unless_its_responses_are_equal(tmp_path: Path) -> None:
    content = {
        "instruction": ["a", "b", "b", "c"],
        "good": ["x", "same", "y", ""],
        "bad": ["z", " same\n", "Y", "w"],
        "dataset": ["quiz", "quiz", None, "quiz"],
    }
    url = write_columns(tmp_path / "preferences.parquet", content, group=3)
    found = list(scan_preferences(url, PREFERENCES, storage={}))
    assert sum(equal for equal, _ in found) == 1
    rows = pa.Table.from_batches([batch for _, batch in found], SCHEMA).to_pylist()
    assert [(row["instruction"], row["response"], row["label"], row["dataset"]) for row in rows] == [
        ("a", "x", 1.0, "quiz"),
        ("a", "z", 0.0, "quiz"),
        ("b", "y", 1.0, "unnamed"),
        ("b", "Y", 0.0, "unnamed"),
        ("c", "", 1.0, "quiz"),
        ("c", "w", 0.0, "quiz"),
    ]
    assert [row["pair_id"] for row in rows] == [pair_ids(row["instruction"])(row["response"]) for row in rows]


@pytest.mark.parametrize("name", ["instruction", "good", "bad"])
def test_a_null_in_a_preference_is_named(name: str, tmp_path: Path) -> None:
    content: dict[str, list[str | None]] = {column: ["1", "2", "3"] for column in ("instruction", "good", "bad")}
    content[name][2] = None
    url = write_columns(tmp_path / "own.parquet", content, group=2)
    with pytest.raises(
        CorpusError, match=rf"own\.parquet#2: column '{name}' is null; .* instruction, good and bad: leave"
    ):
        list(scan_preferences(url, PREFERENCES, storage={}))


@given(texts=st.lists(st.sampled_from(["a", "A", " a", "b", "b  c", "B C", ""]), max_size=30))
def test_keys_of_neighbours(texts: list[str]) -> None:
    keys = instruction_keys(pa.array(texts, pa.string()))
    assert keys.dtype == np.uint64 and keys.tolist() == [instruction_key(text) for text in texts]


def test_a_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(SCHEMA.empty_table(), path)
    assert scanned(str(path), Columns()) == []
