"""Groups, orders and numbers of candidates, of any type that files give them."""

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.transforms.candidates import dense_ranks, group_texts, is_group, is_number
from schemas.carried import carried_field
from schemas.conversion import convert


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([2**63, 0], pa.uint64()), [str(2**63), "0"]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([bytes(16), None], pa.uuid()), ["00000000-0000-0000-0000-000000000000", None]),
        (pa.array([b"\xff", b"ff", None]), ["ff", "6666", None]),
        (pa.array([Decimal(7), None], pa.decimal128(38, 0)), ["7", None]),
        (pa.array([date(2020, 1, 2), None]), ["2020-01-02", None]),
        (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001", None]),
    ],
)
def test_groups_are_text_whatever_their_type(array: pa.Array, texts: list[str | None]) -> None:
    field = carried_field(pa.field("g", array.type))
    rows = pa.RecordBatch.from_arrays([convert(array, field.type)], schema=pa.schema([field]))
    assert is_group(field.type)
    found = group_texts(rows, "g")
    assert found.type == pa.string()
    assert found.to_pylist() == texts


def test_numbers_that_are_no_group_and_decimals_that_are_scores() -> None:
    for kind in (pa.float32(), pa.null(), pa.list_(pa.string()), pa.struct({"a": pa.int8()})):
        assert not is_group(kind)
    for kind in (pa.float16(), pa.uint64(), pa.decimal32(5, 2), pa.decimal256(60, 2)):
        assert is_number(kind)
    assert not is_number(pa.bool_())


@pytest.mark.parametrize(
    "array",
    [
        pa.array([2.0, 1.0, 2.0, None], pa.float16()),
        pa.array([Decimal("0.2"), Decimal("0.1"), Decimal("0.2"), None], pa.decimal32(5, 1)),
        pa.array([Decimal("0.2"), Decimal("0.1"), Decimal("0.2"), None], pa.decimal256(50, 1)),
        pa.array(["b", "a", "b", None], pa.large_string()),
        pa.array([b"b", b"a", b"b", None], pa.binary(1)),
        pa.array([2, 1, 2, None], pa.duration("ns")),
    ],
)
def test_values_that_have_an_order(array: pa.Array) -> None:
    assert np.array_equal(dense_ranks(array), [2, 1, 2, 3])
