"""Arrow arrays converted to another type, at any depth of nesting: more pairs of types than Arrow's own cast takes."""

from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.temporal import temporal_values


def convert(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return the values of `array` as type `kind`.

    Struct fields go by name; missing ones become null. Bytes become text unchecked (`invalid_text_rows` finds what is
    not UTF-8). If the distinct values exceed the index type of a dictionary, its index is int32.

    Raises pyarrow.ArrowException if a value does not fit, or for two types that have nothing in common.
    """
    source = array.type
    if source.equals(kind):
        return array
    if pa.types.is_null(source):
        return pa.nulls(len(array), kind)
    if isinstance(source, pa.BaseExtensionType):
        texts = _extension_texts(array) if _is_text(kind) else None
        return convert(array.storage if texts is None else texts, kind)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, convert(array, kind.storage_type))
    if pa.types.is_dictionary(source):
        return convert(array.dictionary_decode(), kind)
    if pa.types.is_dictionary(kind):
        return _encoded(convert(array, kind.value_type), kind)
    if pa.types.is_struct(source) and pa.types.is_struct(kind):
        return _struct(array, kind)
    if pa.types.is_map(source) and pa.types.is_map(kind):
        return _map(array, kind)
    if is_list(source) and is_list(kind):
        return _list(array, kind)
    return _text(array, kind) if _is_text(kind) else array.cast(kind)


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of this type are lists of any layout."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def with_item(kind: pa.DataType, item: pa.Field) -> pa.DataType:
    """Return the list type `kind` with another field for its items."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(item, kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(item)
    if pa.types.is_list_view(kind):
        return pa.list_view(item)
    return pa.large_list_view(item) if pa.types.is_large_list_view(kind) else pa.list_(item)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _encoded(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return the dictionary of `values`, in order of first appearance."""
    encoded = values.dictionary_encode()
    indices = encoded.indices
    index = kind.index_type
    if len(encoded.dictionary) <= 1 << (index.bit_width - pa.types.is_signed_integer(index)):
        indices = indices.cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, encoded.dictionary, ordered=kind.ordered)


def _struct(array: pa.Array, kind: pa.DataType) -> pa.Array:
    found = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    missing = pa.nulls(len(array))
    children = [convert(found.get(field.name, missing), field.type) for field in kind]
    fields = [field.with_type(child.type) for field, child in zip(kind, children, strict=True)]
    return pa.StructArray.from_arrays(children, fields=fields, mask=_mask(array))


def _map(array: pa.Array, kind: pa.DataType) -> pa.Array:
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    keys = convert(array.keys.slice(first, last - first), kind.key_type)
    items = convert(array.items.slice(first, last - first), kind.item_type)
    fields = kind.key_field.with_type(keys.type), kind.item_field.with_type(items.type)
    kept = pa.map_(*fields, keys_sorted=kind.keys_sorted)
    return pa.MapArray.from_arrays(pc.subtract(array.offsets, first), keys, items, type=kept, mask=_mask(array))


def list_slots(array: pa.Array) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Return the items of all lists of an array, and where each list starts and stops in them, int64[n] each."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        starts = (array.offset + np.arange(len(array))) * kind.list_size
        return array.values, starts, starts + kind.list_size
    offsets = np.asarray(array.offsets, np.int64)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return array.values, offsets, offsets + np.asarray(array.sizes, np.int64)
    return array.values, offsets[:-1], offsets[1:]


def _list(array: pa.Array, kind: pa.DataType) -> pa.Array:
    items, starts, stops = list_slots(array)
    lengths = stops - starts
    if np.array_equal(starts[1:], stops[:-1]):
        first = int(starts[0]) if len(starts) else 0
        values = convert(items.slice(first, int(lengths.sum())), kind.value_type)
    else:  # views in any order
        places = [np.arange(*place) for place in zip(starts, stops, strict=True)]
        values = convert(items, kind.value_type).take(pa.array(np.concatenate(places)))
    kept = with_item(kind, kind.value_field.with_type(values.type))
    if pa.types.is_fixed_size_list(kind):
        if np.any(lengths != kind.list_size):
            raise pa.ArrowInvalid(f"lists of {array.type} do not all have {kind.list_size} items")
        return pa.FixedSizeListArray.from_arrays(values, type=kept, mask=_mask(array))
    wide = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64() if wide else pa.int32())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        layout = pa.LargeListArray if wide else pa.ListArray
        return layout.from_arrays(offsets, values, type=kept, mask=_mask(array))
    layout = pa.LargeListViewArray if wide else pa.ListViewArray
    return layout.from_arrays(offsets[:-1], pa.array(lengths, offsets.type), values, type=kept, mask=_mask(array))


def _text(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return values as text: numbers with all their digits, booleans as `true` and `false`, bytes as UTF-8."""
    source = array.type
    if pa.types.is_floating(source):
        numbers = array.to_numpy(zero_copy_only=False)  # Arrow prints 3.0 as 3
        texts = [None if missing else str(number) for number, missing in zip(numbers, array.is_null(), strict=True)]
        return pa.array(texts, kind)
    values = temporal_values(array)
    if values is not None:
        return pa.array([None if value is None else str(value) for value in values], kind)
    return pc.cast(array, options=pc.CastOptions(kind, allow_invalid_utf8=True))


def _extension_texts(array: pa.Array) -> pa.Array | None:
    """Return extension values as text where this is not the text of their storage."""
    if array.type.extension_name == "arrow.uuid":
        return pa.array([None if value is None else str(UUID(bytes=value)) for value in array.storage.to_pylist()])
    if array.type.extension_name == "arrow.bool8":
        return array.storage.cast(pa.bool_()).cast(pa.string())
    return None
