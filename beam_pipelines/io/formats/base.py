"""What the formats share: input files, pieces of them, and columns made of Python values."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.storage import StorageOptions, open_file
from schemas.chunks import CHUNK_BYTES, invalid_text_rows, row_bytes
from schemas.errors import CappyError
from schemas.records import is_text

_KINDS = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
HEAD_ROWS = 10_000
"""Rows that decide the columns and types of a JSON Lines or CSV file."""


def kind_of(url: str) -> tuple[str, str | None]:
    """("parquet", "jsonl" or "csv", and "gzip", "zstd" or None) by the ending of a file's name."""
    stem, compression = url, None
    for ending, name in _COMPRESSIONS.items():
        if url.endswith(ending):
            stem, compression = url.removesuffix(ending), name
    for ending, kind in _KINDS.items():
        if stem.endswith(ending) and not (compression and kind == "parquet"):
            return kind, compression
    known = ".parquet, and .jsonl or .csv, each of the two plain, .gz or .zst"
    raise CappyError(f"{url}: the format is told by the ending of the name, which must be one of {known}")


def open_text(url: str, storage: StorageOptions) -> IO[bytes]:
    """A JSON Lines or CSV file, decompressed where the ending of its name says so. Raises OSError, CappyError."""
    return open_file(url, storage, kind_of(url)[1])


@dataclass(frozen=True)
class InputFile:
    """One input file.

    `name` is the path relative to the fixed part of its pattern; `group` says which of the job's inputs it belongs to
    (the dataset's number in a mixture); `ends` is a hash of its first and last 64 KB; `rows` is its number of rows,
    after any limit.
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

    def facts(self) -> dict[str, object]:
        """What the fingerprint of a run says of the file."""
        return {"name": self.name, "size": self.size, "ends": self.ends, "rows": self.rows}


class Facts(NamedTuple):
    """What the launcher learns of a file: its columns (text normalised to string), rows and bytes when uncompressed."""

    schema: pa.Schema
    rows: int
    bytes: int


class ReadSpec(NamedTuple):
    """What a job wants of an input: the columns, and the rows of a unit.

    `exact`: a JSON Lines row with any other field is a bad row; other formats name their columns before the first row.
    """

    schema: pa.Schema
    unit_rows: int
    exact: bool = False


class Span(NamedTuple):
    """The part of a file that one read covers: rows for Parquet, bytes for plain JSON Lines, all of it otherwise."""

    start: int
    stop: int


class BadRow(NamedTuple):
    """A row that cannot be used, with its position in the file."""

    position: int
    reason: str
    detail: str
    excerpt: str | None


class Piece(NamedTuple):
    """Consecutive rows of a file: the good ones with their positions, and the bad ones."""

    positions: np.ndarray
    rows: pa.RecordBatch
    bad: list[BadRow]


class UnreadableFile(CappyError):
    """A file whose columns cannot be learned."""


def normal_type(kind: pa.DataType) -> pa.DataType:
    """`kind` with every form of text as string, at any depth."""
    if is_text(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(child.name, normal_type(child.type)) for child in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(normal_type(kind.value_type))
    return kind


def fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of type `found` are values of type `wanted` without losing anything.

    Integers fit doubles by type; one beyond 2**53 does not by value, which Arrow notices.
    """
    if found.equals(wanted) or pa.types.is_null(found):
        return True
    if pa.types.is_floating(wanted) and (pa.types.is_integer(found) or pa.types.is_floating(found)):
        return pa.types.is_float64(wanted) or found.bit_width < wanted.bit_width
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return fits(found.value_type, wanted.value_type)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        return all(wanted.get_field_index(f.name) >= 0 and fits(f.type, wanted.field(f.name).type) for f in found)
    return False


def nested_types(kind: pa.DataType) -> Iterator[tuple[pa.DataType, int]]:
    """`kind` and every type inside of it, each with its depth: 1 for `kind` itself."""
    waiting = [(kind, 1)]
    while waiting:
        found, depth = waiting.pop()
        yield found, depth
        waiting += [(found.field(i).type, depth + 1) for i in range(found.num_fields)]


def column(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """An Arrow column of exactly `kind`.

    Raises ValueError for any value that does not fit: Arrow alone would cut 1.5 to 1, a string into a list of its
    characters, and drop unknown fields of a struct.
    """
    try:
        found = pa.array(values)
        if fits(found.type, kind):
            return found if found.type.equals(kind) else pa.array(values, kind)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"holds {found.type}, not {kind}")


class Record(NamedTuple):
    """One row of a text format as it is read: `row` when it is good, `bad` when it is not; `size` in bytes."""

    position: int
    row: dict[str, object] | None
    bad: BadRow | None
    size: int


def units_of(records: Iterable[Record], schema: pa.Schema, unit_rows: int) -> Iterator[Piece]:
    """Consecutive records as pieces of `unit_rows` rows or `CHUNK_BYTES` bytes, good and bad rows counted alike."""
    waiting: list[Record] = []
    held = 0
    for record in records:
        waiting.append(record)
        held += record.size
        if len(waiting) >= unit_rows or held >= CHUNK_BYTES:
            yield _piece(waiting, schema)
            waiting, held = [], 0
    if waiting:
        yield _piece(waiting, schema)


def _piece(records: list[Record], schema: pa.Schema) -> Piece:
    """A piece of records; a row that does not fit `schema` joins the bad ones."""
    bad = [record.bad for record in records if record.bad]
    good = [(record.position, record.row) for record in records if record.row is not None]
    try:
        chunk = _batch([row for _, row in good], schema)
    except ValueError:
        fitting = []
        for position, row in good:
            try:
                _batch([row], schema)
            except ValueError as error:
                excerpt = json.dumps(row, ensure_ascii=False, default=str)
                bad.append(BadRow(position, "does_not_fit", str(error), excerpt))
            else:
                fitting.append((position, row))
        good, chunk = fitting, _batch([row for _, row in fitting], schema)
    return Piece(np.array([position for position, _ in good], dtype=np.int64), chunk, sorted(bad))


def _batch(rows: list[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for wanted in schema:
        try:
            arrays.append(column([row.get(wanted.name) for row in rows], wanted.type))
        except ValueError as error:
            raise ValueError(f"column {wanted.name!r}: {error}") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def checked(piece: Piece) -> Piece:
    """`piece` without the rows that hold invalid UTF-8 or are larger than a chunk; those join the bad ones."""
    bad = dict.fromkeys(invalid_text_rows(piece.rows), ("invalid_utf8", "a text column holds bytes that are not UTF-8"))
    sizes = row_bytes(piece.rows)
    for row in np.flatnonzero(sizes > CHUNK_BYTES).tolist():
        bad[row] = ("row_too_large", f"{sizes[row]:,} bytes; a row may have {CHUNK_BYTES:,}")
    if not bad:
        return piece
    good = np.setdiff1d(np.arange(piece.rows.num_rows), list(bad))
    rejected = [BadRow(int(piece.positions[row]), *why, None) for row, why in bad.items()]
    return Piece(piece.positions[good], piece.rows.take(pa.array(good)), sorted(piece.bad + rejected))


def infer_schema(rows: Sequence[dict[str, object]], where: str) -> pa.Schema:
    """The columns of Python rows, in order of first appearance. Raises UnreadableFile where a column mixes types."""
    names = dict.fromkeys(name for row in rows for name in row)
    fields = []
    for name in names:
        try:
            kind = pa.array([row.get(name) for row in rows]).type
        except (pa.ArrowException, UnicodeError, OverflowError) as error:
            raise UnreadableFile(
                f"{where}: column {name!r} mixes types in its first {len(rows):,} rows: {error}. "
                "Give every row of a column one type, or drop the column."
            ) from error
        fields.append(pa.field(name, kind))
    return pa.schema(fields)
