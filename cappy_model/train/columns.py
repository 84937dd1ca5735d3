"""The columns of a corpus: their roles, their checks, and rows of any files as rows of one schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.chunks import invalid_text_rows
from schemas.conversion import convert
from schemas.errors import CappyError
from schemas.ids import pair_ids
from schemas.records import as_text, is_binary

OPTIONAL = ("pair_id", "dataset", "label_source")
"""Columns that a corpus need not have."""

SCHEMA = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("label", pa.float32(), nullable=False),
        pa.field("label_source", pa.string(), nullable=False),
    ]
)
"""The columns of labelled pairs in training."""

UNNAMED = "unnamed"
"""The dataset, or the label source, of a pair that has none."""


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
    def arranged(self) -> "Columns":
        """The columns of the files that `arrange` writes."""
        return Columns(raw=self.raw)

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


def check_schema(schema: pa.Schema, columns: Columns, url: str) -> None:
    """Raise CorpusError unless the file has the required columns: numeric labels, and text elsewhere."""
    missing = [(flag, name) for flag, name in columns.required.items() if name not in schema.names]
    if missing:
        flags = [flag for flag, _ in missing]
        if {"--response-column", "--label-column"} & set(flags):
            flags.append("--chosen-column with --rejected-column")
        raise CorpusError(
            f"{url}: has no column{'s' * (len(missing) > 1)} {_listed([repr(name) for _, name in missing], 'and')}; "
            f"name others with {_listed(flags, 'or')}; there are {', '.join(schema.names)}"
        )
    wrong = [name for name in columns.texts.values() if as_text(schema.field(name).type) != pa.string()]
    if wrong:
        raise CorpusError(
            f"{url}: column {wrong[0]!r} is {schema.field(wrong[0]).type}; it must be text, whole numbers or booleans"
        )
    for name in OPTIONAL:
        kind = schema.field(name).type if name in schema.names else pa.string()
        if as_text(kind) != pa.string():
            raise CorpusError(
                f"{url}: column {name!r} is {kind}; it must be text or whole numbers: rename or drop it, it is optional"
            )
    kind = pa.float32() if columns.preferences else schema.field(columns.label).type
    exact = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)
    if not (exact or pa.types.is_floating(kind)):
        raise CorpusError(f"{url}: column {columns.label!r} is {kind}; it must be numbers or booleans")


def _listed(names: Sequence[str], word: str) -> str:
    return ", ".join(names[:-1]) + f" {word} " * (len(names) > 1) + names[-1]


def check_values(batch: pa.RecordBatch, columns: Columns, url: str, first: int) -> None:
    """Check the values of a batch that starts at row `first` of the file.

    Raises CorpusError for a null in a required column or a pair_id, and for bytes that are not UTF-8.
    """
    names = (*columns.required.values(), "pair_id")
    for name in (name for name in names if name in batch.schema.names):
        if batch.column(name).null_count:
            row = first + batch.column(name).is_null().to_pylist().index(True)
            if name not in columns.required.values():
                raise CorpusError(f"{url}#{row}: column {name!r} is null; drop the column, or give each row a value")
            raise CorpusError(
                f"{url}#{row}: column {name!r} is null; each row needs a value in "
                f"{_listed(list(columns.required.values()), 'and')}: leave the row out"
            )
        if is_binary(batch.schema.field(name).type):
            invalid = invalid_text_rows(pa.record_batch([texts_of(batch, name)], [name]))
            if invalid:
                raise CorpusError(
                    f"{url}#{first + invalid[0]}: column {name!r} is bytes that are not UTF-8: leave the row out"
                )


def check_labels(labels: pa.Array, columns: Columns, url: str, first: int) -> None:
    """Raise CorpusError for a label out of range; the labels start at row `first` of the file."""
    values = labels.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        valid = np.isfinite(values.astype(np.float32)) if columns.raw else (values >= 0) & (values <= 1)
    if not valid.all():
        row = int(np.argmin(valid))
        place = f"{url}#{first + row}: the label is {values[row]}"
        if columns.raw:
            raise CorpusError(f"{place}; labels are finite 32-bit numbers: leave the row out")
        raise CorpusError(f"{place}; labels lie between 0 and 1, or are any finite number with --labels raw")


def texts_of(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    """Return a column of any type that has a form as text (`as_text`) as strings; null stays null."""
    return convert(batch.column(name), pa.string())


def _optional(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    """Return a column with `UNNAMED` for nulls, and everywhere if the batch lacks the column."""
    if name not in batch.schema.names:
        return pa.repeat(UNNAMED, batch.num_rows)
    return texts_of(batch, name).fill_null(UNNAMED)


def as_pairs(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """Return rows as `SCHEMA`."""
    instructions, responses = texts_of(batch, columns.instruction), texts_of(batch, columns.response)
    known = "pair_id" in batch.schema.names
    return pa.RecordBatch.from_arrays(
        [
            texts_of(batch, "pair_id") if known else _pair_ids(instructions, responses),
            _optional(batch, "dataset"),
            instructions,
            responses,
            pc.cast(batch.column(columns.label), pa.float32(), safe=False),
            _optional(batch, "label_source"),
        ],
        schema=SCHEMA,
    )


def as_preference_pairs(batch: pa.RecordBatch, columns: Columns) -> tuple[int, pa.RecordBatch]:
    """Return the number of rows with equal responses, and the pairs of the others."""
    chosen, rejected = (texts_of(batch, str(name)) for name in (columns.chosen, columns.rejected))
    differ = pc.not_equal(pc.utf8_trim_whitespace(chosen), pc.utf8_trim_whitespace(rejected))
    rows = np.flatnonzero(differ.to_numpy(zero_copy_only=False))
    twice = pa.array(np.repeat(rows, 2))
    responses = pa.concat_arrays([chosen, rejected]).take(pa.array(np.stack([rows, rows + len(chosen)], 1).ravel()))
    instructions = texts_of(batch, columns.instruction).take(twice)
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
