"""Arrow values as Python objects, whatever they are and whatever is installed."""

import datetime
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.values import excerpt_of, python_columns, python_values
from tests.schemas.arrays import arrays, plain_types, types

UTC = datetime.UTC


def _same(one: Any, other: Any) -> bool:
    """Equal values of equal types, NaN among them; a number of nanoseconds that pandas holds is none of Python's."""
    return repr(one) == repr(other)


@given(st.data())
def test_no_value_raises_and_a_slice_has_the_values_of_its_rows(data: st.DataObject) -> None:
    array = data.draw(arrays(data.draw(types()), 4))
    found = python_values(array)
    assert _same(python_values(array.slice(1, 2)), found[1:3])
    assert _same(python_values(pa.chunked_array([array.slice(0, 1), array.slice(1)])), found)
    assert [value is None for value in found] == array.is_null().to_pylist()
    for row in range(len(array)):
        assert json.loads(excerpt_of(pa.record_batch({"x": array}), row)).keys() == {"x"}


@given(st.data())
def test_what_arrow_makes_of_plain_values_stays(data: st.DataObject) -> None:
    array = data.draw(arrays(data.draw(plain_types()), 3))
    if "ns" in str(array.type):  # with pandas, other types; without it, an error
        return
    try:
        expected = array.to_pylist()
    except (OverflowError, ValueError, KeyError):  # years beyond 9999, zones that do not exist
        return
    found = python_values(array)
    assert found == expected or _same(found, expected)
    rows = pa.record_batch({"x": array})
    if "binary" not in str(array.type):
        today = json.dumps(rows.slice(1, 1).to_pylist()[0], ensure_ascii=False, default=str)
        assert excerpt_of(rows, 1) == today


@pytest.mark.parametrize(
    ("count", "kind", "expected"),
    [
        (1_000, pa.timestamp("ns"), datetime.datetime(1970, 1, 1, 0, 0, 0, 1)),
        (1_700_000_000_123_456_789, pa.timestamp("ns"), "2023-11-14 22:13:20.123456789"),
        (-1, pa.timestamp("ns"), "1969-12-31 23:59:59.999999999"),
        (0, pa.timestamp("ns", "Europe/Berlin"), datetime.datetime(1970, 1, 1, tzinfo=UTC)),
        (1, pa.timestamp("ns", "Europe/Berlin"), "1970-01-01 01:00:00.000000001+01:00"),
        (1, pa.timestamp("ns", "-0330"), "1969-12-31 20:30:00.000000001-03:30"),
        (5, pa.timestamp("s", "Nowhere/Land"), "1970-01-01 00:00:05+00:00"),
        (5_000_001, pa.timestamp("us", "Nowhere/Land"), "1970-01-01 00:00:05.000001+00:00"),
        (253_402_300_799, pa.timestamp("s", "Asia/Tokyo"), "9999-12-31 23:59:59+00:00"),
        (253_402_300_800_500, pa.timestamp("ms"), "10000-01-01 00:00:00.500000"),
        (-(2**63), pa.timestamp("s"), "-292277022657-01-27 08:29:52"),
        (2**63 - 1, pa.timestamp("us"), "294247-01-10 04:00:54.775807"),
        (-719_163, pa.date32(), "0000-12-31"),
        (-719_162, pa.date32(), datetime.date(1, 1, 1)),
        (72_400_000, pa.date32(), "200194-06-20"),
        (-1, pa.date64(), datetime.date(1969, 12, 31)),
        (1, pa.time64("ns"), "00:00:00.000000001"),
        (86_399_999_999_000, pa.time64("ns"), datetime.time(23, 59, 59, 999_999)),
        (90_000, pa.time32("s"), "1 day, 1:00:00"),
        (1_500, pa.duration("ns"), "0:00:00.000001500"),
        (-1, pa.duration("ns"), "-1 day, 23:59:59.999999999"),
        (2_000, pa.duration("ns"), datetime.timedelta(microseconds=2)),
        (2**62, pa.duration("s"), "53375995583650 days, 7:45:04"),
    ],
)
def test_times_are_exact(count: int, kind: pa.DataType, expected: object) -> None:
    array = pa.array([count, None], pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    assert python_values(array) == [expected, None]
    assert python_values(pa.StructArray.from_arrays([array], ["x"])) == [{"x": expected}, {"x": None}]
    assert python_values(array.dictionary_encode()) == [expected, None]


def test_extension_types_are_their_text_or_their_storage() -> None:
    key = uuid.uuid4()
    assert python_values(pa.array([key.bytes, None], pa.uuid())) == [str(key), None]
    listed = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array([key.bytes], pa.uuid()))
    assert python_values(listed) == [[str(key)]]
    assert python_values(pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}']))) == ['{"a": 1}']
    assert python_values(pa.ExtensionArray.from_storage(pa.bool8(), pa.array([2, 0, None], pa.int8()))) == [
        *(True, False, None)
    ]
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
    )
    assert python_values(tensor) == [[1, 2]]


def test_structs_with_equal_names_and_bytes_that_are_no_text() -> None:
    numbers = [pa.array([1]), pa.array([2])]
    assert python_values(pa.StructArray.from_arrays(numbers, ["k", "k"])) == [{"k": 1, "k#2": 2}]
    assert excerpt_of(pa.RecordBatch.from_arrays(numbers, ["k", "k"]), 0) == '{"k": 1, "k#2": 2}'
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    assert python_values(broken) == ["a\\xff"]
    assert python_values(pa.StructArray.from_arrays([broken], ["x"])) == [{"x": "a\\xff"}]
    assert python_values(pa.array([b"a\xff"])) == [b"a\xff"]


def test_bytes_are_short_in_an_excerpt() -> None:
    image = {"bytes": b"\x89PNG" + bytes(10_000_000), "path": "a.png"}
    rows = pa.RecordBatch.from_pylist([{"image": image, "text": "café".encode(), "long": ("é" * 900).encode()}])
    shown = json.loads(excerpt_of(rows, 0))
    assert shown["image"]["bytes"] == "89504e47" + "00" * 28 + "... (10,000,004 bytes)"
    assert shown["text"] == "café"
    assert shown["long"] == "é" * 250 + "... (1,800 bytes)"


def test_columns_of_rows() -> None:
    rows = pa.record_batch({"a": [1, 2], "b": pa.array([1, None], pa.timestamp("ns"))})
    assert python_columns(rows) == [[1, 2], ["1970-01-01 00:00:00.000000001", None]]


def test_pandas_makes_no_difference(tmp_path: Path) -> None:
    program = """
import pyarrow as pa
from schemas.conversion import convert
from schemas.values import python_values
assert convert(pa.array(["a", None]), pa.dictionary(pa.uint8(), pa.string())).to_pylist() == ["a", None]
kinds = [pa.timestamp("ns"), pa.timestamp("ns", "Europe/Berlin"), pa.time64("ns"), pa.duration("ns")]
print([python_values(pa.array([1, 1000, None], pa.int64()).view(kind)) for kind in kinds])
"""
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text("raise ImportError")
    root = str(Path(__file__).resolve().parents[2])
    found = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, check=True
        ).stdout
        for path in (root, f"{tmp_path}:{root}")
    ]
    assert found[0] == found[1]
    assert b"00:00:00.000000001" in found[0]
