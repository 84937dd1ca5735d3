"""Columns of JSON Lines: values that are text as their file has them, and rows that do not fit a column."""

import json
import re
from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any

import pyarrow as pa

from beam_pipelines.io.formats.base import AsWritten
from beam_pipelines.io.formats.json_types import DoesNotFit, as_texts, infinite_rows, is_text_list, make_array
from beam_pipelines.io.formats.text import Column, ParsedRow

_DETAIL_CHARACTERS = 100
_BLANK = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder().raw_decode
_quote = json.JSONEncoder(ensure_ascii=False).encode

JsonRow = ParsedRow[dict[str, Any]]


def fields_of(text: str) -> dict[str, str]:
    """Return the JSON text of each field of an object, as it stands in `text`, which must be valid."""
    fields = {}
    position = _skip_blank(text, text.index("{") + 1)
    while text[position] != "}":
        name, stop = _scan(text, position)
        start = _skip_blank(text, _skip_blank(text, stop) + 1)  # behind the colon
        _, stop = _scan(text, start)
        fields[name] = text[start:stop]
        position = _skip_blank(text, stop)
        if text[position] == ",":
            position = _skip_blank(text, position + 1)
    return fields


def _skip_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    assert match is not None  # it matches the empty text
    return match.end()


def write_columns(row: dict[str, Any], text: str, as_written: Mapping[str, AsWritten]) -> None:
    """Replace the values of the columns of `as_written` by their JSON text; with "text", strings stay as they are."""
    fields: dict[str, str] | None = None
    for name, how in as_written.items():
        value = row.get(name)
        if value is None or (how == "text" and isinstance(value, str)):
            continue
        if isinstance(value, str | bool) or (isinstance(value, int) and (value or "-0" not in text)):
            row[name] = _quote(value)
        else:
            fields = fields_of(text) if fields is None else fields
            row[name] = fields[name]


def convert_column(rows: Sequence[JsonRow], field: pa.Field) -> Column:
    """Convert one column of parsed rows; an absent field is null. Text takes numbers, digit by digit, and booleans."""
    values = [row.row.get(field.name) for row in rows]  # type: ignore[union-attr]
    unfit: dict[int, str] = {}
    try:
        array = make_array(values, field.type)
    except DoesNotFit:
        convert = _convert_texts if pa.types.is_string(field.type) or is_text_list(field.type) else _drop_unfit
        array = make_array(convert(rows, values, field, unfit), field.type)
    for row in infinite_rows(array):
        if _overflows(rows[row], field.name):
            unfit[row] = _describe(rows[row], field)
    return Column(array, unfit)


def _convert_texts(rows: Sequence[JsonRow], values: list[Any], field: pa.Field, unfit: dict[int, str]) -> list[Any]:
    converted = []
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        if isinstance(value, int | float | list) and not isinstance(value, bool):
            value = json.loads(fields_of(row.text)[field.name], parse_int=str, parse_float=str, parse_constant=str)
        try:
            converted.append(as_texts(value, field.type))
        except DoesNotFit:
            unfit[number] = _describe(row, field)
            converted.append(None)
    return converted


def _drop_unfit(rows: Sequence[JsonRow], values: list[Any], field: pa.Field, unfit: dict[int, str]) -> list[Any]:
    """Return the values with None for each that does not fit: one in a thousand costs about ten more conversions."""
    fitting = list(values)
    ranges = [(0, len(values))]
    while ranges:
        start, stop = ranges.pop()
        try:
            make_array(values[start:stop], field.type)
        except DoesNotFit:
            if stop - start > 1:
                middle = (start + stop) // 2
                ranges += [(start, middle), (middle, stop)]
            else:
                unfit[start] = _describe(rows[start], field)
                fitting[start] = None
    return fitting


def _overflows(row: JsonRow, name: str) -> bool:
    """Return whether a number of a field is beyond the range of double; `Infinity` is a value."""
    found = False

    def parse(digits: str) -> float:
        nonlocal found
        number = float(digits)
        found = found or isinf(number)
        return number

    json.loads(fields_of(row.text)[name], parse_float=parse)
    return found


def _describe(row: JsonRow, field: pa.Field) -> str:
    """Return why a row does not fit, with the value as the file has it."""
    written = fields_of(row.text)[field.name]
    if len(written) > _DETAIL_CHARACTERS:
        written = f"{written[:_DETAIL_CHARACTERS]}..."
    return (
        f"column {field.name!r}: {written} does not fit its type, {field.type}; "
        f"if the job only carries it, --text-columns {field.name} keeps the text of the file"
    )
