"""One type for a column of several files: what the job needs of it, else a type that holds all its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import pyarrow as pa

from beam_pipelines.io.columns import as_text, widen
from beam_pipelines.io.formats.base import AsWritten
from schemas.errors import CappyError


@dataclass(frozen=True)
class Roles:
    """What a job needs of columns; all other columns keep the type that their files give them.

    Args:
      text: columns that the job takes as text, or as lists of it.
      numbers: columns that the job takes as numbers or booleans, or as lists of them.
      text_columns: columns that the user wants as text, whatever their type.
      templates: whether the columns are variables of templates, which see the values of each row as its file has them.
    """

    text: Sequence[str] = ()
    numbers: Sequence[str] = ()
    text_columns: Sequence[str] = ()
    templates: bool = False


NO_ROLES = Roles()
"""All columns keep the type that their files give them."""


class Found(NamedTuple):
    """A column as one file has it (see `FileSummary`); `written` is how its format reads text as written."""

    url: str
    field: pa.Field
    written: AsWritten | None
    mostly: pa.DataType | None


class Unresolved(CappyError):
    """No type holds the values of all files."""


def resolve(name: str, found: Sequence[Found], roles: Roles) -> tuple[pa.Field, AsWritten | None]:
    """Return the field of a column, and how it is read as written. Raises Unresolved, naming both files."""
    first = found[0].field
    wanted = _needed(name, found, roles)
    if wanted is not None:
        return first.with_type(wanted[0]), wanted[1]
    if roles.templates and (how := _of_templates(found)) is not None:
        return first.with_type(pa.string()), how
    if all(column.written for column in found):
        kind = reduce(lambda kind, column: kind and widen(kind, column.field.type), found[1:], first.type)
        if kind is None or any(column.mostly for column in found):
            return first.with_type(pa.string()), "text"
        return first.with_type(pa.string() if pa.types.is_null(kind) and _is_csv(found) else kind), None
    return _widest(name, found), None


def _needed(name: str, found: Sequence[Found], roles: Roles) -> tuple[pa.DataType, AsWritten | None] | None:
    """Return the type that a role or a flag asks for, and how the column is read; None where there is no such."""
    written = all(column.written for column in found)
    if name in roles.text_columns:
        kinds = [pa.string() if column.written else as_text(column.field.type, floats=True) for column in found]
        unfit = next((column for column, kind in zip(found, kinds, strict=True) if kind is None), None)
        if unfit is not None:
            raise Unresolved(f"--text-columns {name}: is {unfit.field.type} in {unfit.url}, which has no form as text")
        return pa.string(), "text"
    if name in roles.text:
        kinds = [as_text(column.field.type, floats=column.written is not None) for column in found]
        present = {kind for column, kind in zip(found, kinds, strict=True) if not pa.types.is_null(column.field.type)}
        if len(present) < 2 and None not in present:
            return (present.pop() if present else pa.string()), None
    if name in roles.numbers and all(pa.types.is_null(column.field.type) for column in found):
        return pa.float64(), None
    if name in roles.numbers and written and any(column.mostly for column in found):
        likely = [column.mostly or column.field.type for column in found]
        kind = reduce(lambda kind, other: kind and widen(kind, other), likely[1:], likely[0])
        if kind is not None and (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return (kind if pa.types.is_boolean(kind) else pa.float64()), None
    return None


def _of_templates(found: Sequence[Found]) -> AsWritten | None:
    """Return how a column is read for templates; None for text, and for files with types of their own."""
    forms = {column.written for column in found}
    if len(forms) > 1 or None in forms:
        return None
    form = forms.pop()
    if all(pa.types.is_string(column.field.type) and column.mostly is None for column in found):
        return None
    return form if form == "json" or any(_has_type(column) for column in found) else None


def _has_type(column: Found) -> bool:
    """Return whether the cells of a column of CSV are numbers or booleans."""
    return column.mostly is not None or not (
        pa.types.is_string(column.field.type) or pa.types.is_null(column.field.type)
    )


def _is_csv(found: Sequence[Found]) -> bool:
    return any(column.written == "cell" for column in found)


def _widest(name: str, found: Sequence[Found]) -> pa.Field:
    widest, origin = found[0].field, found[0].url
    for column in found[1:]:
        kind = widen(widest.type, column.field.type)
        if kind is None:
            raise Unresolved(
                f"column {name!r} is {column.field.type} in {column.url} and {widest.type} in {origin}, and no type "
                f"holds the values of both; convert one, pass the files in separate runs, or give --text-columns {name}"
            )
        if not kind.equals(widest.type):
            widest, origin = widest.with_type(kind), column.url
    return widest
