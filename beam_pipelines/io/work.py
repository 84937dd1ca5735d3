"""Cutting of blocks of rows by the work that a model has with them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.formats.base import RowBlock, UnitWork

_LAST = np.iinfo(np.int64).max


def cut_by_work(blocks: Iterable[RowBlock], work: UnitWork) -> Iterator[RowBlock]:
    """Cut each block evenly, so that no part has more than `work.bytes` before its last row.

    Bad rows stay between their neighbours.
    """
    for block in blocks:
        start, left = 0, block.bad
        for stop in _cuts(work_of_rows(block.rows, work), work.bytes):
            between = bisect_left(left, block.positions[stop], key=attrgetter("position"))
            yield RowBlock(block.positions[start:stop], block.rows.slice(start, stop - start), left[:between])
            start, left = stop, left[between:]
        yield RowBlock(block.positions[start:], block.rows.slice(start), left)


def _cuts(sizes: np.ndarray, most: int) -> list[int]:
    """Return the rows, from the second on, that begin a part of a block whose rows have work of `sizes`, int64[n]."""
    done = np.cumsum(sizes)
    parts = max(1, -(-int(sizes.sum()) // most))
    part = np.minimum(done // max(1, -(-int(sizes.sum()) // parts)), parts - 1)
    # A part ends with the row that reaches its share.
    return (np.flatnonzero(np.diff(part[:-1], prepend=0)) + 1).tolist()


def work_of_rows(rows: pa.RecordBatch, work: UnitWork) -> np.ndarray:
    """Return the work of each row as `UnitWork` says: int64[n], a function of its texts alone."""
    most = _LAST if work.row_bytes is None else work.row_bytes
    columns = [rows[name] for name in work.columns]
    size = sum((_text_bytes(column) for column in columns if not _is_list(column)), np.zeros(rows.num_rows, np.int64))
    lists = [column for column in columns if _is_list(column)]
    if not lists:
        return np.minimum(size, most) + work.fixed
    total = np.zeros(rows.num_rows, np.int64)
    for column in lists:
        parents = pc.list_parent_indices(column).to_numpy()
        each = np.minimum(size[parents] + _text_bytes(pc.list_flatten(column)), most) + work.fixed
        np.add.at(total, parents, each)
    return total


def _is_list(column: pa.Array) -> bool:
    return bool(pa.types.is_list(column.type) or pa.types.is_large_list(column.type))


def _text_bytes(column: pa.Array) -> np.ndarray:
    """Return the bytes of each text, int64[n]; 0 for null."""
    return np.asarray(pc.fill_null(pc.binary_length(column), 0), np.int64)
