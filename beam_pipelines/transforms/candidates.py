"""Rows of candidates, one in each row or several in its lists: checks, values, and the candidates of a group.

In numpy arrays a group is a number: equal numbers are one group.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.results import reject_row
from schemas.errors import CappyError
from schemas.records import as_text, is_binary, is_text
from schemas.stats import FIXED_POINT
from schemas.values import python_columns

GROUP = "group"
"""The column of the shuffle that holds the digest of a group."""
GROUP_ID = "instruction_id"
"""The column that defines groups by default, where an input has it."""
LARGEST = float(2**20)
"""The largest absolute value that is added up in fixed point: sums of larger ones would not fit into 64 bits."""


class CandidateColumns(Protocol):
    """Column roles of rows of candidates; the `lists` of a row are equally long."""

    @property
    def group(self) -> str:
        """The column that defines groups."""

    @property
    def instruction(self) -> str:
        """The column of the instruction."""

    @property
    def lists(self) -> Sequence[str]:
        """The columns that hold lists, the responses first; none where a row is one candidate."""


def default_group(schema: pa.Schema, instruction: str) -> str:
    """Return the column that defines groups where no flag names one."""
    return GROUP_ID if GROUP_ID in schema.names else instruction


def check_present(schema: pa.Schema, flags: Iterable[tuple[str, str]]) -> None:
    """Raise CappyError for the first (flag, column) whose column is missing."""
    for flag, name in flags:
        if schema.get_field_index(name) < 0:
            raise CappyError(f"{flag}: the input has no column {name!r}; there are {', '.join(schema.names)}")


def check_types(schema: pa.Schema, checks: Iterable[tuple[str, str, bool, str]]) -> None:
    """Raise CappyError for the first (flag, column, whether its type fits, the types that fit) that does not fit."""
    for flag, name, good, required in checks:
        if not good:
            kind = schema.field(name).type
            textual = required.startswith("text") and as_text(kind, floats=True) is not None
            remedy = f"; --text-columns {name} reads it as text" if textual else ""
            raise CappyError(f"{flag}: column {name!r} is {kind} and must be {required}{remedy}")


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column of this type can hold scores."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def is_group(kind: pa.DataType) -> bool:
    """Return whether a column of this type can define groups."""
    others = (pa.types.is_decimal, pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, is_binary)
    return _casts_to_text(kind) or any(test(kind) for test in others)


def _casts_to_text(kind: pa.DataType) -> bool:
    return bool(is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def group_texts(rows: pa.RecordBatch, name: str) -> pa.Array:
    """Return the values of a column that defines groups as text, which is equal for equal values only."""
    values = rows[name]
    if _casts_to_text(values.type):
        return values.cast(pa.string())
    (found,) = python_columns(rows.select([name]))
    texts = (value.hex() if isinstance(value, bytes) else str(value) for value in found if value is not None)
    return pa.array([None if value is None else next(texts) for value in found], pa.string())


def row_faults(rows: pa.RecordBatch, columns: CandidateColumns) -> dict[int, tuple[str, str]]:
    """Return the reason and the detail of each row none of whose candidates can be used."""
    faults: dict[int, tuple[str, str]] = {}
    for name in columns.lists:
        for row in np.flatnonzero(pc.equal(pc.list_value_length(rows[name]), 0).fill_null(False)).tolist():
            faults[row] = ("no_candidates", f"none in {name}")
    for other in columns.lists[1:]:
        first = columns.lists[0]
        expected, lengths = (pc.list_value_length(rows[name]).fill_null(0).to_numpy() for name in (first, other))
        for row in np.flatnonzero(expected != lengths).tolist():
            faults[row] = ("lists_differ", f"{expected[row]} in {first} and {lengths[row]} in {other}")
    reasons = dict.fromkeys((*columns.lists, columns.instruction), "null_value") | {columns.group: "null_group"}
    for name, reason in reasons.items():
        for row in np.flatnonzero(rows[name].is_null()).tolist():
            faults[row] = (reason, f"null in {name}")
    return faults


def count_lost(unit: Unit, faulty: Iterable[int], lists: Sequence[str]) -> int:
    """Return the number of candidates in the unreadable and `faulty` rows: the longest list of a row, at least 1."""
    rows = unit.rows
    lengths = [pc.list_value_length(rows[name]).fill_null(0).to_numpy() for name in lists]
    sizes = np.max([np.ones(rows.num_rows, dtype=np.int64), *lengths], axis=0)
    return len(unit.bad) + int(sizes[list(faulty)].sum())


def candidate_values(rows: pa.RecordBatch, column: str, good: np.ndarray) -> pa.Array:
    """Return a column's values of the candidates in the rows at positions `good`, with lists flattened."""
    values = rows[column].take(pa.array(good))
    return values.flatten() if pa.types.is_list(values.type) else values


def candidate_places(rows: pa.RecordBatch, response: str, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row, int64[n], and the index in its list, int32[n], of the candidates in the rows at `good`."""
    if not pa.types.is_list(rows[response].type):
        return good, np.zeros(len(good), dtype=np.int32)
    lengths = pc.list_value_length(rows[response].take(pa.array(good))).to_numpy()
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(good, lengths), (np.arange(len(starts)) - starts).astype(np.int32)


def as_numbers(unit: Unit, column: str, row: np.ndarray, values: pa.Array) -> np.ndarray:
    """Return values of a column, found in the rows `row`, as float64[n]; NaN for null. Raises CappyError for NaN."""
    numbers: np.ndarray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    broken = np.flatnonzero(np.isnan(numbers) & values.is_valid().to_numpy(zero_copy_only=False))
    if len(broken):
        raise CappyError(
            f"{unit.file.url}: {unit.position(int(row[broken[0]]))}: {column} is NaN (not a number), "
            "so the model that gave it is broken; score the candidates again with one that gives numbers"
        )
    return numbers


def reject_read(unit: Unit, row: int, reason: str, detail: str, excerpt: str) -> dict[str, Any]:
    """Return a reject record for a row of a unit, or for a candidate in it."""
    position = int(unit.positions[row])
    return reject_row(unit, position, stage="read", reason=reason, detail=detail, excerpt=excerpt)


def best_of(group: np.ndarray, score: np.ndarray, places: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Return the positions of the `limit` best candidates of each group, int64[m], ordered by group, then rank.

    Args:
      group: int64[n].
      score: float[n], without NaN.
      places: arrays of length n that break ties, the most important first: the smaller value is better. Ties that
        remain go to the earlier position.
      limit: candidates kept per group.
    """
    ordered = np.lexsort((*reversed(places), -score, group))
    return ordered[ranks(group[ordered]) <= limit]


def dense_ranks(values: pa.Array) -> np.ndarray:
    """Return the dense ranks of values, ascending, uint64[n]; nulls come last.

    Raises pyarrow.ArrowNotImplementedError for a type whose values have no order.
    """
    kind = values.type
    if pa.types.is_float16(kind):  # Arrow ranks neither these nor small decimals
        values = values.cast(pa.float32())
    elif pa.types.is_decimal(kind) and kind.bit_width < 128:
        values = values.cast(pa.decimal128(kind.precision, kind.scale))
    return np.asarray(pc.rank(values, tiebreaker="dense"))


def ranks(group: np.ndarray) -> np.ndarray:
    """Return the number of each member in its group, from 1, int64[n]; members of a group are adjacent."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(starts, append=len(group))
    return np.arange(len(group)) - np.repeat(starts, sizes) + 1


def over_groups(add: np.ufunc, values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Reduce `values` [n] within each group by `add`, for the groups in ascending order."""
    ordered = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[ordered], prepend=-1))
    result: np.ndarray = add.reduceat(values[ordered], starts)
    return result


def fixed_point(values: np.ndarray) -> np.ndarray:
    """Return values in [-LARGEST, LARGEST] in units of 1 / 2**20, int64[n]."""
    return np.rint(values * FIXED_POINT).astype(np.int64)
