"""The interface of formats: input files, spans, blocks of rows, and the `Format` that a module defines."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.storage import StorageOptions
from schemas.chunks import CHUNK_BYTES, invalid_text_rows, row_bytes

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Ending of a file's name -> compression, as Arrow calls it."""


def compression_of(url: str) -> str | None:
    """Return "gzip", "zstd" or None by the ending of a file's name."""
    return next((name for ending, name in COMPRESSIONS.items() if url.endswith(ending)), None)


@dataclass(frozen=True)
class InputFile:
    """One input file.

    Args:
      number: position among the files of the job, from 0.
      group: index of the job's input that it belongs to (in a mixture, the index of the dataset).
      url: path or fsspec URL.
      name: path relative to the fixed part of the input's pattern.
      size: bytes on storage.
      ends: 128-bit blake2b hash, hex, of the first and last 64 KB.
      rows: number of rows, at most `limit`.
      limit: read only the first `limit` rows; None for all.
      storage: options for fsspec.
    """

    number: int
    group: int
    url: str
    name: str
    size: int
    ends: str
    rows: int
    limit: int | None
    storage: StorageOptions = field(default_factory=dict, repr=False)

    def fingerprint_inputs(self) -> dict[str, object]:
        """Return what the fingerprint of a run records about this file."""
        return {"name": self.name, "size": self.size, "ends": self.ends, "rows": self.rows}


class FileSummary(NamedTuple):
    """Schema of a file (text normalized to string), its number of rows, and its size in bytes when uncompressed."""

    schema: pa.Schema
    rows: int
    bytes: int


class ReadSpec(NamedTuple):
    """How a job reads an input.

    Args:
      schema: columns to read; a column that a file lacks is null.
      unit_rows: largest number of rows in a unit.
      exact: reject rows of JSON Lines that have a field outside `schema`. (The other formats declare their
        columns up front, so no row can have an unknown field.)
    """

    schema: pa.Schema
    unit_rows: int
    exact: bool = False


class Span(NamedTuple):
    """The half-open range of a file that one read covers: rows of Parquet, bytes of plain JSON Lines.

    `stop` is -1 for the rest of the file.
    """

    start: int
    stop: int


class BadRow(NamedTuple):
    """A row that cannot be used. `position` is its place in the file; `reason` a short code, as in REJECT."""

    position: int
    reason: str
    detail: str
    excerpt: str | None


class RowBlock(NamedTuple):
    """Consecutive rows of a file: `rows` that can be used, their `positions` (int64), and the `bad` ones."""

    positions: np.ndarray
    rows: pa.RecordBatch
    bad: list[BadRow]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format of inputs.

    Args:
      name: name of the format.
      endings: endings of file names, with the dot.
      inspect: returns the summary of the file at a URL. Raises OSError, and UnreadableFile for a damaged file.
      spans: yields the spans of a file in order, given the rows of a unit.
      read: yields the units of one span, projected to the columns of the spec.
      compressible: whether `.gz` or `.zst` may follow the ending.
      position_mark: precedes the position of a row: "#" for its number, "@" for its byte offset.
      empty_as_text: whether a column without any value is text rather than null.
    """

    name: str
    endings: tuple[str, ...]
    inspect: Callable[[str, StorageOptions], FileSummary]
    spans: Callable[[InputFile, int], Iterator[Span]]
    read: Callable[[InputFile, Span, ReadSpec], Iterator[RowBlock]]
    compressible: bool = True
    position_mark: str = "#"
    empty_as_text: bool = False


def reject_unusable(block: RowBlock) -> RowBlock:
    """Move the rows with invalid UTF-8, and those larger than a chunk, to the bad rows of the block."""
    bad = dict.fromkeys(invalid_text_rows(block.rows), ("invalid_utf8", "a text column holds bytes that are not UTF-8"))
    sizes = row_bytes(block.rows)
    for row in np.flatnonzero(sizes > CHUNK_BYTES).tolist():
        bad[row] = ("row_too_large", f"{sizes[row]:,} bytes; a row may have {CHUNK_BYTES:,}")
    if not bad:
        return block
    good = np.setdiff1d(np.arange(block.rows.num_rows), list(bad))
    rejected = [BadRow(int(block.positions[row]), *why, None) for row, why in bad.items()]
    return RowBlock(block.positions[good], block.rows.take(pa.array(good)), sorted(block.bad + rejected))
