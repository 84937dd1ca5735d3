"""Cells of CSV: their types, and columns of them. Text is read as written."""

import re
from collections.abc import Sequence
from math import isinf
from typing import NamedTuple

import pyarrow as pa

from beam_pipelines.io.formats.base import AsWritten
from beam_pipelines.io.formats.text import Column, ParsedRow

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_CODE = re.compile(r"[-+]?0[0-9]")  # begins like a telephone number or a postal code, which is text
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}
_DETAIL_CHARACTERS = 100
_MAX_DIGITS = 400  # a float has at most 309 before its point; Python refuses integers of more than 4,300


class CellType(NamedTuple):
    """The type of a column, and the type that most of its cells look like if that is another, else None."""

    kind: pa.DataType
    mostly: pa.DataType | None


def infer_type(cells: Sequence[str]) -> CellType:
    """Return the type of cells: a number only if each reads back the same, else text. null if all are empty."""
    present = [cell for cell in cells if cell]
    if not present:
        return CellType(pa.null(), None)
    if all(map(_is_int64, present)):
        return CellType(pa.int64(), None)
    if all(map(_is_float64, present)):
        return CellType(pa.float64(), None)
    numbers = [cell for cell in present if _looks_like_number(cell)]
    if 2 * len(numbers) > len(present):
        return CellType(pa.string(), pa.int64() if all(map(_is_int64, numbers)) else pa.float64())
    if 2 * sum(cell in _BOOLEANS for cell in present) > len(present):
        return CellType(pa.string(), pa.bool_())
    return CellType(pa.string(), None)


def _is_int64(cell: str) -> bool:
    return len(cell) <= 20 and bool(_INTEGER.fullmatch(cell)) and cell != "-0" and -(2**63) <= int(cell) < 2**63


def _is_float64(cell: str) -> bool:
    return len(cell) <= _MAX_DIGITS and bool(_NUMBER.fullmatch(cell)) and repr(float(cell)) == cell


def _looks_like_number(cell: str) -> bool:
    return len(cell) <= _MAX_DIGITS and bool(_NUMBER.fullmatch(cell)) and not _CODE.match(cell)


def convert_column(
    rows: Sequence[ParsedRow[list[str]]], index: int | None, field: pa.Field, how: AsWritten | None
) -> Column:
    """Convert one column of parsed rows; `index` is its place among the cells of a row, None if the file lacks it.

    Text is what the cell holds, an empty one included, which is null with "cell" and in columns of any other type.
    """
    if index is None:
        return Column(pa.nulls(len(rows), field.type), {})
    cells = [row.row[index] for row in rows]  # type: ignore[index]
    if pa.types.is_string(field.type):
        return Column(pa.array([cell or None for cell in cells] if how == "cell" else cells, field.type), {})
    unfit = {}
    values: list[object] = []
    for row, cell in enumerate(cells):
        value = None
        if cell:
            value = _value(cell, field.type)
            if value is None:
                unfit[row] = (
                    f"column {field.name!r}: {cell[:_DETAIL_CHARACTERS]!r} does not fit its type, {field.type}; "
                    f"if the job only carries it, --text-columns {field.name} keeps the text of the file"
                )
        values.append(value)
    return Column(pa.array(values, field.type), unfit)


def _value(cell: str, kind: pa.DataType) -> int | float | bool | None:
    """Convert a cell that is not empty to a value of `kind`; None if it is none.

    An integer must read back the same: `007` is text. Numbers of float64 may be written in any way.
    """
    if pa.types.is_boolean(kind):
        return _BOOLEANS.get(cell)
    if pa.types.is_int64(kind):
        return int(cell) if _is_int64(cell) else None
    if pa.types.is_float64(kind) and len(cell) <= _MAX_DIGITS and _NUMBER.fullmatch(cell):
        number = float(cell)
        return None if isinf(number) or _loses_digits(cell, number) else number
    return None


def _loses_digits(cell: str, number: float) -> bool:
    """Return whether an integer is beyond those that a float holds."""
    return abs(number) > 2**53 and bool(_INTEGER.fullmatch(cell)) and int(cell) != number
