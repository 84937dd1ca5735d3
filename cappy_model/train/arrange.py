"""A corpus in ranges of rows that each hold whole groups, so that all pairs of an instruction can be read together.

A group is the rows of one instruction. Where they stand next to each other within one row group of a file, they are
read from that file. The rows of other instructions, which recur far apart or go on in the next row group, are copied
to local Parquet files, sorted there by the hash of the instruction. Preferences are all copied, two pairs for each.
"""

import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cappy_model.train.corpus import (
    SCHEMA,
    Columns,
    CorpusError,
    RowRange,
    instruction_keys,
    scan_instructions,
    scan_pairs,
    scan_preferences,
)
from cappy_model.train.external_sort import KEY, sort_by_key

_WORK = "arranging"  # the folder of files that are being written
_FILES = "arranged-*.parquet"
_ROW_GROUPS = 256  # of a file: whoever reads one of them reads the places of all


@dataclass(frozen=True)
class Arranged:
    """A corpus in ranges that each hold all rows of their instructions, next to each other in the corpus' order.

    The first `in_place` of `ranges` cover the files of the corpus in order. In them, the rows whose `instruction_key`
    is in `moved` (uint64[m], sorted) are to be skipped: their copies stand in the other ranges, in local files with
    the columns `Columns()`. Preferences have no range in place, and nothing to skip. `notes` counts
    `equal_preferences`, which were left out because their two responses are equal.
    """

    ranges: Sequence[RowRange]
    in_place: int
    moved: np.ndarray
    notes: Counter[str]


def arrange(
    urls: Sequence[str], columns: Columns, folder: Path, *, storage: Mapping[str, Any], rows_per_range: int
) -> Arranged:
    """Find the instructions whose rows stand together in Parquet files, and copy the rows of the others to `folder`.

    One pass reads the column of instructions alone; if any row is to be copied, a second one reads all columns. Held in
    memory are 8 bytes for each run of equal instructions, three row groups that are written, and up to 256 MB that are
    sorted. The ranges and the files follow from the corpus and `rows_per_range` alone. What an earlier call left in
    `folder` is deleted first, also if it was killed; temporary files are deleted at the end.

    Args:
        urls: the files of the corpus, in order.
        columns: their columns.
        folder: a local folder, for the copies and for temporary files of about their size.
        storage: options of fsspec.
        rows_per_range: maximum rows of a range; only a larger group is a larger range, of its own.

    Raises:
        CorpusError: for a file without the columns or that cannot be read, for a null, for a label out of range in a
            corpus that is copied in part, and if `folder` cannot be written.
    """
    notes: Counter[str] = Counter()
    ranges: list[RowRange] = []
    moved = np.zeros(0, np.uint64)
    if columns.preferences:
        batches = _preferences(urls, columns, storage, notes)
    else:
        ranges, moved = _survey(urls, columns, storage, rows_per_range)
        batches = _rows_of(moved, urls, columns, storage)
    delete_arranged(folder)
    copies = _copy(batches, folder, rows_per_range) if columns.preferences or len(moved) else []
    return Arranged([*ranges, *copies], len(ranges), moved, notes)


def delete_arranged(folder: Path) -> None:
    """Delete the files that `arrange` has written into a folder, or was writing when it was killed."""
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    for path in folder.glob(_FILES):
        path.unlink()


def among(keys: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return which of `keys` (uint64[n]) are in `moved` (uint64[m], sorted): bool[n], in n log m steps."""
    if not len(moved):
        return np.zeros(len(keys), bool)
    found: np.ndarray = moved[np.minimum(np.searchsorted(moved, keys), len(moved) - 1)] == keys
    return found


def _survey(
    urls: Sequence[str], columns: Columns, storage: Mapping[str, Any], rows_per_range: int
) -> tuple[list[RowRange], np.ndarray]:
    """Return the ranges of all files, and the sorted keys (uint64[m]) of the instructions that have several runs."""
    ranges: list[RowRange] = []
    runs = array("Q")
    for url in urls:
        batches = scan_instructions(url, columns, storage=storage)
        for group, parts in groupby(batches, itemgetter(0)):
            keys = np.concatenate([instruction_keys(texts) for _, texts in parts])
            ranges += [group._replace(start=start, rows=rows) for start, rows in _cut(keys, rows_per_range)]
            runs.frombytes(keys[_run_starts(keys)].tobytes())
    found = np.frombuffer(runs, np.uint64)
    found.sort()
    return ranges, np.unique(found[1:][found[1:] == found[:-1]])


def _run_starts(keys: np.ndarray) -> np.ndarray:
    """Return where runs of equal keys (uint64[n], n > 0) start: int64[runs]."""
    return np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])


def _cut(keys: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows with these keys (uint64[n], n > 0) where runs start; yield the start and the length of each piece.

    Pieces are as long as possible: at most `most` rows, or one longer run.
    """
    starts = np.append(_run_starts(keys), len(keys))
    run = 0
    while run < len(starts) - 1:
        last = max(run + 1, int(np.searchsorted(starts, starts[run] + most, "right")) - 1)
        yield int(starts[run]), int(starts[last] - starts[run])
        run = last


def _rows_of(
    moved: np.ndarray, urls: Sequence[str], columns: Columns, storage: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows whose keys are in `moved` (uint64[m], sorted), with the column `KEY`."""
    for url in urls:
        for _, batch in scan_pairs(url, columns, storage=storage):
            keys = instruction_keys(batch.column("instruction"))
            rows = np.flatnonzero(among(keys, moved))
            if len(rows):
                yield batch.take(pa.array(rows)).append_column(KEY, pa.array(keys[rows]))


def _preferences(
    urls: Sequence[str], columns: Columns, storage: Mapping[str, Any], notes: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the pairs of all preferences, with the column `KEY`; count those with equal responses."""
    for url in urls:
        for equal, batch in scan_preferences(url, columns, storage=storage):
            notes["equal_preferences"] += equal
            if batch.num_rows:
                yield batch.append_column(KEY, pa.array(instruction_keys(batch.column("instruction"))))


def _copy(batches: Iterable[pa.RecordBatch], folder: Path, rows_per_range: int) -> list[RowRange]:
    """Write rows into files in `folder`, sorted by `KEY`; return their ranges, each of which is a row group."""
    work = folder / _WORK
    try:
        work.mkdir(parents=True)
        try:
            pieces = _pieces(sort_by_key(batches, work), rows_per_range)
            ranges = list(_write(pieces, work))
            for name in dict.fromkeys(part.url for part in ranges):
                (work / name).replace(folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{folder}: the rows of the corpus cannot be sorted there: {error}; free its disk, then repeat the command"
        ) from error
    return [part._replace(url=str(folder / part.url)) for part in ranges]


def _pieces(tables: Iterable[pa.Table], rows_per_range: int) -> Iterator[pa.Table]:
    """Cut sorted rows into the row groups to write. The end of a table, where there may be room, waits for the next.

    The pieces are copies, so that no table is held while the next one is sorted.
    """
    rest = None
    for table in tables:
        rows = table if rest is None else pa.concat_tables([rest, table])
        *whole, last = _cut(rows[KEY].to_numpy(), rows_per_range)
        for start, count in whole:
            yield rows.take(pa.array(np.arange(start, start + count)))
        rest = rows.take(pa.array(np.arange(last[0], last[0] + last[1])))
        del table, rows
    if rest is not None:
        yield rest


def _write(pieces: Iterator[pa.Table], work: Path) -> Iterator[RowRange]:
    """Write each piece as a row group; yield their ranges, with the name of the file as its URL."""
    for number, parts in groupby(enumerate(pieces), lambda part: part[0] // _ROW_GROUPS):
        name = _FILES.replace("*", f"{number:05d}")
        with pq.ParquetWriter(work / name, SCHEMA, compression="zstd", write_statistics=False) as writer:
            for index, piece in parts:
                writer.write_table(piece.drop_columns(KEY), row_group_size=piece.num_rows)
                yield RowRange(name, index % _ROW_GROUPS, 0, piece.num_rows)
