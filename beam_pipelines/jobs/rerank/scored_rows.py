"""Scored rows: column roles of an input of rerank, and the candidates of a unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.candidates import (
    GROUP_ID,
    as_numbers,
    candidate_places,
    candidate_values,
    check_present,
    check_types,
    count_lost,
    default_group,
    dense_ranks,
    is_group,
    is_number,
    reject_read,
    row_faults,
)
from beam_pipelines.transforms.results import unreadable_rows
from schemas.errors import CappyError
from schemas.records import EXCERPT_CHARACTERS, SELECTION, is_text
from schemas.values import excerpt_of, python_values

_RANKED = ("rank", "num_candidates")


@dataclass(frozen=True)
class ScoredColumns:
    """Column roles of scored rows. `order` breaks ties of scores; None: only the position in the input does."""

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
        """The columns that hold lists; none where a row is one candidate."""
        return (self.response, self.score) if self.listed else ()

    @property
    def error(self) -> str:
        """The column in which score explains a missing score; an input need not have it."""
        return f"{self.score}_error"

    @property
    def renamed(self) -> dict[str, str]:
        """The columns that a selection holds under another name, with these names."""
        return {self.instruction: "instruction", self.response: "response"}

    @property
    def written_group(self) -> str:
        """The name that the column which defines groups has in a selection."""
        return self.renamed.get(self.group, self.group)

    @property
    def others(self) -> list[str]:
        """The columns that a selection copies, in the order of the input."""
        return [name for name in self.schema.names if name not in (*self.renamed, self.score, GROUP_ID)]

    @property
    def selection(self) -> pa.Schema:
        """SELECTION with the name that the column of the score has in the input."""
        index = SELECTION.get_field_index("score")
        return SELECTION.set(index, SELECTION.field(index).with_name(self.score))

    @property
    def output(self) -> pa.Schema:
        """`selection`, with the type that `instruction_id` has in the input, then the other columns of the input."""
        schema = self.selection
        if GROUP_ID in self.schema.names:
            own = self.schema.field(GROUP_ID).with_nullable(self.group != GROUP_ID)
            schema = schema.set(schema.get_field_index(GROUP_ID), own)
        return pa.schema([*schema, *(self.schema.field(name) for name in self.others)])

    @property
    def carried(self) -> pa.Schema:
        """The columns of `output` that are known before candidates are compared."""
        return pa.schema([field for field in self.output if field.name not in (self.score, *_RANKED)])


def scored_columns(
    schema: pa.Schema, *, group: str | None, instruction: str, response: str, score: str, order: str | None
) -> ScoredColumns:
    """Return the column roles of an input with this schema.

    `group` None: `instruction_id` where the input has it, else the instruction. Raises CappyError, naming the flag and
    the column, for a column that is missing, has an unsuitable type, or has a name that the selection uses itself.
    """
    flags = {"--instruction-column": instruction, "--response-column": response, "--score-column": score}
    flags |= {flag: name for flag, name in (("--group-column", group), ("--order-column", order)) if name is not None}
    check_present(schema, flags.items())
    columns = ScoredColumns(schema, group or default_group(schema, instruction), instruction, response, score, order)
    _check_types(columns)
    if columns.group == score:
        raise CappyError(f"--group-column: {score!r} is the column of the score, too; name what tells groups apart")
    _check_names(columns)
    return columns


def _check_names(columns: ScoredColumns) -> None:
    """Raise CappyError for a column whose name a selection uses for another one."""
    own = [name for name in SELECTION.names if name != "score"]
    for name in (columns.score, *columns.others):
        if name in own:
            flag = "--score-column: " if name == columns.score else ""
            raise CappyError(
                f"{flag}the input has a column {name!r}, and the selection writes one of that name itself; "
                "rename that column of the input, or leave it out"
            )


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
        checks.append(("--order-column", columns.order, _has_order(schema.field(columns.order).type), "sortable"))
    check_types(schema, checks)


def _has_order(kind: pa.DataType) -> bool:
    try:
        dense_ranks(pa.nulls(0, kind))
    except pa.ArrowNotImplementedError:
        return False
    return True


class Candidates(NamedTuple):
    """The n scored candidates of a unit as columns, in the order of the unit.

    Args:
      row: int64[n], the row of the unit.
      item: int32[n], the index in the row's lists; 0 where there are none.
      response: text, without nulls.
      score: float64[n], without NaN.
    """

    row: np.ndarray
    item: np.ndarray
    response: pa.Array
    score: np.ndarray


class Rejected(NamedTuple):
    """Reject records of a unit, the number of candidates lost to them, and how many of these only lack a score."""

    rejects: list[dict[str, Any]]
    candidates: int
    unscored: int


class _Unchecked(NamedTuple):
    """Candidates as read: the fields of `Candidates`, with nulls, and `score` of any numeric type."""

    row: np.ndarray
    item: np.ndarray
    response: pa.Array
    score: pa.Array


def read_candidates(unit: Unit, columns: ScoredColumns) -> tuple[Candidates, Rejected]:
    """Return the candidates of a unit that can be compared, and the others.

    A row that cannot be used is one reject, and counts as many candidates as its longer list has, at least 1. A
    candidate without a score, without a response, or with a score beyond float32 is a reject of its own. Raises
    CappyError for a score that is NaN.
    """
    faults = row_faults(unit.rows, columns)
    rejects = unreadable_rows(unit)
    for row, (reason, detail) in faults.items():
        rejects.append(reject_read(unit, row, reason, detail, excerpt_of(unit.rows, row)))
    lost = count_lost(unit, faults, columns.lists)
    read = _flatten(unit.rows, columns, np.setdiff1d(np.arange(unit.rows.num_rows), list(faults)))
    score = as_numbers(unit, columns.score, read.row, read.score)
    no_score, no_response = (array.is_null().to_numpy(zero_copy_only=False) for array in (read.score, read.response))
    # Written as float32, such a score would become infinite.
    beyond = np.isfinite(score) & (np.abs(score) > np.finfo(np.float32).max)
    faulty = no_score | no_response | beyond
    for index in np.flatnonzero(faulty).tolist():
        if no_score[index]:
            fault = "unscored", _missing_score(unit.rows, columns, read, index)
        elif no_response[index]:
            fault = "null_value", f"null in {columns.response}"
        else:
            fault = "score_out_of_range", f"{score[index]} is beyond the range of float32"
        rejects.append(_reject_item(unit, columns, read, index, *fault))
    usable = np.flatnonzero(~faulty)
    candidates = Candidates(read.row[usable], read.item[usable], read.response.take(pa.array(usable)), score[usable])
    return candidates, Rejected(rejects, lost + len(score) - len(usable), int(no_score.sum()))


def _flatten(rows: pa.RecordBatch, columns: ScoredColumns, good: np.ndarray) -> _Unchecked:
    """Return the candidates of the rows at the positions `good`."""
    response, score = (candidate_values(rows, name, good) for name in (columns.response, columns.score))
    return _Unchecked(*candidate_places(rows, columns.response, good), response, score)


def _missing_score(rows: pa.RecordBatch, columns: ScoredColumns, read: _Unchecked, index: int) -> str:
    """Return the scorer's error for a candidate, given for the row or for each item; else that the score is null."""
    row = int(read.row[index])
    error = python_values(rows[columns.error].slice(row, 1))[0] if columns.error in rows.schema.names else None
    if isinstance(error, list):
        error = error[read.item[index]] if read.item[index] < len(error) else None
    return f"null in {columns.score}" if error is None else str(error)


def _reject_item(
    unit: Unit, columns: ScoredColumns, read: _Unchecked, index: int, reason: str, detail: str
) -> dict[str, Any]:
    """Return the reject record of one candidate; where rows hold lists, its detail names the item."""
    row = int(read.row[index])
    instruction = unit.rows[columns.instruction][row].as_py()[: EXCERPT_CHARACTERS // 2]
    where = f"item {read.item[index]}: " if columns.listed else ""
    return reject_read(unit, row, reason, where + detail, f"{instruction} => {read.response[index].as_py() or ''}")
