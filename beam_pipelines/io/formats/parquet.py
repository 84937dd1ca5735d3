"""Parquet inputs. A span is a range of rows; row groups are decoded one at a time, in small batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.columns import UnreadableFile, unusable_reason
from beam_pipelines.io.formats.base import (
    BadRow,
    Dialect,
    FileSummary,
    Format,
    InputFile,
    ReadSpec,
    RowBlock,
    Span,
    reject_unusable,
    unit_rows_of,
)
from beam_pipelines.io.storage import StorageOptions, open_file
from cappy_model.parquet import UndecodableGroup, open_parquet, read_group
from schemas.carried import read_field
from schemas.chunks import CHUNK_BYTES, row_bytes
from schemas.conversion import convert
from schemas.values import excerpt_of

_SHARES_OF_A_GROUP = 8
_BATCH_BYTES = 4 * 2**20
_BATCH_ROWS = 1024  # the footer's bytes are fewer than the decoded ones where a dictionary holds the values


def inspect(url: str, storage: StorageOptions, dialect: Dialect) -> FileSummary:
    """Return the columns, rows and bytes from the footer.

    Raises UnreadableFile for a file that is empty, truncated or not Parquet.
    """
    try:
        with _opened(url, storage) as parquet:
            found = parquet.schema_arrow
            unusable = {name: reason for name in found.names if (reason := _unusable(found, name, url)) is not None}
            schema = pa.schema([read_field(field) for field in found if field.name not in unusable])
            groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            columns = _column_bytes(parquet, groups)
            return FileSummary(schema, parquet.metadata.num_rows, size, unusable=unusable, column_bytes=columns)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"{url}: is not a whole Parquet file: {error}. Fetch or write it again.") from error


def _column_bytes(parquet: pq.ParquetFile, groups: Sequence[pq.RowGroupMetaData]) -> dict[str, int]:
    """Return the uncompressed bytes of each column that holds text or lists, from the footer.

    Values that are equal may be stored once, so the bytes of the values can be more.
    """
    sizes: dict[str, int] = {}
    leaves = [parquet.schema.column(index) for index in range(len(parquet.schema))]
    for index, leaf in enumerate(leaves):
        if leaf.physical_type == "BYTE_ARRAY":
            name = next((name for name in parquet.schema_arrow.names if f"{leaf.path}.".startswith(f"{name}.")), "")
            size = sum(group.column(index).total_uncompressed_size for group in groups)
            sizes[name] = sizes.get(name, 0) + size
    return sizes


def _unusable(schema: pa.Schema, name: str, url: str) -> str | None:
    """Return why a column cannot be read; None if it can."""
    indices = schema.get_all_field_indices(name)
    if len(indices) > 1:
        return f"{url}: has {len(indices)} columns named {name!r}; rename all but one"
    return unusable_reason(schema.field(indices[0]), url)


@contextmanager
def _opened(url: str, storage: StorageOptions) -> Iterator[pq.ParquetFile]:
    with open_file(url, storage) as file, open_parquet(file) as parquet:
        yield parquet


def spans(file: InputFile, spec: ReadSpec) -> Iterator[Span]:
    """Yield ranges of whole units, equal in size.

    Runners distribute spans before they run, so equal spans balance the load. At most eight spans share a row group,
    since each of them decodes it.
    """
    unit_rows = unit_rows_of(file, spec)
    with _opened(file.url, file.storage) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    units = max(1, -(-max(sizes, default=0) // (_SHARES_OF_A_GROUP * unit_rows)))
    for start in range(0, file.rows, units * unit_rows):
        yield Span(start, min(start + units * unit_rows, file.rows))


def read(file: InputFile, span: Span, spec: ReadSpec) -> Iterator[RowBlock]:
    """Yield the units of a span: consecutive rows, as many as `unit_rows_of` says, fewer at the end of the file.

    Rows that exceed `CHUNK_BYTES` are split into several units, each cut at the row that reaches this size, so units
    depend on the rows and not on how the file was written. Every row of a row group that cannot be decoded is bad.
    """
    schema, unit_rows = spec.schema, unit_rows_of(file, spec)
    waiting: list[RowBlock] = []
    done, held = 0, 0
    for piece in _decode(file, span, schema):
        sizes = np.zeros(len(piece.bad), np.int64) if piece.bad else row_bytes(piece.rows)
        start = 0
        while start < len(sizes):
            reached = held + np.cumsum(sizes[start : start + unit_rows - done])
            count = min(len(reached), int(np.searchsorted(reached, CHUNK_BYTES)) + 1)
            waiting.append(_slice(piece, start, count))
            start, done, held = start + count, done + count, int(reached[count - 1])
            if done == unit_rows or held >= CHUNK_BYTES:
                yield _joined(waiting)
                done, held = done % unit_rows, 0
    if waiting:
        yield _joined(waiting)


def _slice(piece: RowBlock, start: int, count: int) -> RowBlock:
    """Return `count` rows of a block of good rows only, or of bad rows only."""
    stop = start + count
    return RowBlock(piece.positions[start:stop], piece.rows.slice(start, count), piece.bad[start:stop])


def _joined(waiting: list[RowBlock]) -> RowBlock:
    """Concatenate blocks into one, and release them."""
    positions, rows, bad = zip(*waiting, strict=True)
    waiting.clear()
    return reject_unusable(
        RowBlock(np.concatenate(positions), pa.concat_batches(rows), [row for part in bad for row in part])
    )


def _decode(file: InputFile, span: Span, schema: pa.Schema) -> Iterator[RowBlock]:
    """Yield the rows of a span in order, in batches of about `_BATCH_BYTES` that do not cross row groups."""
    with _opened(file.url, file.storage) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            start, stop = max(span.start, first), min(span.stop, first + count)
            if start < stop:
                yield from _decode_group(parquet, group, Span(start - first, stop - first), first, schema)
            first += count


def _decode_group(parquet: pq.ParquetFile, group: int, span: Span, first: int, schema: pa.Schema) -> Iterator[RowBlock]:
    metadata = parquet.metadata.row_group(group)
    size = max(1, metadata.total_byte_size // metadata.num_rows)
    batch_rows, done = max(1, min(_BATCH_ROWS, _BATCH_BYTES // size)), span.start
    try:
        for start, batch in read_group(parquet, group, range(*span), columns=schema.names, batch_rows=batch_rows):
            yield from _conform(batch, first + start, schema)
            done = start + batch.num_rows
    except UndecodableGroup as error:
        yield _all_bad([BadRow(first + i, "unreadable", str(error), None) for i in range(done, span.stop)], schema)


def _all_bad(bad: list[BadRow], schema: pa.Schema) -> RowBlock:
    return RowBlock(np.empty(0, dtype=np.int64), pa.RecordBatch.from_pylist([], schema), bad)


def _conform(batch: pa.RecordBatch, first: int, schema: pa.Schema) -> Iterator[RowBlock]:
    """Cast a batch that starts at row `first` to `schema`; on failure halve it, until single rows are bad."""
    try:
        rows = _cast(batch, schema)
    except pa.ArrowException as error:
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from _conform(batch.slice(0, half), first, schema)
            yield from _conform(batch.slice(half), first + half, schema)
        else:
            yield _all_bad([BadRow(first, "does_not_fit", str(error), excerpt_of(batch, 0))], schema)
    else:
        yield RowBlock(np.arange(first, first + batch.num_rows, dtype=np.int64), rows, [])


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Select the columns of `schema` and cast them; a column that the file lacks is null."""
    arrays = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        found = batch.column(index) if index >= 0 else pa.nulls(batch.num_rows)
        arrays.append(convert(found, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


PARQUET = Format(
    name="parquet", endings=(".parquet", ".pq"), inspect=inspect, spans=spans, read=read, compressible=False
)
