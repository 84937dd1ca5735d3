"""Labelled pairs in Parquet files, read in ranges of rows that fit into memory and checked while they are read.

`Columns` names the columns of the files. Whatever they are called there, rows come out with the columns `COLUMNS`:
texts as strings, labels as float32.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cappy_model.parquet import UndecodableGroup, open_parquet, read_group
from schemas.errors import CappyError
from schemas.ids import pair_ids, text_key
from schemas.records import is_text

COLUMNS = ("pair_id", "dataset", "instruction", "response", "label", "label_source")
"""The columns of labelled pairs in training."""

SCHEMA = pa.schema(
    [pa.field(name, pa.float32() if name == "label" else pa.string(), nullable=False) for name in COLUMNS]
)
"""The Arrow schema of `COLUMNS`."""

UNNAMED = "unnamed"
"""The dataset, or the label source, of a pair that has none."""

_BATCH_ROWS = 4_096
_OPTIONAL = ("pair_id", "dataset", "label_source")


class CorpusError(CappyError):
    """A corpus that cannot be used for training."""


@dataclass(frozen=True)
class Columns:
    """The columns of a corpus by their names in its files, and the range of its labels.

    A row is one pair: `instruction`, `response` and `label`. With `chosen` and `rejected` it is a preference, and
    these columns hold a better and a worse response; `response` and `label` are not read then. Labels lie in [0, 1];
    with `raw` they are any finite number. The columns `pair_id`, `dataset` and `label_source` are read if they exist.
    """

    instruction: str = "instruction"
    response: str = "response"
    label: str = "label"
    chosen: str | None = None
    rejected: str | None = None
    raw: bool = False

    @property
    def preferences(self) -> bool:
        """Whether a row is a preference."""
        return self.chosen is not None and self.rejected is not None

    @property
    def texts(self) -> dict[str, str]:
        """The text columns that must exist: the flag that names each, and its name."""
        flags = {"--instruction-column": self.instruction}
        if self.chosen is not None and self.rejected is not None:
            return {**flags, "--chosen-column": self.chosen, "--rejected-column": self.rejected}
        return {**flags, "--response-column": self.response}

    @property
    def required(self) -> dict[str, str]:
        """The columns that must exist: the flag that names each, and its name."""
        return self.texts if self.preferences else {**self.texts, "--label-column": self.label}


DEFAULT = Columns()
"""The columns as build-corpus names them."""


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
            for start, batch in _read(parquet, group, (*columns.required.values(), *_OPTIONAL)):
                _check_nulls(batch, columns, url, first + start)
                _check_labels(batch.column(columns.label), columns, url, first + start)
                yield group, _pairs(batch, columns)


def scan_preferences(url: str, columns: Columns, *, storage: Mapping[str, Any]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the pairs of a file of preferences in order, in small batches of `SCHEMA`, two for each row.

    The first pair of a row has the chosen response and the label 1, the second the rejected one and the label 0. Rows
    whose two responses are equal but for white space around them are left out; each batch comes with their number.
    Raises CorpusError as `scan` does.
    """
    with _opened(url, columns, storage) as parquet:
        for group, first in _row_groups(parquet, url):
            for start, batch in _read(parquet, group, (*columns.required.values(), "dataset", "label_source")):
                _check_nulls(batch, columns, url, first + start)
                yield _preference_pairs(batch, columns)


def scan_instructions(
    url: str, columns: Columns, *, storage: Mapping[str, Any]
) -> Iterator[tuple[RowRange, pa.StringArray]]:
    """Yield the instructions of a file in order, in small arrays without nulls, each with the range of its row group.

    Raises CorpusError as `scan` does.
    """
    with _opened(url, columns, storage) as parquet:
        for group, first in _row_groups(parquet, url):
            for start, batch in _read(parquet, group, (columns.instruction,)):
                _check_nulls(batch, columns, url, first + start)
                yield group, _text(batch, columns.instruction)


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
            batches.append(_pairs(batch.take(pa.array(inside)), columns))
    table = pa.Table.from_batches(batches, SCHEMA)
    instructions, responses, ids = (table.column(name).to_pylist() for name in ("instruction", "response", "pair_id"))
    return LabelledPairs(instructions, responses, ids, table.column("label").to_numpy())


def join_pairs(parts: Sequence[LabelledPairs]) -> LabelledPairs:
    """Concatenate pairs in order; at least one part."""
    instructions, responses, ids = ([text for part in parts for text in part[index]] for index in range(3))
    return LabelledPairs(instructions, responses, ids, np.concatenate([part.labels for part in parts]))


@contextmanager
def _opened(url: str, columns: Columns, storage: Mapping[str, Any]) -> Iterator[pq.ParquetFile]:
    try:
        with fsspec.open(url, "rb", **storage) as file, open_parquet(file) as parquet:
            _check_schema(parquet.schema_arrow, columns, url)
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


def _text(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    return pc.cast(batch.column(name), pa.string())


def _optional(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    """Return a column with `UNNAMED` for nulls, and everywhere if the batch lacks the column."""
    if name not in batch.schema.names:
        return pa.repeat(UNNAMED, batch.num_rows)
    return _text(batch, name).fill_null(UNNAMED)


def _pairs(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """Return rows as `SCHEMA`."""
    instructions, responses = _text(batch, columns.instruction), _text(batch, columns.response)
    known = "pair_id" in batch.schema.names
    return pa.RecordBatch.from_arrays(
        [
            _text(batch, "pair_id") if known else _pair_ids(instructions, responses),
            _optional(batch, "dataset"),
            instructions,
            responses,
            pc.cast(batch.column(columns.label), pa.float32(), safe=False),
            _optional(batch, "label_source"),
        ],
        schema=SCHEMA,
    )


def _preference_pairs(batch: pa.RecordBatch, columns: Columns) -> tuple[int, pa.RecordBatch]:
    """Return the number of rows with equal responses, and the pairs of the others."""
    chosen, rejected = (_text(batch, str(name)) for name in (columns.chosen, columns.rejected))
    differ = pc.not_equal(pc.utf8_trim_whitespace(chosen), pc.utf8_trim_whitespace(rejected))
    rows = np.flatnonzero(differ.to_numpy(zero_copy_only=False))
    twice = pa.array(np.repeat(rows, 2))
    responses = pa.concat_arrays([chosen, rejected]).take(pa.array(np.stack([rows, rows + len(chosen)], 1).ravel()))
    instructions = _text(batch, columns.instruction).take(twice)
    pairs = pa.RecordBatch.from_arrays(
        [
            _pair_ids(instructions, responses),
            _optional(batch, "dataset").take(twice),
            instructions,
            responses,
            pa.array(np.tile(np.array([1, 0], np.float32), len(rows))),
            _optional(batch, "label_source").take(twice),
        ],
        schema=SCHEMA,
    )
    return len(chosen) - len(rows), pairs


def _pair_ids(instructions: pa.StringArray, responses: pa.StringArray) -> pa.StringArray:
    ids: list[str] = []
    texts = zip(instructions.to_pylist(), responses.to_pylist(), strict=True)
    for instruction, pairs in groupby(texts, itemgetter(0)):
        ids += map(pair_ids(instruction), map(itemgetter(1), pairs))
    return pa.array(ids, pa.string())


def _check_schema(schema: pa.Schema, columns: Columns, url: str) -> None:
    """Raise CorpusError unless the file has the required columns: numeric labels, and text elsewhere."""
    missing = [(flag, name) for flag, name in columns.required.items() if name not in schema.names]
    if missing:
        flags = [flag for flag, _ in missing]
        if {"--response-column", "--label-column"} & set(flags):
            flags.append("--chosen-column with --rejected-column")
        raise CorpusError(
            f"{url}: has no column{'s' * (len(missing) > 1)} {_listed([repr(name) for _, name in missing], 'and')}; "
            f"{_listed(flags, 'or')} names another one; there are {', '.join(schema.names)}"
        )
    optional = [name for name in _OPTIONAL if name in schema.names]
    wrong = [name for name in (*columns.texts.values(), *optional) if not is_text(schema.field(name).type)]
    if wrong:
        raise CorpusError(f"{url}: column {wrong[0]!r} is {schema.field(wrong[0]).type}; it must be text")
    kind = pa.float32() if columns.preferences else schema.field(columns.label).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise CorpusError(f"{url}: column {columns.label!r} is {kind}; it must be numbers")


def _listed(names: Sequence[str], word: str) -> str:
    return ", ".join(names[:-1]) + f" {word} " * (len(names) > 1) + names[-1]


def _check_nulls(batch: pa.RecordBatch, columns: Columns, url: str, first: int) -> None:
    """Raise CorpusError for a null in a required column or a pair_id; the batch starts at row `first` of the file."""
    for name in (*columns.required.values(), "pair_id"):
        if name in batch.schema.names and batch.column(name).null_count:
            row = first + batch.column(name).is_null().to_pylist().index(True)
            raise CorpusError(
                f"{url}#{row}: column {name!r} is null; each row needs a value in "
                f"{_listed(list(columns.required.values()), 'and')}: leave the row out"
            )


def _check_labels(labels: pa.Array, columns: Columns, url: str, first: int) -> None:
    """Raise CorpusError for a label out of range; the labels start at row `first` of the file."""
    values = labels.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        valid = np.isfinite(values.astype(np.float32)) if columns.raw else (values >= 0) & (values <= 1)
    if not valid.all():
        row = int(np.argmin(valid))
        place = f"{url}#{first + row}: the label is {values[row]}"
        if columns.raw:
            raise CorpusError(f"{place}; labels are finite 32-bit numbers: leave the row out")
        raise CorpusError(f"{place}; labels lie between 0 and 1, or are any finite number with --labels raw")
