"""Shared by the text formats: cut parsed rows into units, whose columns are converted one by one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from beam_pipelines.io.formats.base import BadRow, RowBlock
from schemas.chunks import CHUNK_BYTES
from schemas.records import EXCERPT_CHARACTERS

HEAD_ROWS = 10_000
"""Number of rows from which columns and types are inferred."""

_Row = TypeVar("_Row")


class ParsedRow(NamedTuple, Generic[_Row]):
    """One parsed row: `row` if it is good, else `bad`. `size` in bytes; `text` is its text, or the beginning of it."""

    position: int
    row: _Row | None
    bad: BadRow | None
    size: int
    text: str


class Column(NamedTuple):
    """A converted column of a block: its values, and the reason for each row that does not fit (its value is null)."""

    values: pa.Array
    unfit: dict[int, str]


Convert = Callable[[Sequence[ParsedRow[_Row]], pa.Field], Column]
"""Converts one column of good rows."""


def cut_units(
    parsed: Iterable[ParsedRow[_Row]], schema: pa.Schema, unit_rows: int, convert: Convert[_Row]
) -> Iterator[RowBlock]:
    """Yield consecutive rows in blocks of `unit_rows` rows or `CHUNK_BYTES` bytes, bad rows included in both."""
    waiting: list[ParsedRow[_Row]] = []
    held = 0
    for row in parsed:
        waiting.append(row)
        held += row.size
        if len(waiting) >= unit_rows or held >= CHUNK_BYTES:
            yield _make_block(waiting, schema, convert)
            waiting, held = [], 0
    if waiting:
        yield _make_block(waiting, schema, convert)


def _make_block(parsed: list[ParsedRow[_Row]], schema: pa.Schema, convert: Convert[_Row]) -> RowBlock:
    """Make a block of parsed rows; those that do not fit `schema` join the bad rows."""
    bad = [item.bad for item in parsed if item.bad]
    good = [item for item in parsed if not item.bad]
    columns = [convert(good, field) for field in schema]
    positions = np.array([item.position for item in good], dtype=np.int64)
    rows = pa.RecordBatch.from_arrays([column.values for column in columns], schema=schema)
    unfit = {row: detail for column in reversed(columns) for row, detail in column.unfit.items()}  # the first wins
    if unfit:
        for row, detail in unfit.items():
            excerpt = good[row].text[:EXCERPT_CHARACTERS].rstrip("\r\n")
            bad.append(BadRow(good[row].position, "does_not_fit", detail, excerpt))
        fitting = np.setdiff1d(np.arange(len(good)), list(unfit))
        positions, rows = positions[fitting], rows.take(pa.array(fitting))
    return RowBlock(positions, rows, sorted(bad, key=lambda row: row.position))
