"""Labelled pairs in Parquet files: their row groups in pieces that fit into memory, checked as they are read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import CappyError
from schemas.records import is_text

COLUMNS = ("pair_id", "dataset", "instruction", "response", "label", "label_source")
"""What training reads of a LABELLED_PAIR file."""

_BATCH_ROWS = 4_096
_PAIRS = ("instruction", "response", "pair_id", "label")


class CorpusError(CappyError):
    """A corpus that cannot be learned from."""


class Piece(NamedTuple):
    """Rows of a file's row group that are read together: `rows` of them from row `start` of the group."""

    url: str
    group: int
    start: int
    rows: int


class Pairs(NamedTuple):
    """n labelled pairs; `labels` float32[n] in [0, 1]."""

    instructions: list[str]
    responses: list[str]
    ids: list[str]
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "Pairs":
        """The pairs at `rows` (int64[m]), in that order."""
        instructions, responses, ids = ([column[row] for row in rows.tolist()] for column in self[:3])
        return Pairs(instructions, responses, ids, self.labels[rows])


def scan(url: str, *, storage: Mapping[str, Any], piece_rows: int) -> Iterator[tuple[list[Piece], pa.RecordBatch]]:
    """All rows of a file in order, as small chunks of `COLUMNS`; each with the pieces that begin with it.

    A row group is cut into pieces of at most `piece_rows` rows. Raises CorpusError for a file without the columns, for
    a row group that cannot be decoded, and for a null or a label outside [0, 1], naming file and row.
    """
    with _opened(url, storage) as parquet:
        row = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            starts = range(0, rows, piece_rows)
            pieces = [Piece(url, group, start, min(piece_rows, rows - start)) for start in starts]
            for batch in _batches(parquet, url, group, COLUMNS):
                _check_rows(batch, url, row)
                yield pieces, batch
                pieces, row = [], row + batch.num_rows


def read_piece(piece: Piece, rows: np.ndarray, *, storage: Mapping[str, Any]) -> Pairs:
    """The pairs at `rows` (int64[m], ascending, within the piece), in order. Raises CorpusError, as `scan` does."""
    found: list[pa.RecordBatch] = []
    with _opened(piece.url, storage) as parquet:
        place = -piece.start
        for batch in _batches(parquet, piece.url, piece.group, _PAIRS):
            inside = rows[(rows >= max(place, 0)) & (rows < place + batch.num_rows)] - place
            found.append(batch.take(pa.array(inside)))
            place += batch.num_rows
            if place >= piece.rows:
                break
    table = pa.Table.from_batches(found)
    instructions, responses, ids = (table.column(name).to_pylist() for name in _PAIRS[:3])
    return Pairs(instructions, responses, ids, table.column("label").to_numpy().astype(np.float32))


def join_pairs(parts: Sequence[Pairs]) -> Pairs:
    """All pairs, in order."""
    instructions, responses, ids = ([text for part in parts for text in part[index]] for index in range(3))
    return Pairs(instructions, responses, ids, np.concatenate([part.labels for part in parts]))


@contextmanager
def _opened(url: str, storage: Mapping[str, Any]) -> Iterator[pq.ParquetFile]:
    try:
        with fsspec.open(url, "rb", **storage) as file, pq.ParquetFile(file) as parquet:
            _check_columns(parquet.schema_arrow, url)
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{url}: cannot be read: {error}; mend that, and give the same command again") from error


def _batches(parquet: pq.ParquetFile, url: str, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a row group in order, all of their text valid."""
    try:
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(columns)):
            batch.validate(full=True)
            yield batch
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{url}: row group {group} cannot be decoded: {error}; the file is damaged: fetch or make it again"
        ) from error


def _check_columns(schema: pa.Schema, url: str) -> None:
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
    """Raises CorpusError for a null, and for a label outside [0, 1]."""
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
