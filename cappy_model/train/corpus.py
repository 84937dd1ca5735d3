"""Labelled pairs in Parquet files, read in ranges of rows that fit into memory and checked while they are read.

`Columns` names the columns of the files. Whatever their names and types there, rows come out as `SCHEMA`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cappy_model.parquet import UndecodableGroup, open_parquet, read_group
from cappy_model.paths import file_system
from cappy_model.train.columns import (
    DEFAULT,
    OPTIONAL,
    SCHEMA,
    Columns,
    CorpusError,
    as_pairs,
    as_preference_pairs,
    check_labels,
    check_schema,
    check_values,
    texts_of,
)
from schemas.ids import text_key

__all__ = [
    "DEFAULT",
    "SCHEMA",
    "Columns",
    "CorpusError",
    "LabelledPairs",
    "RowRange",
    "instruction_key",
    "instruction_keys",
    "join_pairs",
    "read_range",
    "scan",
    "scan_instructions",
    "scan_pairs",
    "scan_preferences",
]

_BATCH_ROWS = 4_096


class RowRange(NamedTuple):
    """Consecutive rows that are read together: `rows` rows from row `start` of row group `group` of a file."""

    url: str
    group: int
    start: int
    rows: int


class LabelledPairs(NamedTuple):
    """n labelled pairs; `labels` float32[n]."""

    instructions: list[str]
    responses: list[str]
    ids: list[str]
    labels: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> "LabelledPairs":
        """Return the pairs of a table of `SCHEMA`."""
        names = ("instruction", "response", "pair_id")
        instructions, responses, ids = (table.column(name).to_pylist() for name in names)
        return cls(instructions, responses, ids, table.column("label").to_numpy())

    @property
    def lengths(self) -> np.ndarray:
        """The characters of each pair, int64[n]."""
        return np.array([len(one) + len(other) for one, other in zip(self.instructions, self.responses, strict=True)])

    def take(self, rows: np.ndarray) -> "LabelledPairs":
        """Return the pairs at `rows` (int64[m]), in that order."""
        instructions, responses, ids = ([column[row] for row in rows.tolist()] for column in self[:3])
        return LabelledPairs(instructions, responses, ids, self.labels[rows])


def instruction_key(instruction: str) -> int:
    """Return a 64-bit hash of an instruction's text in lower case with collapsed white space."""
    return text_key(" ".join(instruction.lower().split()))


def instruction_keys(instructions: pa.StringArray) -> np.ndarray:
    """Return the keys of instructions, uint64[n]; equal neighbours are hashed once."""
    if not len(instructions):
        return np.zeros(0, np.uint64)
    differs = pc.not_equal(instructions[1:], instructions[:-1]).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(differs) + 1])
    texts = instructions.take(pa.array(starts)).to_pylist()
    keys = np.fromiter(map(instruction_key, texts), np.uint64, len(texts))
    return np.repeat(keys, np.diff(starts, append=len(instructions)))


def scan(
    url: str, columns: Columns = DEFAULT, *, storage: Mapping[str, Any], rows_per_range: int
) -> Iterator[tuple[list[RowRange], pa.RecordBatch]]:
    """Yield all pairs of a file in order, in small batches of `SCHEMA`, each with the ranges of the row group it opens.

    The first batch of a row group comes with all ranges of that group, of at most `rows_per_range` rows each; the
    other batches come with none. Preferences are read by `scan_preferences`.

    Raises:
        CorpusError: for a file without the columns, for a row group that cannot be decoded, and for a null or a label
            out of range; the message names file and row.
    """
    opened = None
    for group, batch in scan_pairs(url, columns, storage=storage):
        starts = range(0, group.rows, rows_per_range) if group != opened else ()
        yield [group._replace(start=start, rows=min(rows_per_range, group.rows - start)) for start in starts], batch
        opened = group


def scan_pairs(url: str, columns: Columns, *, storage: Mapping[str, Any]) -> Iterator[tuple[RowRange, pa.RecordBatch]]:
    """Yield all pairs of a file in order, in small batches of `SCHEMA`, each with its row group.

    Raises CorpusError as `scan` does.
    """
    with _opened(url, columns, storage) as parquet:
        for group, first in _row_groups(parquet, url):
            for start, batch in _read(parquet, group, (*columns.required.values(), *OPTIONAL)):
                check_values(batch, columns, url, first + start)
                check_labels(batch.column(columns.label), columns, url, first + start)
                yield group, as_pairs(batch, columns)


def scan_preferences(url: str, columns: Columns, *, storage: Mapping[str, Any]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the pairs of a file of preferences in order, in small batches of `SCHEMA`, two for each row.

    The first pair of a row has the chosen response and the label 1, the second the rejected one and the label 0. Rows
    whose two responses are equal but for white space around them are left out; each batch comes with their number.
    Raises CorpusError as `scan` does.
    """
    with _opened(url, columns, storage) as parquet:
        for group, first in _row_groups(parquet, url):
            for start, batch in _read(parquet, group, (*columns.required.values(), "dataset", "label_source")):
                check_values(batch, columns, url, first + start)
                yield as_preference_pairs(batch, columns)


def scan_instructions(
    url: str, columns: Columns, *, storage: Mapping[str, Any]
) -> Iterator[tuple[RowRange, pa.StringArray]]:
    """Yield the instructions of a file in order, in small arrays without nulls, each with the range of its row group.

    Raises CorpusError as `scan` does.
    """
    with _opened(url, columns, storage) as parquet:
        for group, first in _row_groups(parquet, url):
            for start, batch in _read(parquet, group, (columns.instruction,)):
                check_values(batch, columns, url, first + start)
                yield group, texts_of(batch, columns.instruction)


def read_range(
    part: RowRange, rows: np.ndarray, columns: Columns = DEFAULT, *, storage: Mapping[str, Any]
) -> LabelledPairs:
    """Read the pairs at `rows` (int64[m], ascending, counted from the start of the range), in that order.

    Raises CorpusError if the file cannot be read or decoded.
    """
    batches: list[pa.RecordBatch] = []
    with _opened(part.url, columns, storage) as parquet:
        for start, batch in _read(parquet, part, (*columns.required.values(), "pair_id")):
            offset = start - part.start
            inside = rows[(rows >= offset) & (rows < offset + batch.num_rows)] - offset
            batches.append(as_pairs(batch.take(pa.array(inside)), columns))
    return LabelledPairs.of(pa.Table.from_batches(batches, SCHEMA))


def join_pairs(parts: Sequence[LabelledPairs]) -> LabelledPairs:
    """Concatenate pairs in order; at least one part."""
    instructions, responses, ids = ([text for part in parts for text in part[index]] for index in range(3))
    return LabelledPairs(instructions, responses, ids, np.concatenate([part.labels for part in parts]))


@contextmanager
def _opened(url: str, columns: Columns, storage: Mapping[str, Any]) -> Iterator[pq.ParquetFile]:
    try:
        fs, path = file_system(url, storage)
        with fs.open(path, "rb") as file, open_parquet(file) as parquet:
            check_schema(parquet.schema_arrow, columns, url)
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{url}: cannot be read: {error}; fix that, then repeat the command") from error


def _row_groups(parquet: pq.ParquetFile, url: str) -> Iterator[tuple[RowRange, int]]:
    """Yield each row group, and the number of its first row in the file."""
    first = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        yield RowRange(url, group, 0, rows), first
        first += rows


def _read(parquet: pq.ParquetFile, part: RowRange, names: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the batches of a range with the columns of `names` that exist, each with its first row in the row group."""
    rows, names = range(part.start, part.start + part.rows), list(dict.fromkeys(names))
    try:
        yield from read_group(parquet, part.group, rows, columns=names, batch_rows=_BATCH_ROWS, validate=True)
    except UndecodableGroup as error:
        raise CorpusError(f"{part.url}: {error}; the file is damaged: fetch or write it again") from error
