"""Files that are added to a run: whether they fit the columns that its first files have decided."""

from collections.abc import Sequence

import pyarrow as pa

from beam_pipelines.io.columns import nested_types, widen
from beam_pipelines.io.formats.base import AsWritten
from beam_pipelines.io.resolve import Found, Roles, Unresolved, resolve
from schemas.conversion import is_list

_REMEDY = "or give the file a run of its own, in another folder"


def check_fits(
    name: str,
    decided: tuple[pa.Field, AsWritten | None],
    found: Sequence[Found],
    later: Sequence[Found],
    roles: Roles,
) -> None:
    """Raise Unresolved for the first of the `later` files whose values a column cannot hold.

    Args:
      name: name of the column.
      decided: its field and how it is read, as `resolve` gives them for the first files.
      found: the column as the first files have it.
      later: the column as the others have it.
      roles: what the job needs.
    """
    found = _distinct(found)
    for column in _distinct(later):
        if not (_takes_cells(decided, found, column) or _widens_to(name, decided, [*found, column], roles)):
            kind = "text, and values of other types" if column.mostly is not None else column.field.type
            empty = any(pa.types.is_null(part) for part, _ in nested_types(decided[0].type))
            raise Unresolved(
                f"{column.url}: column {name!r} is {kind}, which does not fit {decided[0].type}, its type in the first "
                f"files of the run{', which have no value of it; drop' if empty else '; convert'} it, {_REMEDY}"
            )


def _distinct(columns: Sequence[Found]) -> list[Found]:
    """Return the first column of each kind: among 100,000 files there are few."""
    kinds: dict[tuple[object, ...], Found] = {}
    for column in columns:
        kinds.setdefault((column.field, column.written, column.mostly), column)
    return list(kinds.values())


def check_may_lack(name: str, decided: pa.Field, lacking: Sequence[str]) -> None:
    """Raise Unresolved if files lack a column of a type that Parquet cannot hold null in place of."""
    if lacking and widen(decided.type, pa.null()) != decided.type:
        raise Unresolved(
            f"{lacking[0]}: lacks the column {name!r}, and Parquet cannot hold null in place of its type, "
            f"{decided.type}; add it, {_REMEDY}"
        )


def is_new(name: str, url: str) -> str:
    """Return why a column cannot be read that none of the first files has."""
    return (
        f"{url}: has a column {name!r} that the first files of the run lack; drop the column, or write to another "
        "folder"
    )


def _takes_cells(decided: tuple[pa.Field, AsWritten | None], found: Sequence[Found], column: Found) -> bool:
    """Return whether a text column of text files takes the values of another one, as that file has them."""
    field, how = decided
    if not pa.types.is_string(field.type) or None in (column.written, *(each.written for each in found)):
        return False
    nested = column.mostly is not None or is_list(column.field.type) or pa.types.is_struct(column.field.type)
    return how == "text" or column.written == "cell" or not nested


def _widens_to(name: str, decided: tuple[pa.Field, AsWritten | None], found: Sequence[Found], roles: Roles) -> bool:
    """Return whether a column of all files together would have the type that is decided."""
    try:
        field, how = resolve(name, found, roles)
    except Unresolved:
        return False
    return field.type.equals(decided[0].type) and how == decided[1]
