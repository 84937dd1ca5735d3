"""The table of a finished run as one file for other tools: CSV, JSON Lines or Parquet."""

import base64
import json
import logging
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from math import isfinite
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.columns import nested_types
from beam_pipelines.io.formats.base import split_compression
from beam_pipelines.io.storage import StorageOptions, absolute, explained, file_system, join, written_whole
from beam_pipelines.runs.data import data_entries
from beam_pipelines.runs.result import RunResult
from schemas.carried import plain_type
from schemas.chunks import CHUNK_BYTES, CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.records import is_binary
from schemas.values import python_values

_LOG = logging.getLogger("cappy")

_COMPRESSIONS = ("gzip", "zstd", "bz2")


class _Kind(NamedTuple):
    """A kind of file: what writes it, and whether its values are text, so that it can be compressed."""

    write: Callable[[IO[bytes], pa.RecordBatchReader], None]
    text: bool


def export(result: RunResult, file: str, *, overwrite: bool = False, storage: StorageOptions | None = None) -> int:
    """Write the table of a run to one file, whole or not at all; return its number of rows.

    Memory holds one file of the run at a time. Rows have the order of the run's files.

    Args:
      result: the finished run.
      file: path or fsspec URL; the ending of its name says what it becomes: `.csv`, `.jsonl` or `.parquet`. Text may be
        compressed: `.gz`, `.zst` or `.bz2` follows.
      overwrite: replace an existing file.
      storage: options for fsspec to reach `file`.

    Raises UsageError for another ending, and CappyError for a file that exists or cannot be written, and as
    `RunResult.table`.
    """
    url, storage = absolute(file), storage or {}
    kind, compression = _kind_of(url)
    _check_place(result, url, overwrite=overwrite, storage=storage)
    reader = result.reader()
    if kind.text:
        for name in _binary_columns(reader.schema):
            _LOG.warning("%s: column %r holds bytes, which are written as base64", url, name)
    with written_whole(url, storage) as target, ExitStack() as compressed:
        if compression is not None:
            target = compressed.enter_context(pa.CompressedOutputStream(pa.PythonFile(target, "w"), compression))
        kind.write(target, reader)
    return sum(entry["rows"] for entry in data_entries(result.manifest))


def _kind_of(url: str) -> tuple[_Kind, str | None]:
    stem, compression = split_compression(url)
    kind = _KINDS.get(posixpath.splitext(stem)[1])
    if kind is None or (compression and not (kind.text and compression in _COMPRESSIONS)):
        raise UsageError(
            f"{url}: the name of the file must end in {', '.join(_KINDS)}; after .csv and .jsonl .gz, .zst or .bz2 may "
            "follow"
        )
    return kind, compression


def _check_place(result: RunResult, url: str, *, overwrite: bool, storage: StorageOptions) -> None:
    """Raise CappyError for a file that must not be replaced, or that would lie among the data files of the run."""
    folders = {posixpath.dirname(join(result.folder, entry["path"])) for entry in data_entries(result.manifest)}
    if posixpath.dirname(url) in folders:
        raise CappyError(f"{url}: lies among the data files of the run; give a file in another folder")
    fs, path = file_system(url, storage)
    with explained(url, "written"):
        if fs.isdir(path):
            raise CappyError(f"{url}: is a folder; give the name of a file")
        if not overwrite and fs.exists(path):
            raise CappyError(f"{url}: exists; give another name, or --overwrite to replace it")


def _binary_columns(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _holds(field.type, is_binary)]


def _holds(kind: pa.DataType, matches: Callable[[pa.DataType], bool]) -> bool:
    """Return whether a type, or one in it at any depth, matches."""
    return any(matches(inner) for inner, _ in nested_types(plain_type(kind)))


def _write_csv(target: IO[bytes], reader: pa.RecordBatchReader) -> None:
    nested = [field.name for field in reader.schema if pa.types.is_nested(plain_type(field.type))]
    finite = _Finite(reader.schema, nested)
    target.write((",".join(map(_quoted, reader.schema.names)) + "\n").encode())
    for batch in reader:
        columns = (map(_cell, column) for column in finite.columns(batch))
        target.write("".join(f"{','.join(cells)}\n" for cells in zip(*columns, strict=True)).encode())


def _cell(value: object) -> str:
    """Return a value as a cell: null is empty, any text is in quotes, and floats have all digits."""
    if value is None:
        return ""
    if isinstance(value, str):  # in quotes also where it need not be: a bare NULL or NA reads back as null
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value) if value == value else "NaN"
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list | dict):
        return _quoted(_json(value))
    return _quoted(_text(value))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _write_json_lines(target: IO[bytes], reader: pa.RecordBatchReader) -> None:
    names = reader.schema.names
    finite = _Finite(reader.schema, names)
    for batch in reader:
        rows = zip(*finite.columns(batch), strict=True)
        target.write("".join(f"{_json(dict(zip(names, row, strict=True)))}\n" for row in rows).encode())


class _Finite:
    """Writes NaN and infinities of columns that become JSON, which lacks them, as null; warns once for a column."""

    def __init__(self, schema: pa.Schema, columns: Sequence[str]) -> None:
        floats = [field.name for field in schema if _holds(field.type, pa.types.is_floating)]
        self._columns = set(columns).intersection(floats)
        self._warned: set[str] = set()

    def columns(self, batch: pa.RecordBatch) -> Iterator[list[object]]:
        """Yield the columns of a batch as Python objects."""
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            values = python_values(column)
            yield self._finite(name, values) if name in self._columns else values

    def _finite(self, name: str, values: list[object]) -> list[object]:
        finite = [_finite(value) for value in values]
        if name not in self._warned and finite != values:
            self._warned.add(name)
            _LOG.warning("column %r holds NaN or infinities, which JSON lacks: they are written as null", name)
        return finite


def _finite(value: object) -> object:
    """Return a value with None for NaN and infinities at any depth."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):
        return type(value)(map(_finite, value))
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def _text(value: object) -> str:
    """Return a value that JSON has no form for as text: bytes as base64; dates, times and decimals with all digits."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_json = json.JSONEncoder(ensure_ascii=False, default=_text).encode


def _write_parquet(target: IO[bytes], reader: pa.RecordBatchReader) -> None:
    with pq.ParquetWriter(target, reader.schema, compression="zstd") as writer:
        for group in _row_groups(reader):
            writer.write_table(group, row_group_size=CHUNK_ROWS)


def _row_groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Gather batches to tables of about 16,384 rows, fewer where they exceed 16 MB."""
    waiting: list[pa.RecordBatch] = []
    rows, size = 0, 0
    for batch in reader:
        if waiting and (rows + batch.num_rows > CHUNK_ROWS or size >= CHUNK_BYTES):
            yield pa.Table.from_batches(waiting, reader.schema)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting, reader.schema)


_KINDS = {
    ".csv": _Kind(_write_csv, text=True),
    ".jsonl": _Kind(_write_json_lines, text=True),
    ".parquet": _Kind(_write_parquet, text=False),
}
