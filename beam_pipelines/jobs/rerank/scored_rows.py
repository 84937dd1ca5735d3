"""Scored rows: which of their columns are what, and the candidates of a unit, one to a row or several in its lists."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.rejects import reject_at, unread
from schemas.errors import CappyError
from schemas.records import EXCERPT_CHARACTERS, SELECTION, is_text

GROUP_ID = "instruction_id"
_RANKED = ("score", "rank", "num_candidates")


@dataclass(frozen=True)
class ScoredColumns:
    """Which columns of an input are what. `order` breaks ties of scores; None: only the place in the input does."""

    schema: pa.Schema
    group: str
    instruction: str
    response: str
    score: str
    order: str | None

    @property
    def listed(self) -> bool:
        """Whether a row holds several candidates: lists of responses and of scores, equally long."""
        return pa.types.is_list(self.schema.field(self.response).type)

    @property
    def lists(self) -> Sequence[str]:
        """The columns that hold lists, where they do."""
        return (self.response, self.score) if self.listed else ()

    @property
    def error(self) -> str:
        """Where the scorer says why a row has no score, if the input has such a column."""
        return f"{self.score}_error"

    @property
    def renamed(self) -> dict[str, str]:
        """The columns that a selection has under a name of its own."""
        return {self.instruction: "instruction", self.response: "response", self.score: "score"}

    @property
    def others(self) -> list[str]:
        """The columns that a selection takes over as they are, in the order of the input."""
        return [name for name in self.schema.names if name not in (*self.renamed, GROUP_ID)]

    @property
    def output(self) -> pa.Schema:
        """SELECTION, its `instruction_id` as the input has it, and the other columns of the input."""
        schema = SELECTION
        if GROUP_ID in self.schema.names:
            own = self.schema.field(GROUP_ID).with_nullable(self.group != GROUP_ID)
            schema = schema.set(schema.get_field_index(GROUP_ID), own)
        return pa.schema([*schema, *(self.schema.field(name) for name in self.others)])

    @property
    def carried(self) -> pa.Schema:
        """The columns of `output` that a candidate has on its own, before it is compared with others."""
        return pa.schema([field for field in self.output if field.name not in _RANKED])


def scored_columns(
    schema: pa.Schema, *, group: str | None, instruction: str, response: str, score: str, order: str | None
) -> ScoredColumns:
    """The columns of an input with this schema.

    Without `group`, candidates of one `instruction_id` are a group, or of one instruction where there is no such
    column. Raises CappyError, naming the flag and the column, for a column that is not there or has another type than
    its use needs, and for one whose name the selection needs for itself.
    """
    flags = {"--instruction-column": instruction, "--response-column": response, "--score-column": score}
    flags |= {flag: name for flag, name in (("--group-column", group), ("--order-column", order)) if name is not None}
    check_present(schema, flags.items())
    columns = ScoredColumns(schema, group or usual_group(schema, instruction), instruction, response, score, order)
    _check_types(columns)
    for name in columns.others:
        if name in SELECTION.names:
            raise CappyError(
                f"the input has a column {name!r}, and the selection writes one of that name itself; "
                "rename that column of the input, or leave it out"
            )
    return columns


def check_present(schema: pa.Schema, flags: Iterable[tuple[str, str]]) -> None:
    """Raises CappyError for the first column that is not there, given as (flag, column)."""
    for flag, name in flags:
        if schema.get_field_index(name) < 0:
            raise CappyError(f"{flag}: the input has no column {name!r}; there are {', '.join(schema.names)}")


def usual_group(schema: pa.Schema, instruction: str) -> str:
    """What tells groups apart where no column is named."""
    return GROUP_ID if GROUP_ID in schema.names else instruction


def _check_types(columns: ScoredColumns) -> None:
    schema = columns.schema
    kinds = {name: schema.field(name).type for name in (columns.response, columns.score)}
    lists = [name for name, kind in kinds.items() if pa.types.is_list(kind)]
    if len(lists) == 1:
        other = next(name for name in kinds if name not in lists)
        raise CappyError(
            f"column {lists[0]!r} is {kinds[lists[0]]} and column {other!r} is {kinds[other]}; "
            "responses and scores are both lists, or neither is"
        )
    response, score = (kind.value_type if lists else kind for kind in kinds.values())
    group = schema.field(columns.group).type
    checks = [
        ("--instruction-column", columns.instruction, is_text(schema.field(columns.instruction).type), "text"),
        ("--response-column", columns.response, is_text(response), "text, or lists of it"),
        ("--score-column", columns.score, is_number(score), "numbers, or lists of them"),
        ("--group-column", columns.group, is_group(group), "text, integers or booleans"),
    ]
    if columns.order is not None:
        checks.append(("--order-column", columns.order, _has_order(schema.field(columns.order).type), "what has order"))
    check_types(schema, checks)


def check_types(schema: pa.Schema, checks: Iterable[tuple[str, str, bool, str]]) -> None:
    """Raises CappyError for the first of (flag, column, whether its type will do, what will) that will not do."""
    for flag, name, good, wanted in checks:
        if not good:
            raise CappyError(f"{flag}: column {name!r} is {schema.field(name).type} and must be {wanted}")


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds scores."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_group(kind: pa.DataType) -> bool:
    """Whether a column of this type can tell groups apart."""
    return bool(is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _has_order(kind: pa.DataType) -> bool:
    try:
        pc.rank(pa.array([], kind))
    except pa.ArrowNotImplementedError:
        return False
    return True


class CandidateColumns(Protocol):
    """What the rows of candidates have, whatever is done with them; `lists` are equally long in each row."""

    @property
    def group(self) -> str:
        """What tells groups apart."""

    @property
    def instruction(self) -> str:
        """The instruction's text."""

    @property
    def lists(self) -> Sequence[str]:
        """The columns that hold lists, the responses first, where they do."""


class Candidates(NamedTuple):
    """The candidates of a unit that have a score, as columns of equal length n, in the order of the unit.

    `row` int64[n] is the row of the unit, `item` int32[n] the place in the row's lists (0 where there are none),
    `response` text, and `score` float64[n], never NaN.
    """

    row: np.ndarray
    item: np.ndarray
    response: pa.Array
    score: np.ndarray


class Lost(NamedTuple):
    """REJECT rows, how many candidates they stand for, and how many of these only lack a score."""

    rejects: list[dict[str, Any]]
    candidates: int
    unscored: int


class _Found(NamedTuple):
    """Candidates as they stand in a unit: like `Candidates`, with nulls, and `score` of any type of numbers."""

    row: np.ndarray
    item: np.ndarray
    response: pa.Array
    score: pa.Array


def read_candidates(unit: Unit, columns: ScoredColumns) -> tuple[Candidates, Lost]:
    """The candidates of a unit that can be compared, and what is lost of it.

    A row that cannot be used is one reject, which stands for as many candidates as its longer list has, or for one.
    A candidate without a score, without a response, or with a score beyond float32 is a reject of its own. Raises
    CappyError for a score that is NaN.
    """
    faults = row_faults(unit.rows, columns)
    rejects = unread(unit, origin="")
    for row, (reason, detail) in faults.items():
        excerpt = json.dumps(unit.rows.slice(row, 1).to_pylist()[0], ensure_ascii=False, default=str)
        rejects.append(reject_of(unit, row, reason, detail, excerpt))
    lost = len(unit.bad) + int(sizes(unit.rows, columns.lists)[list(faults)].sum())
    found = _flatten(unit.rows, columns, np.setdiff1d(np.arange(unit.rows.num_rows), list(faults)))
    score = as_numbers(unit, columns.score, found.row, found.score)
    missing, silent = (array.is_null().to_numpy(zero_copy_only=False) for array in (found.score, found.response))
    # Written as float32, such a score would become infinite.
    beyond = np.isfinite(score) & (np.abs(score) > np.finfo(np.float32).max)
    for index in np.flatnonzero(missing | beyond | silent).tolist():
        if missing[index]:
            fault = "unscored", _why_unscored(unit.rows, columns, found, index)
        elif silent[index]:
            fault = "null_value", f"null in {columns.response}"
        else:
            fault = "score_out_of_range", f"{score[index]} is beyond the range of float32"
        rejects.append(_reject_item(unit, columns, found, index, *fault))
    usable = np.flatnonzero(~(missing | beyond | silent))
    candidates = Candidates(found.row[usable], found.item[usable], found.response.take(pa.array(usable)), score[usable])
    return candidates, Lost(rejects, lost + len(score) - len(usable), int(missing.sum()))


def row_faults(rows: pa.RecordBatch, columns: CandidateColumns) -> dict[int, tuple[str, str]]:
    """The rows none of whose candidates can be used, each with a reason and a detail."""
    faults: dict[int, tuple[str, str]] = {}
    for name in columns.lists:
        for row in np.flatnonzero(pc.equal(pc.list_value_length(rows[name]), 0).fill_null(False)).tolist():
            faults[row] = ("no_candidates", f"none in {name}")
    for other in columns.lists[1:]:
        first = columns.lists[0]
        wanted, lengths = (pc.list_value_length(rows[name]).fill_null(0).to_numpy() for name in (first, other))
        for row in np.flatnonzero(wanted != lengths).tolist():
            faults[row] = ("lists_differ", f"{wanted[row]} in {first} and {lengths[row]} in {other}")
    reasons = dict.fromkeys((*columns.lists, columns.instruction), "null_value") | {columns.group: "null_group"}
    for name, reason in reasons.items():
        for row in np.flatnonzero(rows[name].is_null()).tolist():
            faults[row] = (reason, f"null in {name}")
    return faults


def sizes(rows: pa.RecordBatch, lists: Sequence[str]) -> np.ndarray:
    """int64[n]: as how many candidates each row counts when it is lost: its longest list, or one."""
    lengths = [pc.list_value_length(rows[name]).fill_null(0).to_numpy() for name in lists]
    return np.max([np.ones(rows.num_rows, dtype=np.int64), *lengths], axis=0)


def _flatten(rows: pa.RecordBatch, columns: ScoredColumns, good: np.ndarray) -> _Found:
    """The candidates of the rows at the positions `good`."""
    response, score = (candidate_values(rows, name, good) for name in (columns.response, columns.score))
    return _Found(*candidate_places(rows, columns.response, good), response, score)


def candidate_values(rows: pa.RecordBatch, column: str, good: np.ndarray) -> pa.Array:
    """The values of a column for the candidates of the rows at the positions `good`, one by one where it has lists."""
    values = rows[column].take(pa.array(good))
    return values.flatten() if pa.types.is_list(values.type) else values


def candidate_places(rows: pa.RecordBatch, response: str, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the candidates of the rows at the positions `good`: the row, int64[n], and the place in its list, int32[n]."""
    if not pa.types.is_list(rows[response].type):
        return good, np.zeros(len(good), dtype=np.int32)
    lengths = pc.list_value_length(rows[response].take(pa.array(good))).to_numpy()
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(good, lengths), (np.arange(len(starts)) - starts).astype(np.int32)


def as_numbers(unit: Unit, column: str, row: np.ndarray, values: pa.Array) -> np.ndarray:
    """float64[n]: values of a column, which stand in the rows `row`, NaN for null. Raises CappyError for NaN itself."""
    score: np.ndarray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    broken = np.flatnonzero(np.isnan(score) & values.is_valid().to_numpy(zero_copy_only=False))
    if len(broken):
        raise CappyError(
            f"{unit.file.url}: {unit.position(int(row[broken[0]]))}: {column} is NaN (not a number), "
            "so the model that gave it is broken; score the candidates again with one that gives numbers"
        )
    return score


def _why_unscored(rows: pa.RecordBatch, columns: ScoredColumns, found: _Found, index: int) -> str:
    """What the scorer said of a candidate without a score, for all of the row's candidates or one by one."""
    said = rows[columns.error][int(found.row[index])].as_py() if columns.error in rows.schema.names else None
    if isinstance(said, list):
        said = said[found.item[index]] if found.item[index] < len(said) else None
    return f"null in {columns.score}" if said is None else str(said)


def _reject_item(
    unit: Unit, columns: ScoredColumns, found: _Found, index: int, reason: str, detail: str
) -> dict[str, Any]:
    """The REJECT row of one candidate; where rows hold lists, its detail says which item it is."""
    row = int(found.row[index])
    instruction = unit.rows[columns.instruction][row].as_py()[: EXCERPT_CHARACTERS // 2]
    where = f"item {found.item[index]}: " if columns.listed else ""
    return reject_of(unit, row, reason, where + detail, f"{instruction} => {found.response[index].as_py() or ''}")


def reject_of(unit: Unit, row: int, reason: str, detail: str, excerpt: str) -> dict[str, Any]:
    """The REJECT row of a row of a unit, or of a candidate in it."""
    position = int(unit.positions[row])
    return reject_at(unit, position, origin="", stage="read", reason=reason, detail=detail, excerpt=excerpt)
