"""Types that hold the values of two types, and conversion to them."""

import itertools
import re
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.io.columns import nested_types, unusable_reason, widen
from schemas.conversion import convert
from schemas.records import as_text
from schemas.values import python_values
from tests.schemas.arrays import arrays, types

SMALL = pa.dictionary(pa.int8(), pa.string())
PAIRS: list[tuple[pa.DataType, pa.DataType, pa.DataType | None]] = [
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int8(), pa.int64()),
    (pa.uint64(), pa.int64(), None),
    (pa.uint64(), pa.uint8(), pa.uint64()),
    (pa.float32(), pa.int32(), pa.float64()),
    (pa.float32(), pa.int16(), pa.float32()),
    (pa.float16(), pa.int8(), pa.float16()),
    (pa.float16(), pa.uint16(), pa.float32()),
    (pa.float16(), pa.float32(), pa.float32()),
    (pa.float32(), pa.uint64(), pa.float64()),
    (pa.bool_(), pa.int8(), None),
    (pa.decimal128(10, 2), pa.decimal128(12, 2), pa.decimal128(12, 2)),
    (pa.decimal128(10, 2), pa.decimal128(10, 5), pa.decimal128(13, 5)),
    (pa.decimal128(38, 0), pa.decimal128(38, 20), pa.decimal256(58, 20)),
    (pa.decimal256(76, 0), pa.decimal128(38, 20), None),
    (pa.decimal32(5, 1), pa.decimal64(10, 3), pa.decimal64(10, 3)),
    (pa.decimal128(10, 2), pa.int64(), pa.decimal128(21, 2)),
    (pa.decimal32(3, 1), pa.uint64(), pa.decimal128(21, 1)),
    (pa.decimal128(10, 2), pa.float64(), None),
    (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us"), None),
    (pa.timestamp("ms", "UTC"), pa.timestamp("s", "Europe/Berlin"), pa.timestamp("ms", "UTC")),
    (pa.date32(), pa.timestamp("ms"), pa.timestamp("ms")),
    (pa.date32(), pa.timestamp("ms", "UTC"), None),
    (pa.date32(), pa.date64(), pa.date64()),
    (pa.time32("s"), pa.time64("us"), pa.time64("us")),
    (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
    (pa.duration("s"), pa.duration("ns"), pa.duration("ns")),
    (pa.duration("s"), pa.time32("s"), None),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.string(), pa.string_view(), pa.large_string()),
    (pa.string(), pa.binary(), None),
    (pa.binary(3), pa.binary(4), pa.binary()),
    (pa.binary(3), pa.large_binary(), pa.large_binary()),
    (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int64(), 2), pa.list_(pa.int64(), 2)),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())),
    (pa.list_(pa.int8(), 2), pa.large_list(pa.int8()), pa.large_list(pa.int8())),
    (pa.list_(pa.int8()), pa.list_view(pa.int8()), pa.list_(pa.int8())),
    (pa.list_(pa.int8(), 2), pa.null(), pa.list_(pa.int8())),
    (pa.struct({"a": pa.int8()}), pa.struct({"b": pa.string()}), pa.struct({"a": pa.int8(), "b": pa.string()})),
    (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.string()}), None),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int32()), pa.map_(pa.string(), pa.int32())),
    (pa.map_(pa.string(), pa.int8()), pa.struct({"a": pa.int8()}), None),
    (SMALL, pa.string(), pa.string()),
    (
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
    ),
    (pa.uuid(), pa.null(), pa.uuid()),
    (pa.uuid(), pa.binary(16), None),
    (pa.json_(), pa.json_(), pa.json_()),
]


@pytest.mark.parametrize(("one", "other", "expected"), PAIRS)
def test_types_of_two_files(one: pa.DataType, other: pa.DataType, expected: pa.DataType | None) -> None:
    for first, second in ((one, other), (other, one)):
        found = widen(first, second)
        assert _shape(found) == _shape(expected)


def _shape(kind: pa.DataType | None) -> object:
    """A type, with the fields of structs in no order."""
    if kind is None or not pa.types.is_nested(kind):
        return str(kind)
    fields = [(kind.field(i).name, _shape(kind.field(i).type)) for i in range(kind.num_fields)]
    own = str(kind).split("<")[0], getattr(kind, "list_size", None) if pa.types.is_fixed_size_list(kind) else None
    return own, sorted(fields, key=str) if pa.types.is_struct(kind) else fields


@given(types(), types())
def test_the_order_of_files_does_not_matter(one: pa.DataType, other: pa.DataType) -> None:
    assert widen(one, one) == one
    assert _shape(widen(one, other)) == _shape(widen(other, one))


def test_more_than_two_files() -> None:
    """Whatever the order of three types, a type that is found holds all of them.

    It may be wider than need be, or not be found: (uint16, int16) is int32, which has more digits than both; uint64
    beside int64 has no type, though each has one beside float64. Files are widened in the order of their names.
    """
    kinds = sorted({kind for one, other, _ in PAIRS for kind in (one, other)}, key=str)
    for three in itertools.combinations(kinds, 3):
        for one, other, third in itertools.permutations(three):
            both = widen(one, other)
            found = None if both is None else widen(both, third)
            if found is not None:
                assert all(_shape(widen(found, kind)) == _shape(found) for kind in three), three


WRAPS: list[Callable[[pa.DataType], pa.DataType]] = [
    lambda kind: kind,
    pa.list_,
    pa.large_list,
    lambda kind: pa.struct({"a": kind, "b": pa.int8()}),
    lambda kind: pa.map_(pa.string(), kind),
]


@settings(max_examples=400)
@given(st.data(), st.sampled_from(PAIRS), st.sampled_from(WRAPS), st.sampled_from(WRAPS))
def test_the_wider_type_holds_the_values_of_both(
    data: st.DataObject,
    pair: tuple[pa.DataType, pa.DataType, pa.DataType | None],
    inside: Callable[[pa.DataType], pa.DataType],
    outside: Callable[[pa.DataType], pa.DataType],
) -> None:
    one, other = (outside(inside(kind)) for kind in pair[:2])
    wide = widen(one, other)
    assert (wide is None) == (pair[2] is None)
    if wide is None:
        return
    for kind in (one, other):
        array = data.draw(arrays(kind, 3))
        try:
            found = convert(array, wide)
        except pa.ArrowInvalid as error:  # by value: far dates in a finer unit, integers beyond 2**53
            if not re.search("range|bounds|overflow", str(error)):
                raise
            continue
        assert found.type.equals(wide)
        found.validate(full=True)
        assert found.is_null().equals(array.is_null())
        if not pa.types.is_null(pair[0]) and not pa.types.is_null(pair[1]) and "fixed_size_list" not in str(kind):
            assert repr(python_values(convert(found, kind))) == repr(python_values(array))


def test_columns_that_cannot_be_serialized() -> None:
    deep: pa.DataType = pa.string()
    for _ in range(63):
        deep = pa.list_(deep)
    assert unusable_reason(pa.field("deep", deep.value_type), "f.parquet") is None
    reason = unusable_reason(pa.field("deep", deep), "f.parquet")
    assert reason == "f.parquet: column 'deep' is nested more than 63 levels deep; drop it or make it text"
    twice = pa.map_(pa.string(), pa.struct([("k", pa.int8()), ("k", pa.int8())]))
    assert "has a duplicate field: k, k" in str(unusable_reason(pa.field("x", twice), "f.parquet"))
    assert unusable_reason(pa.field("x", pa.list_(pa.uuid())), "f.parquet") is None
    assert (pa.binary(16), 2) in list(nested_types(pa.list_(pa.uuid())))


@pytest.mark.parametrize(
    ("kind", "always", "if_asked"),
    [
        (pa.large_string(), True, True),
        (pa.binary_view(), True, True),
        (pa.dictionary(pa.int8(), pa.binary()), True, True),
        (pa.uint64(), True, True),
        (pa.bool_(), True, True),
        (pa.decimal256(50, 2), True, True),
        (pa.uuid(), True, True),
        (pa.json_(), True, True),
        (pa.float32(), False, True),
        (pa.timestamp("ns", "UTC"), False, True),
        (pa.date32(), False, True),
        (pa.struct({"a": pa.string()}), False, False),
        (pa.map_(pa.string(), pa.string()), False, False),
        (pa.list_(pa.list_(pa.string())), False, False),
    ],
)
def test_types_with_a_form_as_text(kind: pa.DataType, always: bool, if_asked: bool) -> None:
    assert as_text(kind) == (pa.string() if always else None)
    assert as_text(kind, floats=True) == (pa.string() if if_asked else None)
    assert as_text(pa.large_list(kind), floats=True) == (pa.list_(pa.string()) if if_asked else None)
