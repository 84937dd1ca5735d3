"""Arrow types of input columns: one that holds the values of two, and the ones that cannot be read."""

from collections.abc import Iterator

import pyarrow as pa

from schemas.carried import exact_field
from schemas.conversion import is_list, with_item
from schemas.errors import CappyError
from schemas.records import is_binary, is_text

_MAX_DEPTH = 63  # Arrow's IPC takes 64, one of which is the struct that rerank carries rows in
_UNITS = ("s", "ms", "us", "ns")
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}  # of integers, by bits
_DECIMALS = ((9, pa.decimal32), (18, pa.decimal64), (38, pa.decimal128), (76, pa.decimal256))
_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_FLOATS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}


class UnreadableFile(CappyError):
    """An input file that cannot be opened, or whose columns cannot be determined."""


def unusable_reason(field: pa.Field, url: str) -> str | None:
    """Return why a column has a type that Arrow can build but not serialize; None if it can be used."""
    for kind, depth in nested_types(field.type):
        if depth > _MAX_DEPTH:
            return f"{url}: column {field.name!r} is nested more than {_MAX_DEPTH} levels deep; drop it or make it text"
        names = [child.name for child in kind] if pa.types.is_struct(kind) else []
        if len(set(names)) < len(names):
            return f"{url}: column {field.name!r} has a duplicate field: {', '.join(names)}; rename one"
    return None


def nested_types(kind: pa.DataType) -> Iterator[tuple[pa.DataType, int]]:
    """Yield `kind` and every type inside it, each with its depth (1 for `kind` itself)."""
    waiting = [(kind, 1)]
    while waiting:
        current, depth = waiting.pop()
        yield current, depth
        if isinstance(current, pa.BaseExtensionType):
            waiting.append((current.storage_type, depth))
        elif pa.types.is_dictionary(current):
            waiting.append((current.value_type, depth))
        else:
            waiting += [(current.field(i).type, depth + 1) for i in range(current.num_fields)]


def layouts_in(schema: pa.Schema) -> dict[str, str]:
    """Return the types of columns with another layout of text or lists than `string` and `list`.

    They belong to the fingerprint of a job that copies them: older versions wrote such columns as `string` and `list`.
    """
    fields = [exact_field(field) for field in schema]
    return {field.name: str(field.type) for field in fields if field.metadata or _has_layout(field.type)}


def _has_layout(kind: pa.DataType) -> bool:
    return any(
        (is_text(inner) and not pa.types.is_string(inner)) or (is_list(inner) and not pa.types.is_list(inner))
        for inner, _ in nested_types(kind)
    )


def widen(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type that holds the values of both types; None if there is none.

    Where a type holds almost all values, the few others are left to the conversion, which reports them row by row:
    64-bit integers as float64, times far away in a finer unit. There is no type for an unsigned and a signed integer
    of 64 bits, for decimals beside floating-point numbers, for text beside bytes, nor for times with and without a
    zone. Times of two zones are the same times in UTC. The order of fields of structs is that of `one`.
    """
    if one.equals(other):
        return one
    if pa.types.is_null(one) or pa.types.is_null(other):
        return _with_nulls(other if pa.types.is_null(one) else one)
    if pa.types.is_dictionary(one) or pa.types.is_dictionary(other):
        return _dictionary(one, other)
    if isinstance(one, pa.BaseExtensionType) or isinstance(other, pa.BaseExtensionType):
        return None
    for rule in (_number, _temporal, _text_or_bytes, _list, _struct, _map):
        kind = rule(one, other)
        if kind is not None:
            return kind
    return None


def _with_nulls(kind: pa.DataType) -> pa.DataType:
    """Return `kind` for a column with nulls: Parquet cannot hold null in place of a list of fixed size."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_nulls(field.type)) for field in kind])
    return kind


def _dictionary(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    values = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (one, other)]
    kind = widen(*values)
    if kind is None or not (pa.types.is_dictionary(one) and pa.types.is_dictionary(other)):
        return kind
    index = max((one.index_type, other.index_type), key=lambda index: (index.bit_width, str(index)))
    return pa.dictionary(index, kind, one.ordered and other.ordered)


def _number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if pa.types.is_decimal(one) or pa.types.is_decimal(other):
        return _decimal(one, other)
    integers = [kind for kind in (one, other) if pa.types.is_integer(kind)]
    floats = [kind for kind in (one, other) if pa.types.is_floating(kind)]
    if len(integers) + len(floats) < 2:
        return None
    if floats:
        # A float of n bits holds the integers of n / 2 bits.
        bits = max(*(kind.bit_width for kind in floats), *(2 * kind.bit_width for kind in integers), 0)
        return _FLOATS[min(bits, 64)]
    if pa.types.is_signed_integer(one) == pa.types.is_signed_integer(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    bits = max(kind.bit_width * (1 if pa.types.is_signed_integer(kind) else 2) for kind in integers)
    return _SIGNED.get(bits)


def _decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    whole, scale, bits = 0, 0, 0
    for kind in (one, other):
        if pa.types.is_decimal(kind):
            whole, scale = max(whole, kind.precision - kind.scale), max(scale, kind.scale)
            bits = max(bits, kind.bit_width)
        elif pa.types.is_integer(kind):
            whole = max(whole, 20 if pa.types.is_uint64(kind) else _DIGITS[kind.bit_width])
        else:
            return None
    fitting = (make for digits, make in _DECIMALS if digits >= whole + scale)
    return next((kind for make in fitting if (kind := make(whole + scale, scale)).bit_width >= bits), None)


def _temporal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if pa.types.is_date(one) and pa.types.is_date(other):
        return pa.date64()
    if pa.types.is_date(one) or pa.types.is_date(other):
        stamp = other if pa.types.is_date(one) else one
        return stamp if pa.types.is_timestamp(stamp) and stamp.tz is None else None
    for same in (pa.types.is_timestamp, pa.types.is_time, pa.types.is_duration):
        if same(one) and same(other):
            unit = max(one.unit, other.unit, key=_UNITS.index)
            if pa.types.is_time(one):
                return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
            if pa.types.is_duration(one):
                return pa.duration(unit)
            if (one.tz is None) != (other.tz is None):
                return None
            return pa.timestamp(unit, one.tz if one.tz == other.tz else "UTC")
    return None


def _text_or_bytes(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if is_text(one) and is_text(other):
        return pa.large_string()
    if not all(map(is_binary, (one, other))):
        return None
    short = (pa.types.is_binary, pa.types.is_fixed_size_binary)
    return pa.binary() if all(any(test(kind) for test in short) for kind in (one, other)) else pa.large_binary()


def _list(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (is_list(one) and is_list(other)):
        return None
    item = widen(one.value_type, other.value_type)
    if item is None:
        return None
    field = pa.field("item", item)
    layout = with_item(one, field)
    if layout.equals(with_item(other, field)):
        return layout
    large = (pa.types.is_large_list, pa.types.is_large_list_view)
    return pa.large_list(field) if any(test(kind) for test in large for kind in (one, other)) else pa.list_(field)


def _struct(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (pa.types.is_struct(one) and pa.types.is_struct(other)):
        return None
    fields = {field.name: field for field in one}
    missing = fields.keys() - {field.name for field in other}
    fields |= {name: fields[name].with_type(_with_nulls(fields[name].type)) for name in missing}
    for field in other:
        own = fields.get(field.name)
        kind = widen(pa.null() if own is None else own.type, field.type)
        if kind is None:
            return None
        fields[field.name] = (own or field).with_type(kind)
    return pa.struct(list(fields.values()))


def _map(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (pa.types.is_map(one) and pa.types.is_map(other)):
        return None
    key, item = widen(one.key_type, other.key_type), widen(one.item_type, other.item_type)
    if key is None or item is None:
        return None
    return pa.map_(key, item, keys_sorted=one.keys_sorted and other.keys_sorted)
