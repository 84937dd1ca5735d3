"""The interface of formats: input files, spans, blocks of rows, and the `Format` that a module defines."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.storage import StorageOptions, path_of
from cappy_model.work import rows_of_unit
from schemas.chunks import CHUNK_BYTES, invalid_text_rows, row_bytes

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4"}
"""Ending of a file's name, in any case -> compression."""

CSV_ENDINGS = (".csv", ".tsv")


def split_compression(url: str) -> tuple[str, str | None]:
    """Return the path of a URL in lower case, without the ending of a compression, and that compression or None."""
    path = path_of(url).lower()
    for ending, name in COMPRESSIONS.items():
        if path.endswith(ending):
            return path.removesuffix(ending), name
    return path, None


def compression_of(url: str) -> str | None:
    """Return the compression of a text file by the ending of its name, or None."""
    return split_compression(url)[1]


@dataclass(frozen=True)
class Dialect:
    """How text files are read.

    Args:
      delimiter: what separates the fields of CSV; None: a comma, or a tab where a name ends in `.tsv`.
      encoding: a codec of Python; None: UTF-8, with or without a byte order mark.
    """

    delimiter: str | None = None
    encoding: str | None = None


UTF_8 = Dialect()
"""Commas or tabs, and UTF-8."""

AsWritten = Literal["text", "json", "cell"]
"""How a column is read that is text as its file has it (see `ReadSpec`)."""


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
      dialect: how a text file is read.
      bytes: uncompressed bytes of its rows, about.
      text_bytes: those of each column that the job needs as text, where the file tells the sizes of columns.
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
    dialect: Dialect = UTF_8
    bytes: int = 0
    text_bytes: Mapping[str, int] = field(default_factory=dict, repr=False)

    def fingerprint_inputs(self) -> dict[str, object]:
        """Return what the fingerprint of a run records about this file."""
        inputs: dict[str, object] = {"name": self.name, "size": self.size, "ends": self.ends, "rows": self.rows}
        if split_compression(self.url)[0].endswith(CSV_ENDINGS):
            inputs["cells"] = "as written"  # earlier versions read 3.50 as 3.5
        return inputs


class FileSummary(NamedTuple):
    """Columns of a file, its number of rows, and its size in bytes when uncompressed.

    Args:
      schema: the columns and their types; null where no row has a value.
      rows: number of rows, readable or not.
      bytes: size when uncompressed.
      mostly: the type of most values of a column that `schema` has as text because its values are of several types in
        JSON, or because they are cells of CSV that would not read back the same as numbers (`3.50`) or booleans.
      unusable: the reason for each column that cannot be read; `schema` lacks these.
      column_bytes: the part of `bytes` of each column, where the file tells it.
    """

    schema: pa.Schema
    rows: int
    bytes: int
    mostly: Mapping[str, pa.DataType] = {}
    unusable: Mapping[str, str] = {}
    column_bytes: Mapping[str, int] = {}


class UnitWork(NamedTuple):
    """How much work makes a unit, in bytes of text (see `cappy_model.work`).

    A row counts with the bytes of its texts in `columns`, at most `row_bytes`, and with `fixed` more. Where one of the
    columns is a list of texts, it counts so for each of them.

    Args:
      bytes: most bytes of a unit before its last row; rows that have more are cut evenly.
      columns: the texts that the work depends on.
      row_bytes: the rest of longer texts is cut by the model; None: nothing is.
      fixed: the work of a row whatever its length.
    """

    bytes: int
    columns: tuple[str, ...]
    row_bytes: int | None = None
    fixed: int = 0

    def of_mean(self, text_bytes: float) -> float:
        """Return the work of a row with texts of so many bytes."""
        return self.fixed + (text_bytes if self.row_bytes is None else min(text_bytes, self.row_bytes))


class ReadSpec(NamedTuple):
    """How a job reads an input.

    Args:
      schema: columns to read; a column that a file lacks is null.
      unit_rows: largest number of rows in a unit.
      exact: reject rows of JSON Lines that have a field outside `schema`. (The other formats declare their
        columns up front, so no row can have an unknown field.)
      as_written: the text columns of `schema` that hold values of other types, too, as their file has them. "text":
        strings as they are, all other values as JSON. "json": all values as JSON, for templates. "cell": cells of CSV,
        null where they are empty, for templates. A text column that is not named here takes strings, numbers (digit by
        digit) and booleans (`true`, `false`); rows with a list or an object are rejected.
      work: the work of a unit of a job with a model; None: only `unit_rows` counts.
    """

    schema: pa.Schema
    unit_rows: int
    exact: bool = False
    as_written: Mapping[str, AsWritten] = {}
    work: UnitWork | None = None


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
      inspect: returns the summary of the file at a URL, read in a dialect. Raises OSError, and UnreadableFile for a
        damaged file.
      spans: yields the spans of a file in order, for units as the spec says (see `unit_rows_of`).
      read: yields the units of one span, projected to the columns of the spec.
      compressible: whether the ending of a compression may follow.
      position_mark: precedes the position of a row: "#" for its number, "@" for its byte offset.
      written_as: how a column is read that is text as the file has it; None for a format with types of its own.
    """

    name: str
    endings: tuple[str, ...]
    inspect: Callable[[str, StorageOptions, Dialect], FileSummary]
    spans: Callable[[InputFile, ReadSpec], Iterator[Span]]
    read: Callable[[InputFile, Span, ReadSpec], Iterator[RowBlock]]
    compressible: bool = True
    position_mark: str = "#"
    written_as: AsWritten | None = None


def unit_rows_of(file: InputFile, spec: ReadSpec) -> int:
    """Return the largest number of rows in a unit of a file.

    With `ReadSpec.work` it follows from the mean size of the file's own rows, so that other files change nothing.
    """
    work = spec.work
    if work is None or not file.rows:
        return spec.unit_rows
    known = all(name in file.text_bytes for name in work.columns)
    size = sum(file.text_bytes[name] for name in work.columns) if known else file.bytes
    return rows_of_unit(work.bytes, work.of_mean(size / file.rows), spec.unit_rows)


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
