"""Examples to diagnose a scorer on: pairs in groups, and a right response for each group where one is known."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beam_pipelines.doctor.questions import QUESTIONS
from beam_pipelines.io.inputs import Input
from beam_pipelines.models.check import sample_rows
from beam_pipelines.transforms.candidates import check_present, check_types, default_group, is_group, is_number
from schemas.ids import text_key
from schemas.records import is_text

LABEL = "label"
_MOST_OF_A_GROUP = 16
_COMPARISONS_PER_PAIR = 2  # cheaper than pairs, which are also scored one at a time


class Columns(NamedTuple):
    """Column roles; `references` and `label` are None where the input has no such column."""

    instruction: str
    response: str
    group: str
    references: str | None
    label: str | None

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys(filter(None, self)))


class Group(NamedTuple):
    """The candidates of one instruction, and its right responses, those that are known."""

    instruction: str
    responses: list[str]
    right: list[str]


class Examples(NamedTuple):
    """What a scorer is tried on.

    `pairs` are (instruction, response), `groups` the number of the group of each; `right` are (instruction, a right
    response, the right response of another instruction).
    """

    pairs: list[tuple[str, str]]
    groups: list[int]
    right: list[tuple[str, str, str]]

    @property
    def swapped(self) -> list[int]:
        """For each pair another one with other texts; the pair itself where there is none."""
        count = len(self.pairs)
        places = []
        for place, (instruction, response) in enumerate(self.pairs):
            later = ((place + step) % count for step in range(1, count))
            other = (row for row in later if self.pairs[row][0] != instruction and self.pairs[row][1] != response)
            places.append(next(other, place))
        return places


def find_columns(
    schema: pa.Schema, instruction: str, response: str, group: str | None, references: str, label: str | None
) -> Columns:
    """Return the columns of an input. Raises CappyError for one that is missing or of the wrong type.

    The group is `instruction_id` where the input has it, else the instruction; references are optional, and so is
    `label` unless a name is given.
    """
    named = [("--instruction-column", instruction), ("--response-column", response)]
    named += [("--group-column", group)] if group else []
    named += [("--label-column", label)] if label else []
    check_present(schema, named)
    types = {field.name: field.type for field in schema}
    if label is None and LABEL in types and _is_label(types[LABEL]):
        label = LABEL
    known = references if references in types and _holds_texts(types[references]) else None
    columns = Columns(instruction, response, group or default_group(schema, instruction), known, label)
    item = types[response].value_type if pa.types.is_list(types[response]) else types[response]
    checks = [
        ("--instruction-column", instruction, is_text(types[instruction]), "text"),
        ("--response-column", response, is_text(item), "text, or lists of it"),
        ("--group-column", columns.group, is_group(types[columns.group]), "text, integers or booleans"),
    ]
    checks += [("--label-column", label, _is_label(types[label]), "numbers or booleans")] if label else []
    check_types(schema, checks)
    return columns


def _is_label(kind: pa.DataType) -> bool:
    return is_number(kind) or pa.types.is_boolean(kind)


def _holds_texts(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_list(kind) else kind)


def _texts_in(value: str | list[str | None] | None) -> list[str]:
    """Return the texts of a value, which is one, a list of them, or null."""
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if text is not None]


def examples_of(source: Input, columns: Columns, count: int) -> Examples:
    """Return about `count` pairs of an input: the groups with the smallest hashes among the rows of `sample_rows`."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for rows in sample_rows(source, columns.names):
        for row in rows.to_pylist():
            if row[columns.instruction] is not None and row[columns.group] is not None:
                groups[row[columns.group]].append(row)
    ordered = sorted(groups, key=lambda name: text_key(str(name)))
    return _examples([_group(groups[name], columns) for name in ordered], count)


def _group(rows: Sequence[dict[str, Any]], columns: Columns) -> Group:
    responses: list[str] = []
    right: list[str] = []
    for row in rows:
        texts = _texts_in(row[columns.response])
        responses += texts
        if columns.references is not None:
            right += filter(None, _texts_in(row[columns.references]))  # an empty cell of CSV is an empty text
        elif columns.label is not None and row[columns.label] == 1:
            right += texts
    return Group(rows[0][columns.instruction], list(dict.fromkeys(responses)), list(dict.fromkeys(right)))


def built_in_examples() -> Examples:
    """Return the pairs of `QUESTIONS`: each with its own answer and those of two others."""
    answers = [answer for _, answer in QUESTIONS] * 2
    groups = [Group(text, answers[place : place + 3], [answer]) for place, (text, answer) in enumerate(QUESTIONS)]
    return _examples(groups, len(answers) * 3)


def _examples(groups: Sequence[Group], count: int) -> Examples:
    pairs: list[tuple[str, str]] = []
    numbers: list[int] = []
    for number, group in enumerate(groups):
        if len(pairs) >= count:
            break
        candidates = group.responses[:_MOST_OF_A_GROUP]
        pairs += [(group.instruction, response) for response in candidates]
        numbers += [number] * len(candidates)
    known = [group for group in groups if group.right]
    return Examples(pairs, numbers, list(_comparisons(known, _COMPARISONS_PER_PAIR * count)))


def _comparisons(groups: Sequence[Group], count: int) -> Iterator[tuple[str, str, str]]:
    """Yield at most `count` (instruction, right response, right response of another group that is not right here)."""
    for place, group in enumerate(groups[:count]):
        others = (groups[(place + step) % len(groups)] for step in range(1, len(groups)))
        wrong = next(
            (
                other.right[0]
                for other in others
                if other.instruction != group.instruction and other.right[0] not in group.right
            ),
            None,
        )
        if wrong is not None:
            yield group.instruction, group.right[0], wrong
