"""Python values of JSON, as Arrow types and arrays. Nothing is truncated: a value fits its column, or it raises."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from math import isfinite

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_DEPTH = 62
"""Levels of lists and objects that a column may have. Arrow ships 64, with the values and the struct of a job's own."""

_EXACT_FLOATS = 2**53


class DoesNotFit(ValueError):
    """A value does not fit the type of its column."""


def infer_type(values: Iterable[object], depth: int = 1) -> pa.DataType | None:
    """Return the type that holds JSON values; None if there is none, so that the column must be text.

    Integers beyond 64 bits, and NaN or an infinity among integers, never change a type: these rows do not fit it.
    Parquet cannot store objects without fields, and Arrow cannot ship what is nested more than 64 levels deep.
    """
    present = [value for value in values if value is not None]
    kinds = set(map(type, present))
    if not kinds:
        return pa.null()
    if kinds <= {int, float}:
        return _number_type(present)  # type: ignore[arg-type]
    if len(kinds) > 1:
        return None
    kind = kinds.pop()
    if kind in (list, dict) and depth > MAX_DEPTH:
        return None
    if kind is list:
        item = infer_type(chain.from_iterable(present), depth + 1)  # type: ignore[arg-type]
        return None if item is None else pa.list_(item)
    if kind is dict:
        return _struct_type(present, depth)  # type: ignore[arg-type]
    return pa.string() if kind is str else pa.bool_()


def _struct_type(objects: Sequence[dict[str, object]], depth: int) -> pa.DataType | None:
    fields = []
    for name in dict.fromkeys(chain.from_iterable(objects)):
        kind = infer_type((each.get(name) for each in objects), depth + 1)
        if kind is None:
            return None
        fields.append(pa.field(name, kind))
    return pa.struct(fields) if fields else None


def _number_type(numbers: Sequence[int | float]) -> pa.DataType | None:
    whole = [number for number in numbers if type(number) is int]
    fitting = [number for number in whole if -(2**63) <= number < 2**64]
    if len(whole) < len(numbers) and any(type(number) is float and isfinite(number) for number in numbers):
        return pa.float64() if all(abs(number) <= _EXACT_FLOATS for number in fitting) else None
    if not whole:
        return pa.float64()
    if not fitting:
        return None
    return pa.uint64() if max(fitting) >= 2**63 and min(fitting) >= 0 else pa.int64()


def most_common_type(values: Iterable[object], depth: int = 1) -> pa.DataType:
    """Return the type of most values: of the numbers, or the texts, and so on. string where no type holds them.

    In lists of mixed items it is that of most items. Some value must not be None.
    """
    kinds = [(float if type(value) is int else type(value), value) for value in values if value is not None]
    most = Counter(kind for kind, _ in kinds).most_common(1)[0][0]
    chosen = [value for kind, value in kinds if kind is most]
    inferred = infer_type(chosen, depth)
    if inferred is not None:
        return inferred
    if most is list and depth < MAX_DEPTH:
        return pa.list_(most_common_type(chain.from_iterable(chosen), depth + 1))  # type: ignore[arg-type]
    return pa.string()


def make_array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Convert JSON values to an array of type `kind`. Raises DoesNotFit if a value is of another type.

    Arrow alone would truncate 1.5 to 1, split a text into a list of its characters, and drop unknown fields.
    """
    if not _conforms(values, kind):
        raise DoesNotFit
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        raise DoesNotFit from error


def _conforms(values: Sequence[object], kind: pa.DataType) -> bool:
    """Return whether all values have the Python type of `kind`, at any depth. Arrow checks the range of numbers."""
    kinds = set(map(type, values)) - {type(None)}
    if pa.types.is_struct(kind):
        objects = [value for value in values if value is not None]
        return (
            kinds <= {dict}
            and {field.name for field in kind}.issuperset(chain.from_iterable(objects))  # type: ignore[arg-type]
            and all(_conforms([each.get(field.name) for each in objects], field.type) for field in kind)  # type: ignore[attr-defined]
        )
    if pa.types.is_list(kind):
        lists = (value for value in values if value is not None)
        return kinds <= {list} and _conforms(list(chain.from_iterable(lists)), kind.value_type)  # type: ignore[arg-type]
    if pa.types.is_float64(kind):
        return kinds <= {int, float}
    if pa.types.is_integer(kind):
        return kinds <= {int}
    if pa.types.is_boolean(kind):
        return kinds <= {bool}
    return not kinds or (pa.types.is_string(kind) and kinds == {str})


def infinite_rows(array: pa.Array) -> list[int]:
    """Return the positions of the rows that hold an infinity, at any depth."""
    kind = array.type
    if pa.types.is_floating(kind):
        found: list[int] = np.flatnonzero(pc.fill_null(pc.is_inf(array), False)).tolist()
        return found
    if not pa.types.is_nested(kind):
        return []
    if not _has_infinity(array):
        return []
    return [row for row in range(len(array)) if _has_infinity(array.slice(row, 1))]


def _has_infinity(array: pa.Array) -> bool:
    if pa.types.is_list(array.type):
        return _has_infinity(array.flatten())
    if pa.types.is_struct(array.type):
        return any(map(_has_infinity, array.flatten()))
    return pa.types.is_floating(array.type) and bool(pc.any(pc.is_inf(array)).as_py())


def is_text_list(kind: pa.DataType) -> bool:
    """Return whether `kind` is string inside one or more lists."""
    return pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or is_text_list(kind.value_type))


def as_texts(value: object, kind: pa.DataType) -> object:
    """Convert a JSON value to text, or to the lists of text that `kind` is. Raises DoesNotFit for another shape.

    Args:
      value: parsed with numbers left as texts.
      kind: string, or list of it at any depth.
    """
    if value is None or isinstance(value, bool):
        value = None if value is None else str(value).lower()
    if isinstance(value, list) and pa.types.is_list(kind):
        return [as_texts(item, kind.value_type) for item in value]
    if value is None or (isinstance(value, str) and pa.types.is_string(kind)):
        return value
    raise DoesNotFit
