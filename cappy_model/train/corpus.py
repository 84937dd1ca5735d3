"""Labelled pairs in Parquet files, read in ranges of rows that fit into memory and checked while they are read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cappy_model.parquet import UndecodableGroup, open_parquet, read_group
from schemas.errors import CappyError
from schemas.records import is_text

COLUMNS = ("pair_id", "dataset", "instruction", "response", "label", "label_source")
"""The columns of a LABELLED_PAIR file that training reads."""

_BATCH_ROWS = 4_096
_PAIR_COLUMNS = ("instruction", "response", "pair_id", "label")


class CorpusError(CappyError):
    """A corpus that cannot be used for training."""


class RowRange(NamedTuple):
    """Consecutive rows that are read together: `rows` rows from row `start` of row group `group` of a file."""

    url: str
    group: int
    start: int
    rows: int


class LabelledPairs(NamedTuple):
    """n labelled pairs; `labels` float32[n] in [0, 1]."""

    instructions: list[str]
    responses: list[str]
    ids: list[str]
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "LabelledPairs":
        """Return the pairs at `rows` (int64[m]), in that order."""
        instructions, responses, ids = ([column[row] for row in rows.tolist()] for column in self[:3])
        return LabelledPairs(instructions, responses, ids, self.labels[rows])


def scan(
    url: str, *, storage: Mapping[str, Any], rows_per_range: int
) -> Iterator[tuple[list[RowRange], pa.RecordBatch]]:
    """Yield all rows of a file in order, in small batches of `COLUMNS`, each with the ranges of the row group it opens.

    The first batch of a row group comes with all ranges of that group, of at most `rows_per_range` rows each; the
    other batches come with none. Raises CorpusError for a file without the columns, for a row group that cannot be
    decoded, and for a null or a label outside [0, 1]; the message names file and row.
    """
    with _opened(url, storage) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            starts = range(0, rows, rows_per_range)
            ranges = [RowRange(url, group, start, min(rows_per_range, rows - start)) for start in starts]
            for start, batch in _read(parquet, RowRange(url, group, 0, rows), COLUMNS):
                _check_rows(batch, url, first + start)
                yield ranges, batch
                ranges = []
            first += rows


def read_range(part: RowRange, rows: np.ndarray, *, storage: Mapping[str, Any]) -> LabelledPairs:
    """Read the pairs at `rows` (int64[m], ascending, counted from the start of the range), in that order.

    Raises CorpusError if the file cannot be read or decoded.
    """
    batches: list[pa.RecordBatch] = []
    with _opened(part.url, storage) as parquet:
        for start, batch in _read(parquet, part, _PAIR_COLUMNS):
            offset = start - part.start
            inside = rows[(rows >= offset) & (rows < offset + batch.num_rows)] - offset
            batches.append(batch.take(pa.array(inside)))
    table = pa.Table.from_batches(batches)
    instructions, responses, ids = (table.column(name).to_pylist() for name in _PAIR_COLUMNS[:3])
    return LabelledPairs(instructions, responses, ids, table.column("label").to_numpy().astype(np.float32))


def join_pairs(parts: Sequence[LabelledPairs]) -> LabelledPairs:
    """Concatenate pairs in order; at least one part."""
    instructions, responses, ids = ([text for part in parts for text in part[index]] for index in range(3))
    return LabelledPairs(instructions, responses, ids, np.concatenate([part.labels for part in parts]))


@contextmanager
def _opened(url: str, storage: Mapping[str, Any]) -> Iterator[pq.ParquetFile]:
    try:
        with fsspec.open(url, "rb", **storage) as file, open_parquet(file) as parquet:
            _check_columns(parquet.schema_arrow, url)
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{url}: cannot be read: {error}; fix that, then repeat the command") from error


def _read(parquet: pq.ParquetFile, part: RowRange, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    rows = range(part.start, part.start + part.rows)
    try:
        yield from read_group(parquet, part.group, rows, columns=columns, batch_rows=_BATCH_ROWS, validate=True)
    except UndecodableGroup as error:
        raise CorpusError(f"{part.url}: {error}; the file is damaged: fetch or write it again") from error


def _check_columns(schema: pa.Schema, url: str) -> None:
    """Raise CorpusError unless the file has all `COLUMNS`: numeric labels, and text elsewhere."""
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        raise CorpusError(
            f"{url}: has no column {missing[0]!r}; labelled pairs, as build-corpus writes them, have "
            f"{', '.join(COLUMNS)}"
        )
    wrong = [name for name in COLUMNS if name != "label" and not is_text(schema.field(name).type)]
    if wrong:
        raise CorpusError(f"{url}: column {wrong[0]!r} is {schema.field(wrong[0]).type}; it must be text")
    if not (pa.types.is_floating(schema.field("label").type) or pa.types.is_integer(schema.field("label").type)):
        raise CorpusError(f"{url}: column 'label' is {schema.field('label').type}; it must be numbers in [0, 1]")


def _check_rows(batch: pa.RecordBatch, url: str, first: int) -> None:
    """Raise CorpusError for a null or a label outside [0, 1]; the batch starts at row `first` of the file."""
    for name in COLUMNS:
        if batch.column(name).null_count:
            row = first + batch.column(name).is_null().to_pylist().index(True)
            raise CorpusError(
                f"{url}#{row}: column {name!r} is null; a pair has a value in each of {', '.join(COLUMNS)}"
            )
    labels = batch.column("label").to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~((labels >= 0) & (labels <= 1)))
    if len(wrong):
        raise CorpusError(f"{url}#{first + wrong[0]}: the label is {labels[wrong[0]]}; labels lie between 0 and 1")
