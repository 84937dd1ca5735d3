"""Units and shards of an evaluation: candidates with their worth, and examples out of them, in whatever order."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats.base import InputFile
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.evaluate.columns import EvaluatedColumns, evaluated_columns
from beam_pipelines.jobs.evaluate.conclusion import conclude
from beam_pipelines.jobs.evaluate.examples import evaluate_examples, example_schema
from beam_pipelines.jobs.evaluate.measure import NO_DATASET, measure_unit
from beam_pipelines.transforms.results import Result
from cappy_model.metrics.rouge import RougeL

SCHEMA = pa.schema(
    {
        "group": pa.int64(),
        "instruction": pa.string(),
        "response": pa.string(),
        "references": pa.list_(pa.string()),
        "score": pa.float64(),
        "label": pa.float64(),
        "generator": pa.string(),
        "decoding": pa.string(),
        "sample_index": pa.int64(),
        "dataset": pa.string(),
        "subset": pa.string(),
        "split": pa.string(),
    }
)
ROW = {
    "group": 1, "instruction": "i", "response": "a b", "references": ["a b"], "score": 0.0, "label": 1.0,
    "generator": None, "decoding": None, "sample_index": None, "dataset": None, "subset": None, "split": None,
}  # fmt: skip


def columns_of(task: str = "generation", label: str | None = None) -> EvaluatedColumns:
    return evaluated_columns(
        SCHEMA, task=task, group="group", instruction="instruction", response="response", scores=["score"],
        reference="references", label=label,
    )  # fmt: skip


def measured(rows: list[dict[str, Any]], columns: EvaluatedColumns) -> pa.RecordBatch:
    chunk = pa.RecordBatch.from_pylist([{**ROW, **row} for row in rows], SCHEMA).select(columns.schema.names)
    file = InputFile(0, 0, "a.parquet", "a.parquet", 0, "", len(rows), None)
    found = measure_unit(Unit(file, 0, 0, np.arange(len(rows)), chunk, []), columns, RougeL())
    assert not found.rejects
    return found.rows[0]


def examples_in(measured: pa.RecordBatch, columns: EvaluatedColumns) -> Result:
    return evaluate_examples("shard-00000-of-00001", measured, columns=columns)


def examples_of(rows: list[dict[str, Any]], columns: EvaluatedColumns) -> Result:
    return examples_in(measured(rows, columns), columns)


def test_the_first_sample_is_that_of_the_smallest_number_then_place() -> None:
    rows = [
        {"response": "x", "decoding": "beam4", "sample_index": None},
        {"response": "a x", "decoding": "beam4", "sample_index": 3},
        {"response": "a b", "decoding": "topk40", "sample_index": 2},
        {"response": "y", "decoding": "topk40", "sample_index": 1},
        {"response": "a b", "decoding": None},
    ]
    (example,) = examples_of(rows, columns_of()).rows[0].to_pylist()
    assert example["first"] == [
        {"generator": None, "decoding": "beam4", "value": 0.5},
        {"generator": None, "decoding": "topk40", "value": 0.0},
    ]


def test_the_first_samples_of_several_language_models_are_told_apart() -> None:
    rows = [
        {"generator": "large", "response": "a b", "decoding": "beam4", "sample_index": 1},
        {"generator": "small", "response": "a x", "decoding": "beam4", "sample_index": 0},
        {"generator": "large", "response": "y", "decoding": "beam4", "sample_index": 2},
    ]
    (example,) = examples_of(rows, columns_of()).rows[0].to_pylist()
    assert example["first"] == [
        {"generator": "large", "decoding": "beam4", "value": 1.0},
        {"generator": "small", "decoding": "beam4", "value": 0.5},
    ]


def test_equal_texts_are_one_candidate_with_the_first_known_score() -> None:
    rows = [
        {"response": "a b", "score": None},
        {"response": "x", "score": 0.5},
        {"response": "a b", "score": 0.7},
        {"response": "x", "score": 9.0},
    ]
    found = examples_of(rows, columns_of())
    (example,) = found.rows[0].to_pylist()
    assert (example["candidates"], example["scorer:score"], example["random"], example["oracle"]) == (2, 1.0, 0.5, 1.0)
    assert example["scorer:score curve"] == [0.5, 1.0] == example["oracle curve"]
    assert found.stats.counts["candidates", "duplicates"] == 2 and found.stats.counts["unscored", "score"] == 1


def test_equal_scores_go_to_the_first_candidate() -> None:
    rows = [{"response": text, "score": 1.0} for text in ("a c", "a b", "x")]
    (example,) = examples_of(rows, columns_of()).rows[0].to_pylist()
    assert example["scorer:score"] == 0.5


def test_groups_of_different_datasets_are_different_examples() -> None:
    parts = [(None, None, None), ("d", None, None), ("d", "s", None), ("d", "s", "t"), ("d", None, "t")]
    rows = [dict(zip(("dataset", "subset", "split"), each, strict=True)) for each in parts]
    (found,) = examples_of(rows, columns_of()).rows
    assert sorted(found["dataset"].to_pylist()) == ["d", "d/s", "d/s:t", "d:t", NO_DATASET]
    assert found["group"].to_pylist() == ["1"] * 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instruction": "j"}, "mixed_instructions"),
        ({"references": ["b"]}, "mixed_references"),
        ({"references": ["a b", "a b"]}, "mixed_references"),
    ],
)
def test_what_is_no_example(change: dict[str, Any], reason: str) -> None:
    found = examples_of([{}, {"group": 2}, change], columns_of())
    assert [row["reason"] for row in found.rejects] == [reason]
    assert found.rows[0]["group"].to_pylist() == ["2"]
    counts = found.stats.counts
    assert counts["candidates", "rejected"] == 2 and counts["candidates", "evaluated"] == 1


def test_a_shard_without_rows() -> None:
    for columns in (columns_of(), columns_of("classification"), columns_of("ranking", "label")):
        found = examples_in(measured([], columns), columns)
        assert found.rows[0].num_rows == 0 and not found.rejects
        assert found.rows[0].schema.equals(example_schema(columns))
        kept, results = conclude(pa.Table.from_batches(found.rows), columns, 0)
        assert kept.num_rows == 0 and all(measure["macro"] is None for measure in results["measures"].values())


def test_rows_of_one_source_example_are_drawn_together() -> None:
    """Templates that repeat an example add rows, and no certainty."""
    schema = SCHEMA.append(pa.field("example_id", pa.string())).append(pa.field("template_id", pa.string()))

    def interval_over(templates: int) -> tuple[float, float]:
        rows = [
            {**ROW, "group": number * 10 + template, "example_id": str(number), "template_id": str(template),
             "response": text, "score": float(text == right), "references": ["a"], "instruction": f"{number}"}
            for number in range(30) for right in ["a" if number % 3 else "b"]
            for template in range(templates) for text in "ab"
        ]  # fmt: skip
        columns = evaluated_columns(
            schema, task="classification", group="group", instruction="instruction", response="response",
            scores=["score"], reference="references", label=None,
        )  # fmt: skip
        chunk = pa.RecordBatch.from_pylist(rows, schema).select(columns.schema.names)
        file = InputFile(0, 0, "a.parquet", "a.parquet", 0, "", len(rows), None)
        measured = measure_unit(Unit(file, 0, 0, np.arange(len(rows)), chunk, []), columns, RougeL())
        examples = pa.Table.from_batches(examples_in(measured.rows[0], columns).rows)
        kept, results = conclude(examples, columns, 0)
        assert kept.num_rows == 30 * templates and {"example", "template"} <= set(kept.column_names)
        found = results["measures"]["accuracy"]["macro"]["methods"]["scorer:score"]
        assert found["value"] == pytest.approx(2 / 3)
        return found["low"], found["high"]

    alone, repeated = interval_over(1), interval_over(9)
    assert repeated[1] - repeated[0] == pytest.approx(alone[1] - alone[0], rel=0.15)


SOME = st.lists(
    st.fixed_dictionaries(
        {
            "group": st.integers(1, 4),
            "response": st.sampled_from(["a b", "a", "c", "b a", ""]),
            "score": st.sampled_from([None, 0.0, 1.0, 2.5]),
            "label": st.sampled_from([0.0, 1.0]),
        }
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(SOME, st.randoms(), st.sampled_from(["generation", "ranking"]))
def test_the_order_in_which_candidates_arrive_does_not_matter(rows: list[Any], random: Any, task: str) -> None:
    columns = columns_of(task, "label" if task == "ranking" else None)
    chunk = measured(rows, columns)
    order = list(range(len(rows)))
    random.shuffle(order)
    one, other = (examples_in(each, columns) for each in (chunk, chunk.take(pa.array(order, pa.int64()))))
    assert one.rows == other.rows and one.rejects == other.rejects and one.stats == other.stats


@settings(deadline=None, max_examples=60)
@given(SOME)
def test_bounds_of_a_choice(rows: list[Any]) -> None:
    found = examples_of(rows, columns_of())
    counts = found.stats.counts
    assert counts["candidates", "evaluated"] + counts["candidates", "rejected"] == len(rows)
    for example in found.rows[0].to_pylist():
        assert 0 <= example["random"] <= example["oracle"] <= 1
        assert example["scorer:score"] <= example["oracle"]
        assert example["oracle curve"] == sorted(example["oracle curve"])
        assert example["oracle curve"][0] == pytest.approx(example["random"])
