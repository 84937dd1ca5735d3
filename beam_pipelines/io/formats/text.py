"""Shared by the text formats: opening compressed files, and cutting parsed rows into units."""

import json
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.columns import make_batch
from beam_pipelines.io.formats.base import BadRow, RowBlock, compression_of
from beam_pipelines.io.storage import StorageOptions, open_file
from schemas.chunks import CHUNK_BYTES

HEAD_ROWS = 10_000
"""Number of rows from which columns and types are inferred."""


class ParsedRow(NamedTuple):
    """One parsed row: `row` if it is good, else `bad`. `size` in bytes."""

    position: int
    row: dict[str, object] | None
    bad: BadRow | None
    size: int


def open_text(url: str, storage: StorageOptions) -> IO[bytes]:
    """Open a text file, decompressed as the ending of its name says. Raises OSError and CappyError."""
    return open_file(url, storage, compression_of(url))


def cut_units(parsed: Iterable[ParsedRow], schema: pa.Schema, unit_rows: int) -> Iterator[RowBlock]:
    """Yield consecutive rows in blocks of `unit_rows` rows or `CHUNK_BYTES` bytes, bad rows included in both."""
    waiting: list[ParsedRow] = []
    held = 0
    for row in parsed:
        waiting.append(row)
        held += row.size
        if len(waiting) >= unit_rows or held >= CHUNK_BYTES:
            yield _make_block(waiting, schema)
            waiting, held = [], 0
    if waiting:
        yield _make_block(waiting, schema)


def _make_block(parsed: list[ParsedRow], schema: pa.Schema) -> RowBlock:
    """Make a block of parsed rows; those that do not fit `schema` join the bad rows."""
    bad = [item.bad for item in parsed if item.bad]
    good = [(item.position, item.row) for item in parsed if item.row is not None]
    try:
        rows = make_batch([row for _, row in good], schema)
    except ValueError:
        fitting = []
        for position, row in good:
            try:
                make_batch([row], schema)
            except ValueError as error:
                excerpt = json.dumps(row, ensure_ascii=False, default=str)
                bad.append(BadRow(position, "does_not_fit", str(error), excerpt))
            else:
                fitting.append((position, row))
        good, rows = fitting, make_batch([row for _, row in fitting], schema)
    return RowBlock(np.array([position for position, _ in good], dtype=np.int64), rows, sorted(bad))
