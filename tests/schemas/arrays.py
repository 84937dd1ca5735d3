"""Hypothesis strategies: Arrow types, and arrays of them, as files may have them."""

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

TEXT = st.text(max_size=6)
DAYS = st.integers(-2_180_000, 72_400_000)  # from year -4000 to 200,000
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
_TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
_BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)]
_ZONES = [None, "UTC", "Europe/Berlin", "+05:30", "Nowhere/Land"]


def decimals() -> st.SearchStrategy[pa.DataType]:
    def of(width: tuple[Any, int], precision: int, scale: int) -> pa.DataType:
        precision = min(precision, width[1])
        return width[0](precision, min(scale, precision))

    widths = [(pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76)]
    return st.builds(of, st.sampled_from(widths), st.integers(1, 76), st.integers(0, 76))


def temporal() -> st.SearchStrategy[pa.DataType]:
    times = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.date32(), pa.date64()]
    durations = [pa.duration(unit) for unit in UNITS]
    stamps = [pa.timestamp(unit, zone) for unit in UNITS for zone in _ZONES]
    return st.sampled_from(times) | st.sampled_from(durations) | st.sampled_from(stamps)


def plain_leaves() -> st.SearchStrategy[pa.DataType]:
    floats = [pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.null()]
    return st.sampled_from([*_INTEGERS, *floats, *_TEXTS, *_BYTES]) | decimals() | temporal()


def _with_children(kinds: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    lists = st.sampled_from([pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda k: pa.list_(k, 2)])
    fields = st.lists(st.tuples(st.sampled_from("abc"), kinds), min_size=1, max_size=3, unique_by=lambda f: f[0])
    return (
        st.builds(lambda make, kind: make(kind), lists, kinds)
        | fields.map(pa.struct)
        | st.builds(pa.map_, st.sampled_from([pa.string(), pa.int32(), pa.large_string()]), kinds)
    )


def _special() -> st.SearchStrategy[pa.DataType]:
    extensions = [pa.uuid(), pa.json_(), pa.json_(pa.large_string()), pa.bool8(), pa.opaque(pa.int64(), "t", "v")]
    indices = st.sampled_from([pa.int8(), pa.uint16(), pa.int32()])
    values = st.sampled_from([pa.string(), pa.binary(), pa.large_string()])
    dictionaries = st.builds(pa.dictionary, indices, values, st.booleans())
    return st.sampled_from([*extensions, pa.fixed_shape_tensor(pa.float32(), [2])]) | dictionaries


def types() -> st.SearchStrategy[pa.DataType]:
    return st.recursive(plain_leaves() | _special(), _with_children, max_leaves=5)


def plain_types() -> st.SearchStrategy[pa.DataType]:
    return st.recursive(plain_leaves(), _with_children, max_leaves=4)


def _leaf_values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_integer(kind):
        limits = np.iinfo(str(kind))
        return st.integers(int(limits.min), int(limits.max))
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width)
    if pa.types.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if pa.types.is_decimal(kind):
        exact = Context(prec=90)
        top = 10**kind.precision - 1
        return st.integers(-top, top).map(lambda n: Decimal(n).scaleb(-kind.scale, exact))
    return TEXT if any(kind.equals(text) for text in _TEXTS) else st.binary(max_size=6)


def _counts(kind: pa.DataType) -> st.SearchStrategy[int]:
    """Return what a temporal type counts."""
    if pa.types.is_date(kind):
        return DAYS.map(lambda days: days * 86_400_000) if pa.types.is_date64(kind) else DAYS
    scale = UNITS[kind.unit]
    if pa.types.is_time(kind):
        return st.integers(0, 86_400 * scale - 1)
    far = min(72_400_000 * 86_400 * scale, 2**63 - 1)
    return st.integers(-far // 33, far) | st.integers(-(10**6), 10**6)


@st.composite
def arrays(draw: st.DrawFn, kind: pa.DataType, size: int, nulls: bool = True) -> pa.Array:
    """Arrays of `size` values of a type. Lists of fixed size are not null: Arrow cannot read these from Parquet."""

    def masked(values: Sequence[Any]) -> list[Any]:
        missing = draw(st.lists(st.booleans(), min_size=size, max_size=size)) if nulls else [False] * size
        return [None if gone else value for value, gone in zip(values, missing, strict=True)]

    def several(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    if pa.types.is_null(kind):
        return pa.nulls(size)
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.json":
            return pa.ExtensionArray.from_storage(kind, pa.array(masked(["{}"] * size), kind.storage_type))
        return pa.ExtensionArray.from_storage(kind, draw(arrays(kind.storage_type, size, nulls)))
    if pa.types.is_dictionary(kind):
        values = pa.array(["a", "b", "c"], pa.string()).cast(kind.value_type)
        indices = pa.array(masked(several(st.integers(0, 2))), kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered)
    if pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(masked(several(_counts(kind))), width).view(kind)
    if pa.types.is_struct(kind):
        children = [draw(arrays(field.type, size, nulls)) for field in kind]
        return pa.StructArray.from_arrays(children, fields=list(kind))
    if not pa.types.is_nested(kind):
        return pa.array(masked(several(_leaf_values(kind))), kind)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(draw(arrays(kind.value_type, kind.list_size * size, nulls)), type=kind)
    lengths = several(st.integers(0, 2))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    mask = pa.array([value is None for value in masked([1] * size)], pa.bool_())
    total = int(offsets[-1])
    if pa.types.is_map(kind):
        keys, items = draw(arrays(kind.key_type, total, False)), draw(arrays(kind.item_type, total, nulls))
        return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, items, type=kind, mask=mask)
    items = draw(arrays(kind.value_type, total, nulls))
    large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    starts = pa.array(offsets, pa.int64() if large else pa.int32())
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(starts, items, type=kind, mask=mask)
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(starts, items, type=kind, mask=mask)
    layout = pa.LargeListViewArray if large else pa.ListViewArray
    return layout.from_arrays(starts[:-1], pa.array(lengths, starts.type), items, type=kind, mask=mask)
