"""The adaptation set: references are correct, references of others wrong, candidates labelled by similarity."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.adapt.adaptation import (
    adaptation_instructions,
    adaptation_pairs,
    references_of,
    usable_candidates,
)
from beam_pipelines.jobs.build_corpus.candidates import PLACED_CANDIDATE
from beam_pipelines.jobs.build_corpus.config import CANDIDATE_COLUMNS
from cappy_model.metrics.rouge import RougeL
from schemas.stats import Stats


def candidate(number: int, response: str | None, references: list[str] | None, **more: Any) -> dict[str, Any]:
    usual = {"instruction_id": f"i{number}", "instruction": f"Question {number}?", "dataset": "d", "generator": "lm"}
    usual |= {"decoding": "beam", "sample_index": 0, "response": response, "references": references}
    return {**usual, **more}


def pairs_of(rows: list[dict[str, Any]], seed: int = 0) -> tuple[list[dict[str, Any]], Stats]:
    rouge, stats = RougeL(), Stats()
    instructions = adaptation_instructions(rows, rouge, seed=seed, stats=stats)
    placed = [{**{name: row[name] for name in CANDIDATE_COLUMNS}, "source": "s", "position": "#0"} for row in rows]
    chunk = pa.RecordBatch.from_pylist(placed, PLACED_CANDIDATE)
    half = len(rows) // 2
    found, rejects = adaptation_pairs(instructions, [chunk.slice(0, half), chunk.slice(half)], rouge, stats)
    assert not rejects
    return found.to_pylist(), stats


def labels(found: list[dict[str, Any]]) -> set[tuple[str, str, float, str]]:
    return {(row["instruction_id"], row["response"], round(row["label"], 4), row["label_source"]) for row in found}


def test_small_task() -> None:
    rows = [
        candidate(0, "the red fox", ["the red fox runs", "a fox"]),
        candidate(0, "a fox", ["the red fox runs", "a fox"], decoding="sample"),
        candidate(0, "a fox", ["the red fox runs", "a fox"], decoding="sample", sample_index=1),
        candidate(1, "snow", ["it snows"]),
        candidate(2, "other task", ["left alone"], dataset="e"),
    ]
    found, stats = pairs_of(rows)
    assert labels(found) == {
        ("i0", "the red fox runs", 1.0, "ground_truth"),
        ("i0", "a fox", 1.0, "ground_truth"),
        ("i0", "the red fox", 0.8571, "generated"),
        ("i0", "it snows", 0.0, "mismatch"),
        ("i1", "it snows", 1.0, "ground_truth"),
        ("i1", "snow", 0.6667, "generated"),
        ("i1", "the red fox runs", 0.0, "mismatch"),
        ("i2", "left alone", 1.0, "ground_truth"),
        ("i2", "other task", 0.0, "generated"),
    }
    assert (
        stats.counts["notes", "mismatch_skipped"] == 2
    )  # a second one for i0, and any for the task of one instruction
    assert {row["template_id"] for row in found} == {"adaptation"}
    generators = {row["response"]: row["generator"] for row in found}
    assert generators["a fox"] == generators["snow"] == "lm" and generators["it snows"] is None


def test_a_correct_reference_is_no_wrong_response() -> None:
    rows = [candidate(0, "maybe", ["yes"]), candidate(1, "maybe", [" Yes! "]), candidate(2, "maybe", ["no"])]
    for seed in range(5):
        found, _ = pairs_of(rows, seed)
        wrong = {(row["instruction_id"], row["response"]) for row in found if row["label_source"] == "mismatch"}
        assert {("i0", "Yes!"), ("i1", "yes")}.isdisjoint(wrong)
        assert wrong <= {("i0", "no"), ("i1", "no"), ("i2", "yes"), ("i2", "Yes!")}


words = st.sampled_from(["red", "blue", "a fox", "snow falls", "one two three", "yes"])


@given(
    texts=st.lists(
        st.tuples(st.lists(words, min_size=1, max_size=3), st.lists(words, max_size=4)), min_size=1, max_size=12
    ),
    seed=st.integers(0, 3),
)
def test_every_pair_once_with_the_label_of_its_best_source(texts: list[tuple[list[str], list[str]]], seed: int) -> None:
    rows = [
        candidate(number, response, references, sample_index=index)
        for number, (references, responses) in enumerate(texts)
        for index, response in enumerate([*responses, "filler"])
    ]
    found, _ = pairs_of(rows, seed)
    assert labels(found) == labels(pairs_of(rows[::-1], seed)[0])  # the order of the files does not matter
    assert max(Counter(row["pair_id"] for row in found).values()) == 1
    score = RougeL().score
    for row in found:
        references = texts[int(row["instruction_id"][1:])][0]
        expected = {
            "ground_truth": 1.0,
            "mismatch": 0.0,
            "generated": score(references, row["response"]),
        }[row["label_source"]]
        assert row["label"] == pytest.approx(expected)
        assert (row["response"] in references) == (row["label_source"] == "ground_truth")
    made = {(row["instruction_id"], row["response"]) for row in found}
    assert made >= {(row["instruction_id"], row["response"]) for row in rows}
    assert made >= {(row["instruction_id"], text) for row in rows for text in row["references"]}


def test_rejects_name_their_position() -> None:
    rows = [candidate(0, "a", ["b"]), candidate(1, "c", [""]), candidate(2, None, ["d"])]
    chunk = pa.RecordBatch.from_pylist(rows)
    file = InputFile(0, 0, "train.parquet", "train.parquet", 0, "", len(rows), None)
    found, placed, rejects = usable_candidates(Unit(file, 0, 0, np.arange(len(rows)), chunk, []))
    assert [row["instruction_id"] for row in found] == ["i0", "i2"]
    assert placed["instruction_id"].to_pylist() == ["i0"]
    places = {(row["reason"], row["source"], row["position"]) for row in rejects}
    assert places == {
        ("no_references", "candidates/train.parquet", "#1"),
        ("null_value", "candidates/train.parquet", "#2"),
    }


@pytest.mark.parametrize(
    ("references", "expected"),
    [(None, []), ([], []), (["", "  "], []), ([" a ", "a", None, "b"], ["a", "b"])],
)
def test_references_of(references: list[str] | None, expected: list[str]) -> None:
    assert references_of({"references": references}) == expected


def test_references_are_those_of_all_candidates_of_an_instruction() -> None:
    found, _ = pairs_of([candidate(0, "a red fox", ["it rains"]), candidate(0, "no", ["a red fox", "it rains"])])
    assert labels(found) == {
        ("i0", "it rains", 1.0, "ground_truth"),
        ("i0", "a red fox", 1.0, "ground_truth"),
        ("i0", "no", 0.0, "generated"),
    }
