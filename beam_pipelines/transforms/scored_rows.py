"""Scored rows: which of their columns are what, and the candidates of a unit, one to a row or several in its lists."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.reads import Unit
from beam_pipelines.rejects import reject_at, unread
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
    for flag, name in flags.items():
        if schema.get_field_index(name) < 0:
            raise CappyError(f"{flag}: the input has no column {name!r}; there are {', '.join(schema.names)}")
    if group is None:
        group = GROUP_ID if GROUP_ID in schema.names else instruction
    columns = ScoredColumns(schema, group, instruction, response, score, order)
    _check_types(columns)
    for name in columns.others:
        if name in SELECTION.names:
            raise CappyError(
                f"the input has a column {name!r}, and the selection writes one of that name itself; "
                "rename that column of the input, or leave it out"
            )
    return columns


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
        ("--score-column", columns.score, _is_number(score), "numbers, or lists of them"),
        ("--group-column", columns.group, _is_group(group), "text, integers or booleans"),
    ]
    if columns.order is not None:
        checks.append(("--order-column", columns.order, _has_order(schema.field(columns.order).type), "what has order"))
    for flag, name, good, wanted in checks:
        if not good:
            raise CappyError(f"{flag}: column {name!r} is {schema.field(name).type} and must be {wanted}")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_group(kind: pa.DataType) -> bool:
    return bool(is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _has_order(kind: pa.DataType) -> bool:
    try:
        pc.rank(pa.array([], kind))
    except pa.ArrowNotImplementedError:
        return False
    return True


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
    faults = _row_faults(unit.rows, columns)
    rejects = unread(unit, origin="")
    for row, (reason, detail) in faults.items():
        excerpt = json.dumps(unit.rows.slice(row, 1).to_pylist()[0], ensure_ascii=False, default=str)
        rejects.append(_reject(unit, row, reason, detail, excerpt))
    lost = len(unit.bad) + int(_sizes(unit.rows, columns)[list(faults)].sum())
    found = _flatten(unit.rows, columns, np.setdiff1d(np.arange(unit.rows.num_rows), list(faults)))
    score = _numbers(unit, columns, found)
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


def _row_faults(rows: pa.RecordBatch, columns: ScoredColumns) -> dict[int, tuple[str, str]]:
    """The rows none of whose candidates can be used, each with a reason and a detail."""
    faults: dict[int, tuple[str, str]] = {}
    lists = [columns.response, columns.score] if columns.listed else []
    if lists:
        responses, scores = (pc.list_value_length(rows[name]).fill_null(0).to_numpy() for name in lists)
        for row in np.flatnonzero(responses != scores).tolist():
            faults[row] = ("lists_differ", f"{responses[row]} in {lists[0]} and {scores[row]} in {lists[1]}")
    reasons = dict.fromkeys((*lists, columns.instruction), "null_value") | {columns.group: "null_group"}
    for name, reason in reasons.items():
        for row in np.flatnonzero(rows[name].is_null()).tolist():
            faults[row] = (reason, f"null in {name}")
    return faults


def _sizes(rows: pa.RecordBatch, columns: ScoredColumns) -> np.ndarray:
    """int64[n]: as how many candidates each row counts when it is lost."""
    if not columns.listed:
        return np.ones(rows.num_rows, dtype=np.int64)
    lengths = [pc.list_value_length(rows[name]).fill_null(0).to_numpy() for name in (columns.response, columns.score)]
    return np.maximum(np.maximum(*lengths), 1).astype(np.int64)


def _flatten(rows: pa.RecordBatch, columns: ScoredColumns, good: np.ndarray) -> _Found:
    """The candidates of the rows at the positions `good`."""
    response, score = (rows[name].take(pa.array(good)) for name in (columns.response, columns.score))
    if not columns.listed:
        return _Found(good, np.zeros(len(good), dtype=np.int32), response, score)
    lengths = pc.list_value_length(response).to_numpy()
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    item = (np.arange(len(starts)) - starts).astype(np.int32)
    return _Found(np.repeat(good, lengths), item, response.flatten(), score.flatten())


def _numbers(unit: Unit, columns: ScoredColumns, found: _Found) -> np.ndarray:
    """float64[n]: the scores, NaN where there is none. Raises CappyError where one is itself NaN."""
    score: np.ndarray = pc.cast(found.score, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    broken = np.flatnonzero(np.isnan(score) & found.score.is_valid().to_numpy(zero_copy_only=False))
    if len(broken):
        raise CappyError(
            f"{unit.file.url}: {unit.position(int(found.row[broken[0]]))}: {columns.score} is NaN (not a number), "
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
    return _reject(unit, row, reason, where + detail, f"{instruction} => {found.response[index].as_py() or ''}")


def _reject(unit: Unit, row: int, reason: str, detail: str, excerpt: str) -> dict[str, Any]:
    position = int(unit.positions[row])
    return reject_at(unit, position, origin="", stage="read", reason=reason, detail=detail, excerpt=excerpt)
