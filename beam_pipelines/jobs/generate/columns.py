"""The columns that generate reads: the instruction, those copied to candidates, and those of sampling per template."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beam_pipelines.jobs.generate.sampling import ID, TEMPLATE_COLUMNS, Template, templates_of
from schemas.errors import CappyError
from schemas.ids import digest
from schemas.records import as_text, is_text

COPIED = ("dataset", "references")
"""The columns that candidates copy from their instruction."""


def text_roles(instruction: str) -> tuple[str, ...]:
    """Return the columns that generate takes as text, or as lists of it, where the input has them."""
    return tuple(dict.fromkeys((instruction, ID, *COPIED, *TEMPLATE_COLUMNS)))


def used_columns(instruction: str, *, per_template: bool) -> tuple[str, ...]:
    """Return the columns that generate reads where the input has them, the one of the instruction first."""
    return tuple(dict.fromkeys((instruction, ID, *COPIED, *(TEMPLATE_COLUMNS if per_template else ()))))


def instruction_columns(found: pa.Schema, instruction: str, *, per_template: bool) -> pa.Schema:
    """Return the columns to read. Raises CappyError for a column that is missing or has the wrong type."""
    if instruction not in found.names:
        raise CappyError(
            f"--instruction-column {instruction}: there is no such column; there are {', '.join(found.names)}"
        )
    if not is_text(found.field(instruction).type):
        kind = found.field(instruction).type
        raise CappyError(f"--instruction-column {instruction}: is {kind}, not text; {_remedy(instruction, kind)}")
    columns = {instruction: pa.string()}
    for name in used_columns(instruction, per_template=per_template)[1:]:
        if name in found.names:
            columns[name] = _type_of(found.field(name))
    return pa.schema(columns.items())


def _type_of(field: pa.Field) -> pa.DataType:
    """Return the type to read a column as: text, or a list of texts for `references`; else raise CappyError."""
    kind, may_be_list = field.type, field.name == "references"
    if is_text(kind) or pa.types.is_null(kind):
        return pa.string()
    if may_be_list and pa.types.is_list(kind) and (is_text(kind.value_type) or pa.types.is_null(kind.value_type)):
        return pa.list_(pa.string())
    expected = "text or a list of texts" if may_be_list else "text"
    raise CappyError(f"column {field.name!r} is {kind} and must be {expected}; {_remedy(field.name, kind)}")


def _remedy(name: str, kind: pa.DataType) -> str:
    if as_text(kind, floats=True) == pa.string():
        return f"--text-columns {name} reads it as text"
    return "convert, rename or drop it"


class Instruction(NamedTuple):
    """A row to generate for: its offset in the unit, and the values copied to its candidates."""

    offset: int
    instruction_id: str
    dataset: str | None
    instruction: str
    references: list[str] | None


def usable_rows(
    rows: pa.RecordBatch, instruction: str
) -> tuple[list[tuple[Instruction, Template]], list[tuple[int, str]]]:
    """Return the usable rows, each with its template, and the indices of the others, each with the reason."""
    present, nothing = set(rows.schema.names), [None] * rows.num_rows
    instructions = rows[instruction].to_pylist()
    datasets, references = (rows[name].to_pylist() if name in present else nothing for name in COPIED)
    hashes = [None if text is None else digest(text) for text in instructions]
    ids: list[Any] = rows[ID].to_pylist() if ID in present else hashes
    usable, unusable = [], []
    for index, template in enumerate(templates_of(rows)):
        texts = _as_list(references[index])
        if instructions[index] is None:
            unusable.append((index, f"null in {instruction}"))
        elif ids[index] is None:
            unusable.append((index, f"null in {ID}"))
        elif texts is not None and None in texts:
            unusable.append((index, "null among the references"))
        else:
            usable.append((Instruction(index, ids[index], datasets[index], instructions[index], texts), template))
    return usable, unusable


def _as_list(references: str | Sequence[str] | None) -> list[str] | None:
    """Return a row's references; a text is the only one, and an empty text, as of an empty cell of CSV, is none."""
    if isinstance(references, str):
        return [references] if references else None
    return None if references is None else list(references)
