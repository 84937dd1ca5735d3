"""From columns to the values of templates, and the excerpts of rejects."""

import json
import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.build_corpus.variables import Variables, holds
from cappy_model.sandbox.budget import RenderError, Unusable
from schemas.carried import carried_field
from schemas.conversion import convert


def values(array: pa.Array, how: Any = None) -> list[Any]:
    rows = pa.RecordBatch.from_arrays([array], ["a"])
    return [row["a"] for row in Variables(rows, {"a": how} if how else {}).rows()]


def test_json_and_cells_are_numbers_that_print_as_written() -> None:
    found = values(pa.array(["5", "4.50", "true", "null", '"5"', '["3.50", 3.50]', None]), "json")
    assert [str(value) for value in found] == ["5", "4.50", "True", "None", "5", "['3.50', 3.50]", "None"]
    assert found[:4] == [5, 4.5, True, None]
    assert found[4:] == ["5", ["3.50", 3.5], None]
    cells = values(pa.array(["5", "4.50", "true", "x", None]), "cell")
    assert [str(value) for value in cells] == ["5", "4.50", "true", "x", "None"]
    assert cells == [5, 4.5, True, "x", None]
    assert values(pa.array(["5", "4.50"])) == ["5", "4.50"]


def test_json_that_is_nested_too_deep_is_unusable() -> None:
    (value,) = values(pa.array(["[" * 100_000 + "]" * 100_000]), "json")
    with pytest.raises(RenderError, match="nested too deep"):
        str(value)


NESTED = pa.struct([("raw", pa.list_(pa.binary())), ("map", pa.map_(pa.string(), pa.large_binary()))])


def test_bytes_are_text_where_they_are_utf_8_at_any_depth() -> None:
    texts = values(pa.array([b"caf\xc3\xa9", None, b"\xff\xd8"]))
    assert texts[:2] == ["café", None]
    assert isinstance(texts[2], Unusable)
    (nested,) = values(pa.array([{"raw": [b"a", b"\xff"], "map": [("k", b"v")]}], NESTED))
    assert nested["raw"][0] == "a"
    assert isinstance(nested["raw"][1], Unusable)
    assert nested["map"] == [("k", "v")]
    assert values(pa.array([b"a", b"a"]).dictionary_encode()) == ["a", "a"]
    assert values(pa.array([b"ab"], pa.binary(2))) == ["ab"]


def test_extension_types_dates_and_decimals_are_as_datasets_have_them() -> None:
    identifier, struct = uuid.UUID(int=7), {"at": date(2024, 1, 2), "price": Decimal("3.50")}
    for array, expected in [
        (pa.array([identifier.bytes], pa.uuid()), str(identifier)),
        (pa.array([struct]), struct),
        (pa.array([datetime(2024, 1, 2)], pa.timestamp("ns")), datetime(2024, 1, 2)),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([10**11], pa.timestamp("s")), "5138-11-16 09:46:40"),
    ]:
        field = carried_field(pa.field("a", array.type))
        rows = pa.RecordBatch.from_arrays([convert(array, field.type)], schema=pa.schema([field]))
        (row,) = Variables(rows, {}).rows()
        assert row["a"] == expected or str(row["a"]) == expected


ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(ITEMS, st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_excerpt_of_a_row_is_json_of_its_values(value: Any, text: str) -> None:
    rows = pa.RecordBatch.from_arrays([pa.array([json.dumps(value)]), pa.array([text])], ["a-b", "c"])
    excerpt = Variables(rows, {"a-b": "json"}).excerpt(0)
    assert json.loads(excerpt) == {"a-b": value, "c": text}
    assert excerpt.startswith(f'{{"a-b": {json.dumps(value)}, ')


@given(ITEMS, st.text(min_size=1, max_size=2))
def test_a_text_is_found_wherever_it_stands(value: Any, text: str) -> None:
    def found(item: Any) -> bool:
        if isinstance(item, dict):
            return any(found(key) or found(inner) for key, inner in item.items())
        return any(map(found, item)) if isinstance(item, list) else isinstance(item, str) and text in item

    assert holds(value, text) == found(value)
    assert holds([value, {"k": [f"x{text}"]}], text)
