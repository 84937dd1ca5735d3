"""Arrays of one type as another, and columns that are carried with a plain type."""

import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.carried import carried_field, plain_type, read_field, restored
from schemas.chunks import from_ipc, row_bytes, to_ipc
from schemas.conversion import convert
from schemas.values import python_values
from tests.schemas.arrays import arrays, types


@given(st.data())
def test_a_carried_column_is_restored_after_take_concat_and_ipc(data: st.DataObject) -> None:
    kind = data.draw(types())
    array = data.draw(arrays(kind, 4))
    field = carried_field(pa.field("x", kind))
    plain = pa.RecordBatch.from_arrays([convert(array, field.type)], schema=pa.schema([field]))
    assert (field.metadata is None) == plain_type(kind).equals(kind)
    row = pa.StructArray.from_arrays(plain.columns, fields=[field])
    moved = pa.record_batch({"row": row.take(pa.array([3, 1, 0]))}).slice(1)
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, row.type)], schema=moved.schema)
    joined = from_ipc(to_ipc(pa.concat_batches([empty, moved, moved])))
    back = restored(pa.Table.from_struct_array(joined["row"]).cast(plain.schema))
    assert back.schema == pa.schema([("x", kind)])
    expected = python_values(array)
    assert repr(python_values(back["x"])) == repr([expected[1], expected[0]] * 2)
    assert row_bytes(plain.slice(1)).tolist() == row_bytes(plain).tolist()[1:]


def test_plain_columns_are_as_they_are() -> None:
    kind = pa.struct([("a", pa.list_(pa.string())), ("b", pa.map_(pa.string(), pa.float32()))])
    field = pa.field("x", kind)
    assert carried_field(field) is field
    table = pa.table({"x": pa.nulls(2, kind)})
    assert restored(table) is table


def test_unregistered_extension_types_keep_their_names() -> None:
    own = {b"ARROW:extension:name": b"my.type", b"ARROW:extension:metadata": b"v1"}
    inner = pa.field("i", pa.int64(), metadata={**own, b"PARQUET:field_id": b"7"})
    found = read_field(pa.field("x", pa.list_(pa.field("element", pa.struct([inner]), False)), metadata=own))
    assert found.metadata == own
    assert found.type.value_field.name == "item"
    field = carried_field(found)
    assert list(field.metadata) == [b"cappy.exact"]
    back = restored(pa.table([pa.array([[{"i": 1}]])], schema=pa.schema([field])))
    sink = io.BytesIO()
    pq.write_table(back, sink)
    written = pq.ParquetFile(sink).schema_arrow.field(0)
    assert own.items() <= written.metadata.items()
    assert own.items() <= written.type.value_type.field(0).metadata.items()


def test_a_dictionary_with_too_many_values_gets_a_wider_index() -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    values = [str(i) for i in range(200)]
    for nested in (lambda k: k, pa.list_):
        exact = nested(kind)
        array = pa.array(values if nested is not pa.list_ else [[value] for value in values])
        assert convert(array.slice(0, 100), exact).type == exact
        found = convert(array, exact)
        assert found.type == nested(pa.dictionary(pa.int32(), pa.string()))
        assert found.to_pylist() == array.to_pylist()
        schema = pa.schema([carried_field(pa.field("x", exact))])
        assert restored(pa.table([array], schema=schema)).column(0).to_pylist() == array.to_pylist()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1.0, 0.1, 1e20, None], pa.float64()), ["1.0", "0.1", "1e+20", None]),
        (pa.array([0.1, None], pa.float32()), ["0.1", None]),
        (pa.array([0.5], pa.float16()), ["0.5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([-5, None], pa.int8()), ["-5", None]),
        (pa.array([Decimal("3.50")]), ["3.50"]),
        (pa.array([b"caf\xc3\xa9", None]).dictionary_encode(), ["café", None]),
        (pa.array([b"ab"], pa.binary(2)), ["ab"]),
        (pa.array([10**16], pa.timestamp("ms")), ["318857-05-20 17:46:40"]),
        (pa.array([0], pa.date32()), ["1970-01-01"]),
        (pa.array([bytes(range(16))], pa.uuid()), ["00010203-0405-0607-0809-0a0b0c0d0e0f"]),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())), ["true"]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(["[1]"])), ["[1]"]),
        (pa.array([[b"a", None], None]), [["a", None], None]),
    ],
)
def test_values_as_text(array: pa.Array, expected: list[object]) -> None:
    kind = pa.list_(pa.string()) if isinstance(expected[0], list) else pa.string()
    found = convert(array, kind)
    assert found.type == kind
    assert found.to_pylist() == expected


def test_lists_and_maps_in_slices() -> None:
    lists = pa.array([[1], None, [2, 3], []], pa.list_(pa.int32()))
    wide = pa.large_list(pa.int64())
    assert convert(lists.slice(1), wide).to_pylist() == [None, [2, 3], []]
    pairs = pa.array([[("a", 1)], None, [("b", 2), ("c", None)]], pa.map_(pa.string(), pa.int8()))
    assert convert(pairs.slice(1), pa.map_(pa.large_string(), pa.int16())).to_pylist() == [
        None,
        [("b", 2), ("c", None)],
    ]
    views = pa.ListViewArray.from_arrays(
        pa.array([2, 0], pa.int32()), pa.array([1, 2], pa.int32()), pa.array([1, 2, 3])
    )
    assert convert(views, pa.list_(pa.int64())).to_pylist() == [[3], [1, 2]]
    with pytest.raises(pa.ArrowInvalid, match="do not all have 2 items"):
        convert(pa.array([[1], [2, 3]]), pa.list_(pa.int64(), 2))
