"""Chunks: `pyarrow.RecordBatch`es of one schema, the elements of every data collection.

A chunk holds at most `CHUNK_ROWS` rows or `CHUNK_BYTES` bytes, so it is cheap to hold and large enough that
a runner's cost per element is negligible. Only a single row may exceed `CHUNK_BYTES`; readers reject such rows.
"""

import copyreg
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CHUNK_ROWS = 16_384
CHUNK_BYTES = 16 * 2**20

_BINARY_TYPES = (
    *(pa.types.is_string, pa.types.is_large_string),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
)
_IPC = pa.ipc.IpcWriteOptions(compression="zstd")


def from_columns(columns: Mapping[str, Sequence[object] | pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Return a chunk of `schema` from Python or Arrow columns of equal length.

    Raises pyarrow.ArrowInvalid if a value does not fit, or if a non-nullable column has a null.
    """
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    for field, array in zip(schema, arrays, strict=True):
        if array.null_count and not field.nullable:
            raise pa.ArrowInvalid(f"column {field.name!r} must not be null, but {array.null_count} rows are")
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def from_rows(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    """Return a chunk of `schema` from rows that have all of its columns."""
    return from_columns({name: [row[name] for row in rows] for name in schema.names}, schema)


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slice `batch`, without copying, into pieces within the limits of a chunk; a single row may exceed them."""
    if batch.num_rows > 1 and (batch.num_rows > CHUNK_ROWS or batch.nbytes > CHUNK_BYTES):
        half = batch.num_rows // 2
        yield from pieces(batch.slice(0, half))
        yield from pieces(batch.slice(half))
    else:
        yield batch


def row_bytes(batch: pa.RecordBatch) -> "np.ndarray":
    """Return the approximate bytes of each row, int64[n]: a function of its values alone, not of the buffers."""
    return sum(map(_value_bytes, batch.columns), np.zeros(batch.num_rows, np.int64))


def _value_bytes(values: pa.Array) -> "np.ndarray":
    """Return 8 bytes for each value plus those of its text, items or fields: int64[n]."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _value_bytes(values.storage)
    if pa.types.is_dictionary(kind):
        return _value_bytes(values.dictionary_decode())
    if pa.types.is_map(kind):
        return _value_bytes(values.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    if pa.types.is_binary_view(kind) or pa.types.is_string_view(kind):
        return _value_bytes(values.cast(pa.large_binary()))
    size = np.full(len(values), 8, np.int64)
    if pa.types.is_struct(kind):
        return sum(map(_value_bytes, values.flatten()), size)
    if pa.types.is_nested(kind):
        counts = np.asarray(pc.fill_null(pc.list_value_length(values), 0), np.int64)
        stops = np.cumsum(counts)
        before = np.concatenate([[0], np.cumsum(_value_bytes(values.flatten()))])
        return size + before[stops] - before[stops - counts]
    if any(test(kind) for test in _BINARY_TYPES):
        size += np.asarray(pc.fill_null(pc.binary_length(values), 0), np.int64)
    return size


def group_rows(keys: "np.ndarray") -> Iterator[tuple[int, "np.ndarray"]]:
    """Yield each distinct key of int64[n] or uint64[n], ascending, with its positions int64[m], ascending."""
    order = np.argsort(keys, kind="stable")
    distinct, starts = np.unique(keys[order], return_index=True)
    stops = [*starts[1:], len(keys)]
    for key, start, stop in zip(distinct.tolist(), starts, stops[: len(starts)], strict=True):
        yield key, order[start:stop]


def to_ipc(batch: pa.RecordBatch) -> bytes:
    """Return the chunk as a zstd-compressed Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_IPC) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def from_ipc(data: bytes) -> pa.RecordBatch:
    """Return the chunk that `to_ipc` wrote."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()


def _reduce(batch: pa.RecordBatch) -> tuple[Callable[[bytes], pa.RecordBatch], tuple[bytes]]:
    return from_ipc, (to_ipc(batch),)


# Between two steps that a runner does not fuse, it pickles the elements. Most chunks are slices, and Arrow's own
# pickle of a slice carries the buffers of the whole batch.
copyreg.pickle(pa.RecordBatch, _reduce)


def invalid_text_rows(batch: pa.RecordBatch) -> list[int]:
    """Return the positions of rows with invalid UTF-8 in a text column, at any depth of nesting."""
    if _is_valid(batch):
        return []
    # A slice shares its children with the whole batch, so each row is copied to be checked alone.
    return [row for row in range(batch.num_rows) if not _is_valid(batch.take(pa.array([row])))]


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
