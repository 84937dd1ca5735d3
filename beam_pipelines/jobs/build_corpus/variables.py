"""Values of template variables: from the columns of a unit to Python values as their file has them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from beam_pipelines.io.columns import nested_types
from beam_pipelines.io.formats.base import AsWritten
from cappy_model.sandbox.budget import Unusable
from cappy_model.sandbox.written import parse_cell, parse_json
from schemas.records import is_binary
from schemas.values import json_of, python_columns


class Variables:
    """The values of template variables in the rows of a unit.

    Numbers of text files print as written. Bytes are text where they are UTF-8, at any depth: old Spark and Impala
    write text without marking it. Other bytes are Unusable.

    Args:
      rows: the rows; their columns are named like the variables.
      as_written: how text columns were read (see `ReadSpec`).
    """

    def __init__(self, rows: pa.RecordBatch, as_written: Mapping[str, AsWritten]) -> None:
        self._fields = list(rows.schema)
        self._columns = python_columns(rows)
        self._as_written = as_written

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows."""
        names = [field.name for field in self._fields]
        columns = [
            _variable(values, field.type, self._as_written.get(field.name))
            for values, field in zip(self._columns, self._fields, strict=True)
        ]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))

    def excerpt(self, row: int) -> str:
        """Return the JSON of a row for a reject; values that were read as JSON stand as in their file."""
        values = {field.name: column[row] for field, column in zip(self._fields, self._columns, strict=True)}
        parts = {name: values[name] or "null" for name in values if self._as_written.get(name) == "json"}
        if not parts:
            return json_of(values)
        parts = {name: parts.get(name) or json_of(value) for name, value in values.items()}
        return f"{{{', '.join(f'{json_of(name)}: {part}' for name, part in parts.items())}}}"


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
    return any(is_binary(inner) for inner, _ in nested_types(kind))


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
