"""One type for a column of several files: what the job needs of it, else a type that holds all its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import pyarrow as pa

from beam_pipelines.io.columns import widen
from beam_pipelines.io.formats.base import AsWritten
from schemas.errors import CappyError
from schemas.records import as_text


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
    if name in roles.text_columns:
        return pa.field(name, _asked_text(name, found)), "text"
    if name in roles.text and (kind := _text(found)) is not None:
        return pa.field(name, kind), None
    if name in roles.numbers and (kind := _numbers(found)) is not None:
        return pa.field(name, kind), None
    if roles.templates and (how := _of_templates(found)) is not None:
        return pa.field(name, pa.string()), how
    if all(column.written for column in found):
        common = _common([column.field.type for column in found])
        if common is None or any(column.mostly is not None for column in found):
            return first.with_type(pa.string()), "text"
        if pa.types.is_null(common):
            return pa.field(name, pa.string()), None if _is_csv(found) else "text"
        return first.with_type(common), None
    return _widest(name, found), None


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType | None:
    """Return a type that holds the values of all types; None if there is none."""
    return reduce(lambda kind, other: None if kind is None else widen(kind, other), kinds[1:], kinds[0])


def _asked_text(name: str, found: Sequence[Found]) -> pa.DataType:
    """Return string, or list of string for lists of Parquet. Raises Unresolved for a type without a form as text."""
    kinds = [pa.string() if column.written else as_text(column.field.type, floats=True) for column in found]
    for column, kind in zip(found, kinds, strict=True):
        if kind is None or kind != kinds[0]:
            raise Unresolved(
                f"--text-columns {name}: is {column.field.type} in {column.url}, which has no form as text"
                + (" that the other files share" if kind is not None else "")
            )
    return kinds[0]


def _text(found: Sequence[Found]) -> pa.DataType | None:
    """Return string, or list of string, for a column that a job takes as text; None if it has no such form."""
    kinds = set()
    for column in found:
        listed = column.mostly is not None and pa.types.is_list(column.mostly)
        kind = column.mostly if listed else column.field.type
        if not pa.types.is_null(kind):
            kinds.add(as_text(kind, floats=column.written is not None))
    if not kinds:
        return pa.string()
    return kinds.pop() if len(kinds) == 1 else None


def _numbers(found: Sequence[Found]) -> pa.DataType | None:
    """Return float64 or bool, or lists of them, for cells, decimals, and numbers that odd rows hide; else None."""
    if all(pa.types.is_null(column.field.type) for column in found):
        return pa.float64()
    kind = _common([column.field.type if column.mostly is None else column.mostly for column in found])
    if kind is None:
        return None
    item = kind.value_type if pa.types.is_list(kind) else kind
    hidden = all(column.written for column in found) and any(column.mostly is not None for column in found)
    if not (pa.types.is_decimal(item) or (hidden and (pa.types.is_primitive(item) or pa.types.is_boolean(item)))):
        return None
    number = item if pa.types.is_boolean(item) else pa.float64()
    return pa.list_(number) if pa.types.is_list(kind) else number


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
