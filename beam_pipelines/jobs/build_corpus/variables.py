"""Values of template variables: from the columns of a unit to Python values as their file has them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from beam_pipelines.io.formats.base import AsWritten
from cappy_model.sandbox.budget import Unusable
from cappy_model.sandbox.written import parse_cell, parse_json
from schemas.values import excerpt_of, python_columns


def variable_rows(rows: pa.RecordBatch, as_written: Mapping[str, AsWritten]) -> Iterator[dict[str, Any]]:
    """Yield rows whose columns are variables; `as_written` says how text columns were read (see `ReadSpec`).

    Numbers of text files print as written. Bytes are text where they are UTF-8, at any depth: old Spark and Impala
    write text without marking it. Other bytes are Unusable.
    """
    columns = [
        _variable(values, field.type, as_written.get(field.name))
        for values, field in zip(python_columns(rows), rows.schema, strict=True)
    ]
    for row in zip(*columns, strict=True):
        yield dict(zip(rows.schema.names, row, strict=True))


def _variable(values: list[Any], kind: pa.DataType, how: AsWritten | None) -> list[Any]:
    if how == "json":
        return [None if text is None else _from_json(text) for text in values]
    if how == "cell":
        return [None if text is None else parse_cell(text) for text in values]
    return list(map(_with_text, values)) if _may_hold_bytes(kind) else values


def _from_json(text: str) -> Any:
    try:
        return parse_json(text)
    except RecursionError:
        return Unusable("the JSON of the value is nested too deep")


def _may_hold_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _may_hold_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _may_hold_bytes(kind.value_type)
    if any(_may_hold_bytes(kind.field(index).type) for index in range(kind.num_fields)):
        return True
    return any(
        test(kind)
        for test in (
            *(pa.types.is_binary, pa.types.is_large_binary),
            *(pa.types.is_fixed_size_binary, pa.types.is_binary_view),
        )
    )


def _with_text(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return Unusable(f"{len(value):,} bytes that are not UTF-8, such as those of an image, are no text")
    if isinstance(value, list | tuple):
        return type(value)(map(_with_text, value))
    if isinstance(value, dict):
        return {_with_text(key): _with_text(item) for key, item in value.items()}
    return value


def holds(value: Any, text: str) -> bool:
    """Return whether a text is part of a value or of one inside it."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if text in item:
                return True
        elif isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item
    return False


def row_excerpt(rows: pa.RecordBatch, row: int, as_written: Mapping[str, AsWritten]) -> str:
    """Return the JSON of a row for a reject; values that were read as JSON stand as in their file."""
    parts = []
    for name in rows.schema.names:
        if as_written.get(name) == "json":
            parts.append(f"{json.dumps(name, ensure_ascii=False)}: {rows[name][row].as_py() or 'null'}")
        else:
            parts.append(excerpt_of(rows.select([name]), row)[1:-1])
    return f"{{{', '.join(parts)}}}"
