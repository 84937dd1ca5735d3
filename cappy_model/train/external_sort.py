"""Sorting rows by a 64-bit key on local disk, in bounded memory.

Rows are dealt to 64 files by the first six bits of their key, the rows of a file that is too large to 64 others by the
next six bits, and so on. A file that fits is sorted in memory.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

KEY = "key"
"""The column that rows are sorted by: hashes as uint64."""

MEMORY = 256 * 2**20
"""Bytes of Arrow data held at a time, unless the rows of one key are more."""

_BITS, _BUCKETS = 6, 64


class _Bucket:
    """A file of rows in the order in which they were added, with the size of their Arrow data and the range of keys."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._file, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
        self.size = 0
        self.low, self.high = np.uint64(2**64 - 1), np.uint64(0)

    def add(self, rows: pa.Table, keys: np.ndarray) -> None:
        self._writer.write_table(rows)
        self.size += rows.nbytes
        self.low, self.high = min(self.low, keys.min()), max(self.high, keys.max())

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the closed file, then delete it."""
        with pa.OSFile(str(self._path), "rb") as file:
            yield from pa.ipc.open_stream(file)
        self._path.unlink()


def sort_by_key(batches: Iterable[pa.RecordBatch], folder: Path, *, memory: int = MEMORY) -> Iterator[pa.Table]:
    """Yield all rows ordered by their column `KEY`, in tables; rows of equal keys keep their order.

    All rows of a key are in one table, so they have to fit into memory.

    Args:
        batches: rows of one schema.
        folder: an existing local folder for temporary files, which need about the space of the compressed rows.
        memory: maximum bytes of Arrow data held, beside the table that was yielded last.

    Raises:
        OSError: if the files cannot be written or read.
    """
    return _sorted(batches, folder, memory, level=0)


def _sorted(batches: Iterable[pa.RecordBatch], folder: Path, memory: int, level: int) -> Iterator[pa.Table]:
    for bucket in _deal(batches, folder, memory, level):
        if bucket.size > memory // 5 and bucket.low < bucket.high:
            yield from _sorted(bucket.read(), folder, memory, level + 1)
        else:
            yield _in_order(bucket)


def _deal(batches: Iterable[pa.RecordBatch], folder: Path, memory: int, level: int) -> list[_Bucket]:
    """Write rows into buckets by six bits of their keys; return the buckets in the order of their keys."""
    shift = np.uint64(max(0, 64 - _BITS * (level + 1)))
    buckets: dict[int, _Bucket] = {}
    for rows in _gathered(batches, memory // 8):
        numbers = (rows[KEY].to_numpy() >> shift) & np.uint64(_BUCKETS - 1)
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows.take(pa.array(order)), numbers[order]
        keys = rows[KEY].to_numpy()
        for number in np.unique(numbers).tolist():
            start, stop = np.searchsorted(numbers, [number, number + 1])
            if number not in buckets:
                buckets[number] = _Bucket(folder / f"{level}-{number}.arrow", rows.schema)
            buckets[number].add(rows.slice(start, stop - start), keys[start:stop])
    for bucket in buckets.values():
        bucket.close()
    return [buckets[number] for number in sorted(buckets)]


def _in_order(bucket: _Bucket) -> pa.Table:
    rows = pa.Table.from_batches(bucket.read()).combine_chunks()
    return rows.take(pa.array(np.argsort(rows[KEY].to_numpy(), kind="stable")))


def _gathered(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Yield the rows in tables of at least `size` bytes, but for the last."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += batch.nbytes
        if held >= size:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting, held = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()
