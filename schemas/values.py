"""Arrow values as Python objects: for templates, excerpts of rejects and samples of reports.

Rows that are only carried never become Python objects.
"""

import codecs
import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from schemas.carried import restored
from schemas.conversion import is_list, list_slots
from schemas.temporal import temporal_values

_READ: dict[str, Callable[[Any], object]] = {
    "arrow.uuid": lambda value: str(UUID(bytes=value)),
    "arrow.bool8": bool,
}
_SHOWN_BYTES = 500
_SHOWN_BINARY = 32


def python_values(array: pa.Array | pa.ChunkedArray) -> list[object]:
    """Return the values of a column as Python objects. Never raises, and does not depend on installed packages.

    As `to_pylist`, but: dates and times that Python cannot hold are text (see `schemas.temporal`), as are UUIDs and
    JSON; `bool8` is bool, any other extension type its storage; of equal names in a struct the later ones have a
    number; bytes in text that are not UTF-8 are escaped.
    """
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in python_values(chunk)]
    if _is_simple(array.type):
        try:
            return list(array.to_pylist())
        except UnicodeDecodeError:
            pass  # invalid UTF-8 at some depth
    return _values(array)


def python_columns(rows: pa.RecordBatch) -> list[list[object]]:
    """Return the columns of rows as Python objects, those that are carried with their own types."""
    return [python_values(column) for column in restored(pa.Table.from_batches([rows])).columns]


def excerpt_of(rows: pa.RecordBatch, row: int) -> str:
    """Return a row as JSON for a reject record; bytes as their text, or the first of them in hexadecimal."""
    values = (column[0] for column in python_columns(rows.slice(row, 1)))
    return json_of(dict(zip(_distinct(rows.schema.names), values, strict=True)))


def json_of(value: object) -> str:
    """Return values of `python_values` as JSON; bytes as their text, or the first of them in hexadecimal."""
    return json.dumps(value, ensure_ascii=False, default=_shown)


def _is_simple(kind: pa.DataType) -> bool:
    """Return whether `to_pylist` gives the values of this type as they are."""
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_temporal(kind) or pa.types.is_run_end_encoded(kind):
        return pa.types.is_interval(kind)
    if pa.types.is_dictionary(kind):
        return _is_simple(kind.value_type)
    names = [field.name for field in kind] if pa.types.is_struct(kind) else []
    children = (kind.field(i).type for i in range(kind.num_fields))
    return len(set(names)) == len(names) and all(map(_is_simple, children))


def _values(array: pa.Array) -> list[object]:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(array)
    if pa.types.is_dictionary(kind):
        values = python_values(array.dictionary)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if pa.types.is_run_end_encoded(kind):
        return python_values(pc.run_end_decode(array))
    if pa.types.is_struct(kind):
        names, fields = _distinct([field.name for field in kind]), map(python_values, array.flatten())
        rows = zip(*fields, strict=True) if kind.num_fields else iter([()] * len(array))
        return _where_valid(array, (dict(zip(names, row, strict=True)) for row in rows))
    if pa.types.is_map(kind):
        offsets = array.offsets.to_pylist()
        keys, items = (
            python_values(part.slice(offsets[0], offsets[-1] - offsets[0])) for part in (array.keys, array.items)
        )
        pairs = list(zip(keys, items, strict=True))
        return _where_valid(array, (pairs[a - offsets[0] : b - offsets[0]] for a, b in pairwise(offsets)))
    if is_list(kind):
        items, starts, stops = list_slots(array)
        first, last = (int(starts.min()), int(stops.max())) if len(starts) else (0, 0)
        values = python_values(items.slice(first, last - first))
        places = zip((starts - first).tolist(), (stops - first).tolist(), strict=True)
        return _where_valid(array, (values[start:stop] for start, stop in places))
    return temporal_values(array) or _texts(array)


def _where_valid(array: pa.Array, values: Iterable[object]) -> list[object]:
    return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def _extension(array: pa.Array) -> list[object]:
    values = python_values(array.storage)
    read = _READ.get(array.type.extension_name)
    return values if read is None else [None if value is None else read(value) for value in values]


def _texts(array: pa.Array) -> list[object]:
    """Return texts, with bytes that are not UTF-8 escaped; values of types that no file has as Arrow prints them."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        found = array.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "backslashreplace") for value in found]
    return [None if not value.is_valid else str(value) for value in array]


def _distinct(names: list[str]) -> list[str]:
    """Return names of which repeated ones have a number."""
    return [name if name not in names[:i] else f"{name}#{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _shown(value: object) -> str:
    """Return what JSON has no form for as text; bytes as their text, cut, or a few of them in hexadecimal."""
    if not isinstance(value, bytes):
        return str(value)
    head, rest = value[:_SHOWN_BYTES], f"... ({len(value):,} bytes)"
    try:
        text, _ = codecs.utf_8_decode(head, "strict", len(value) <= _SHOWN_BYTES)
    except UnicodeDecodeError:
        return head[:_SHOWN_BINARY].hex() + (rest if len(value) > _SHOWN_BINARY else "")
    return text + (rest if len(value) > _SHOWN_BYTES else "")
