"""Parquet files over fsspec: row groups decoded one at a time, in batches that fit into memory."""

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileOpener

_BUFFER_BYTES = 2**20


class UndecodableGroup(Exception):
    """A row group that cannot be decoded. The message names the group and gives Arrow's reason."""


def open_parquet(file: IO[bytes]) -> pq.ParquetFile:
    """Open a binary file that fsspec has opened. Raises OSError or pyarrow.ArrowException if it is not Parquet.

    A local column is read in buffers of 1 MB. Elsewhere each read is a request, so a row group is fetched at once.
    """
    local = isinstance(file, LocalFileOpener)
    return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES if local else 0, pre_buffer=not local)


def read_group(
    parquet: pq.ParquetFile, group: int, rows: range, *, columns: Sequence[str], batch_rows: int, validate: bool = False
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield consecutive rows of a row group as (first row within the group, batch) pairs.

    Args:
        parquet: an open file.
        group: the number of the row group.
        rows: the rows to read, consecutive positions within the group. The rows before them are decoded too.
        columns: names of the columns to read; those that the file lacks are left out.
        batch_rows: maximum rows of a batch.
        validate: whether to check that all text is UTF-8, which Arrow does not do on its own.

    Raises:
        UndecodableGroup: if a batch cannot be read or decoded, or is not valid.
    """
    done = 0
    try:
        for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=list(columns)):
            start, stop = max(rows.start, done), min(rows.stop, done + batch.num_rows)
            if start < stop:
                if validate:
                    batch.validate(full=True)
                yield start, batch.slice(start - done, stop - start)
            done += batch.num_rows
            if done >= rows.stop:
                return
    except (pa.ArrowException, OSError) as error:
        which = _undecodable(parquet, group, columns, batch_rows)
        raise UndecodableGroup(f"row group {group} cannot be decoded: {error}{which}") from error


def _undecodable(parquet: pq.ParquetFile, group: int, columns: Sequence[str], batch_rows: int) -> str:
    """Name the first column of a row group that cannot be decoded by itself; return "" if each of them can."""
    for name in columns:
        try:
            for _ in parquet.iter_batches(batch_rows, row_groups=[group], columns=[name]):
                pass
        except (pa.ArrowException, OSError):
            return f" (in its column {name!r})"
    return ""
