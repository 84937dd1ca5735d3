"""Arrow types of input columns: normalized, compared, inferred from Python values."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from schemas.errors import CappyError
from schemas.records import is_text


class UnreadableFile(CappyError):
    """An input file that cannot be opened, or whose columns cannot be determined."""


def normalize_type(kind: pa.DataType) -> pa.DataType:
    """Replace every text type in `kind` by string and every list type by list, at any depth."""
    if is_text(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(child.name, normalize_type(child.type)) for child in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(normalize_type(kind.value_type))
    return kind


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Return whether values of type `source` convert to type `target` without loss.

    Integers fit float64 by type. An integer beyond 2**53 does not fit by value; Arrow's cast reports it.
    """
    if source.equals(target) or pa.types.is_null(source):
        return True
    if pa.types.is_floating(target) and (pa.types.is_integer(source) or pa.types.is_floating(source)):
        return pa.types.is_float64(target) or source.bit_width < target.bit_width
    if pa.types.is_list(source) and pa.types.is_list(target):
        return fits(source.value_type, target.value_type)
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        return all(target.get_field_index(f.name) >= 0 and fits(f.type, target.field(f.name).type) for f in source)
    return False


def widen(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of both types; None if there is none."""
    if fits(one, other):
        return other
    return one if fits(other, one) else None


def as_text(kind: pa.DataType, *, floats: bool = False) -> pa.DataType | None:
    """Return the type of a column as text: string, or list of string for lists; None if it has no form as text.

    Text, bytes (which must be UTF-8), integers and booleans have one; floating-point numbers only with `floats`, since
    their digits are those of the file in text formats alone.
    """
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        item = as_text(kind.value_type, floats=floats)
        return pa.list_(item) if item is not None and pa.types.is_string(item) else None
    if is_text(kind) or pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pa.string()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or (floats and pa.types.is_floating(kind)):
        return pa.string()
    return None


def nested_types(kind: pa.DataType) -> Iterator[tuple[pa.DataType, int]]:
    """Yield `kind` and every type inside it, each with its depth (1 for `kind` itself)."""
    waiting = [(kind, 1)]
    while waiting:
        current, depth = waiting.pop()
        yield current, depth
        waiting += [(current.field(i).type, depth + 1) for i in range(current.num_fields)]


def make_column(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Convert Python values to an Arrow array of type `kind`.

    Raises ValueError if a value does not fit. Arrow alone would truncate 1.5 to 1, split a string into a list of its
    characters, and drop unknown fields of a struct.
    """
    try:
        inferred = pa.array(values)
        if fits(inferred.type, kind):
            return inferred if inferred.type.equals(kind) else pa.array(values, kind)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"holds {inferred.type}, not {kind}")


def make_batch(rows: Sequence[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    """Convert Python rows to a batch of `schema`; an absent field is null, an unknown one is dropped.

    Raises ValueError, naming the column, if a value does not fit.
    """
    arrays = []
    for field in schema:
        try:
            arrays.append(make_column([row.get(field.name) for row in rows], field.type))
        except ValueError as error:
            raise ValueError(f"column {field.name!r}: {error}") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def infer_schema(rows: Sequence[dict[str, object]], url: str) -> pa.Schema:
    """Infer the schema of Python rows, columns in order of first appearance.

    Raises UnreadableFile, naming the file, if a column mixes types.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    fields = []
    for name in names:
        try:
            kind = pa.array([row.get(name) for row in rows]).type
        except (pa.ArrowException, UnicodeError, OverflowError) as error:
            raise UnreadableFile(
                f"{url}: column {name!r} mixes types in its first {len(rows):,} rows: {error}. "
                "Give every row of a column one type, or drop the column."
            ) from error
        fields.append(pa.field(name, kind))
    return pa.schema(fields)
