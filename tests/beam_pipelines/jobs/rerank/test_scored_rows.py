from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.io.formats.base import BadRow, InputFile
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.rerank.scored_rows import ScoredColumns, read_candidates, scored_columns
from schemas.errors import CappyError

TEXTS = pa.list_(pa.string())
NUMBERS = pa.list_(pa.float32())
FIELDS: dict[str, pa.DataType] = {
    "id": pa.int64(),
    "instruction": pa.string(),
    "response": pa.string(),
    "score": pa.float32(),
    "generator": pa.string(),
    "vector": pa.list_(pa.int64()),
}
FILE = InputFile(number=3, group=0, url="/data/a.parquet", name="a.parquet", size=9, ends="", rows=9, limit=None)


def schema_of(without: str = "", **changes: pa.DataType) -> pa.Schema:
    return pa.schema([(name, kind) for name, kind in {**FIELDS, **changes}.items() if name != without])


def columns_of(schema: pa.Schema, **given: str | None) -> ScoredColumns:
    named = {"group": None, "instruction": "instruction", "response": "response", "score": "score", "order": None}
    return scored_columns(schema, **{**named, **given})  # type: ignore[arg-type]


def unit_of(rows: list[dict[str, Any]], schema: pa.Schema, bad: tuple[BadRow, ...] = ()) -> Unit:
    batch = pa.RecordBatch.from_pylist(rows, schema)
    return Unit(FILE, 0, 0, np.arange(10, 10 + len(rows)), batch, list(bad))


def test_group_is_the_given_column_or_instruction_id_or_the_instruction() -> None:
    assert columns_of(schema_of()).group == "instruction"
    assert columns_of(schema_of(instruction_id=pa.string())).group == "instruction_id"
    assert columns_of(schema_of(instruction_id=pa.string()), group="id").group == "id"


def test_output_begins_with_the_selection_and_keeps_every_other_column() -> None:
    fields = {"id": pa.int64(), "prompt": pa.string(), "output": TEXTS, "scores": NUMBERS, "instruction_id": pa.int32()}
    schema = pa.schema([*fields.items(), ("vector", NUMBERS)])
    columns = columns_of(schema, instruction="prompt", response="output", score="scores", group="id")
    names = ["instruction_id", "instruction", "response", "scores", "rank", "num_candidates", "id", "vector"]
    assert columns.output.names == names
    assert columns.output.field("instruction_id").type == pa.int32()
    assert columns.output.field("response").type == pa.string()
    assert columns_of(schema_of()).output.field("instruction_id").type == pa.string()


def test_selections_keep_the_name_of_the_score_beside_another_column_named_score() -> None:
    columns = columns_of(schema_of(cappy=pa.float64()), score="cappy")
    names = ["instruction_id", "instruction", "response", "cappy", "rank", "num_candidates", "id", "score"]
    assert columns.output.names[:8] == names
    assert columns.output.field("cappy").type == pa.float32()
    assert "cappy" not in columns.carried.names


MISSING = {"instruction": "--instruction-column", "response": "--response-column", "score": "--score-column"}


@pytest.mark.parametrize("name", MISSING)
def test_a_column_that_is_not_there_is_named_beside_those_that_are(name: str) -> None:
    with pytest.raises(CappyError) as error:
        columns_of(schema_of(without=name))
    others = ", ".join(other for other in FIELDS if other != name)
    assert str(error.value) == f"{MISSING[name]}: the input has no column {name!r}; there are {others}"


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"instruction": pa.int64()}, {}, "--instruction-column: column 'instruction' is int64 and must be text"),
        ({"response": pa.float32()}, {}, "--response-column: column 'response' is float and must be text"),
        ({"score": pa.string()}, {}, "--score-column: column 'score' is string and must be numbers"),
        ({"score": pa.bool_()}, {}, "--score-column: column 'score' is bool and must be numbers"),
        ({"score": pa.null()}, {}, "--score-column: column 'score' is null and must be numbers"),
        ({"id": pa.float64()}, {"group": "id"}, "--group-column: column 'id' is double and must be text, integers"),
        ({}, {"group": "vector"}, "--group-column: column 'vector' is list<.*> and must be text, integers"),
        ({"instruction_id": pa.float32()}, {}, "--group-column: column 'instruction_id' is float"),
        ({}, {"order": "vector"}, "--order-column: column 'vector' is list<.*> and must be sortable"),
        ({}, {"order": "nothing"}, "--order-column: the input has no column 'nothing'; there are id, "),
        ({"response": TEXTS}, {}, "'response' is list<.*> and column 'score' is float; .* both lists, or neither"),
        ({"score": NUMBERS}, {}, "'score' is list<.*> and column 'response' is string; .* both lists, or neither"),
        ({"score": NUMBERS, "response": NUMBERS}, {}, "--response-column: .* must be text, or lists of it"),
        ({"rank": pa.int8()}, {}, "has a column 'rank', .* rename"),
        ({"rank": pa.float32()}, {"score": "rank"}, "--score-column: the input has a column 'rank', .* rename"),
        ({"score": pa.int8()}, {"group": "score"}, "--group-column: 'score' is the column of the score, too"),
        ({"prompt": pa.string()}, {"instruction": "prompt"}, "has a column 'instruction', .* rename"),
    ],
)
def test_a_column_that_cannot_serve_is_an_error(
    changes: dict[str, pa.DataType], given: dict[str, str], message: str
) -> None:
    with pytest.raises(CappyError, match=message):
        columns_of(schema_of(**changes), **given)


def fault_of(row: dict[str, Any], schema: pa.Schema, **given: str) -> list[tuple[str, str, str]]:
    """The (position, reason, detail) of each reject of a unit of one good row and this one."""
    listed = pa.types.is_list(schema.field("response").type)
    good = {"id": 1, "instruction": "i", "response": ["r"] if listed else "r", "score": [0.5] if listed else 0.5}
    found, lost = read_candidates(unit_of([good, {**good, **row}], schema), columns_of(schema, **given))
    assert len(found.row) >= 1 and lost.candidates >= len(lost.rejects)
    assert {(reject["source"], reject["stage"]) for reject in lost.rejects} == {("a.parquet", "read")}
    return [(str(r["position"]), str(r["reason"]), str(r["detail"])) for r in lost.rejects]


WITH_ERROR = schema_of(score_error=pa.string())


@pytest.mark.parametrize(
    ("row", "schema", "reason", "detail"),
    [
        ({"score": None}, schema_of(), "unscored", "null in score"),
        ({"score": None, "score_error": "too long"}, WITH_ERROR, "unscored", "too long"),
        ({"score": None, "response": None}, schema_of(), "unscored", "null in score"),
        ({"response": None}, schema_of(), "null_value", "null in response"),
        ({"instruction": None}, schema_of(), "null_value", "null in instruction"),
        ({"id": None}, schema_of(), "null_group", "null in id"),
        ({"id": None, "instruction": None, "score": None}, schema_of(), "null_group", "null in id"),
        (
            {"score": -1e39},
            schema_of(score=pa.float64()),
            "score_out_of_range",
            "-1e+39 is beyond the range of float32",
        ),
    ],
)
def test_a_candidate_that_cannot_be_compared_is_a_reject(
    row: dict[str, Any], schema: pa.Schema, reason: str, detail: str
) -> None:
    assert fault_of(row, schema, group="id") == [("#11", reason, detail)]


LISTS = schema_of(response=TEXTS, score=NUMBERS)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"response": ["a", "b"], "score": [1.0]}, ("#11", "lists_differ", "2 in response and 1 in score")),
        ({"response": [], "score": []}, ("#11", "no_candidates", "none in score")),
        ({"response": [], "score": [1.0]}, ("#11", "lists_differ", "0 in response and 1 in score")),
        ({"response": ["a", "b"], "score": None}, ("#11", "null_value", "null in score")),
        ({"response": None, "score": [1.0]}, ("#11", "null_value", "null in response")),
        ({"response": ["a", "b"], "score": [1.0, None]}, ("#11", "unscored", "item 1: null in score")),
        ({"response": [None, "b"], "score": [1.0, 2.0]}, ("#11", "null_value", "item 0: null in response")),
    ],
)
def test_lists_that_do_not_fit_are_rejects(row: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert fault_of(row, LISTS) == [expected]


def test_a_lost_row_counts_for_its_longer_list_and_at_least_for_one() -> None:
    lists = [(["a", "b"], [1.0]), (["a"], [1.0, 2.0, 3.0]), (None, None), ([], None), ([], [])]
    rows = [{"instruction": "i", "response": response, "score": score} for response, score in lists]
    found, lost = read_candidates(unit_of(rows, LISTS), columns_of(LISTS))
    assert len(found.row) == 0 and len(lost.rejects) == 5
    assert lost.candidates == 2 + 3 + 1 + 1 + 1


def test_errors_of_a_list_are_told_item_by_item() -> None:
    schema = LISTS.append(pa.field("score_error", TEXTS))
    row = {"response": ["a", "b"], "score": [None, None], "score_error": ["too long"]}
    assert [detail for _, _, detail in fault_of(row, schema)] == ["item 0: too long", "item 1: null in score"]


def test_candidates_of_lists_keep_their_row_and_place() -> None:
    rows = [
        {"instruction": "i", "response": ["a", "b", "c"], "score": [1.0, None, 3.0]},
        {"instruction": None, "response": ["x"], "score": [9.0]},
        {"instruction": "j", "response": ["d"], "score": [4.0]},
    ]
    found, lost = read_candidates(unit_of(rows, LISTS), columns_of(LISTS))
    assert found.row.tolist() == [0, 0, 2] and found.item.tolist() == [0, 2, 0]
    assert found.response.to_pylist() == ["a", "c", "d"] and found.score.tolist() == [1.0, 3.0, 4.0]
    assert (lost.candidates, lost.unscored) == (2, 1)


def test_unreadable_rows_are_lost_candidates() -> None:
    bad = BadRow(4, "broken_json", "Expecting value", "{")
    found, lost = read_candidates(unit_of([], schema_of(), (bad,)), columns_of(schema_of()))
    assert len(found.row) == 0 and lost.candidates == 1
    assert (lost.rejects[0]["position"], lost.rejects[0]["reason"]) == ("#4", "broken_json")


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        (schema_of(), {"response": "r", "score": float("nan")}),
        (LISTS, {"response": ["r", "s"], "score": [1.0, float("nan")]}),
    ],
)
def test_nan_is_an_error(schema: pa.Schema, row: dict[str, Any]) -> None:
    row["instruction"] = "i"
    with pytest.raises(CappyError) as error:
        read_candidates(unit_of([{**row, "score": None}, row], schema), columns_of(schema))
    assert "/data/a.parquet: #11: score is NaN" in str(error.value) and "score the candidates again" in str(error.value)


def test_infinite_scores_and_whole_numbers_are_scores() -> None:
    rows = [{"instruction": "i", "response": "r", "score": value} for value in (float("inf"), float("-inf"))]
    found, _ = read_candidates(unit_of(rows, schema_of()), columns_of(schema_of()))
    assert found.score.tolist() == [float("inf"), float("-inf")]
    whole = schema_of(score=pa.int64())
    found, _ = read_candidates(unit_of([{**rows[0], "score": 7}], whole), columns_of(whole))
    assert found.score.tolist() == [7.0] and found.score.dtype == np.float64
