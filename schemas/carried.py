"""Columns that jobs only carry: in the pipeline with a plain type, in files with their own.

Arrow lacks functions for extension types and views, and cannot always join dictionaries. So such values travel as
those that they stand for, and the metadata of their field remembers the type to write.
"""

import pyarrow as pa

from schemas.conversion import convert, is_list, with_item

_EXACT = b"cappy.exact"
_EXTENSION = b"ARROW:extension:"


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type of equal values without extensions, dictionaries and views, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list_view(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_struct(kind):
        fields = [_plain_field(field) for field in kind]
        return kind if fields == list(kind) else pa.struct(fields)
    if pa.types.is_map(kind):
        key, item = _plain_field(kind.key_field), _plain_field(kind.item_field)
        same = key == kind.key_field and item == kind.item_field
        return kind if same else pa.map_(key, item, keys_sorted=kind.keys_sorted)
    if is_list(kind):
        item = _plain_field(kind.value_field)
        return kind if item == kind.value_field else with_item(kind, item)
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type))


def read_field(field: pa.Field) -> pa.Field:
    """Return a field of a file with its type, and without what only describes the file.

    Fields of lists and structs are nullable, items of lists have one name, and of the metadata only the name of an
    extension type remains.
    """
    metadata = {key: value for key, value in (field.metadata or {}).items() if key.startswith(_EXTENSION)}
    return pa.field(field.name, _read_type(field.type), metadata=metadata or None)


def _read_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([read_field(field) for field in kind])
    return with_item(kind, read_field(kind.value_field.with_name("item"))) if is_list(kind) else kind


def carried_field(field: pa.Field) -> pa.Field:
    """Return the field of a column as jobs carry it; `restored` gives it its own type again."""
    plain = plain_type(field.type)
    if plain.equals(field.type) and not field.metadata:
        return field
    exact = pa.schema([pa.field(field.name, field.type, metadata=field.metadata)])
    return pa.field(field.name, plain, metadata={_EXACT: exact.serialize().to_pybytes()})


def exact_field(field: pa.Field) -> pa.Field:
    """Return a field with the type that its column has in files."""
    exact = (field.metadata or {}).get(_EXACT)
    return field if exact is None else pa.ipc.read_schema(pa.py_buffer(exact)).field(0)


def restored(table: pa.Table) -> pa.Table:
    """Return a table whose carried columns have their own types, under whatever name they have now."""
    if not any(_EXACT in (field.metadata or {}) for field in table.schema):
        return table
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        if _EXACT in (field.metadata or {}):
            own = exact_field(field)
            column = pa.chunked_array([convert(chunk, own.type) for chunk in column.chunks] or [pa.nulls(0, own.type)])
            kind = own.type if column.type.equals(own.type) else column.type  # equal but for metadata of its fields
            field = pa.field(field.name, kind, nullable=field.nullable, metadata=own.metadata)
        columns.append(column)
        fields.append(field)
    return pa.table(columns, schema=pa.schema(fields))
