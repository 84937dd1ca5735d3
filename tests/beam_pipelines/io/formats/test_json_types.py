"""Types of JSON values: no odd value changes the type of the others."""

import math

import pyarrow as pa
import pytest

from beam_pipelines.io.formats.json_types import DoesNotFit, infer_type, make_array, most_common_type

INT, FLOAT, TEXT = pa.int64(), pa.float64(), pa.string()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, None], pa.null()),
        ([True, None], pa.bool_()),
        ([1, None, -(2**63)], INT),
        ([1, 2**63 - 1], INT),
        ([1, 2**64 - 1], pa.uint64()),
        ([-1, 2**64 - 1], INT),
        ([1, 2**64], INT),
        ([1, -(2**63) - 1], INT),
        ([2**64, 10**30], None),
        ([1, 2.5], FLOAT),
        ([2**53, 2.5], FLOAT),
        ([2**53 + 1, 2.5], None),
        ([10**30, 2.5], FLOAT),
        ([1, math.nan], INT),
        ([1, math.inf], INT),
        ([1, 2.5, math.nan], FLOAT),
        ([math.nan, None], FLOAT),
        (["a", None], TEXT),
        (["a", 1], None),
        ([True, 1], None),
        ([[], None], pa.list_(pa.null())),
        ([[], [1, None], [2.5]], pa.list_(FLOAT)),
        ([[1, "a"]], None),
        ([[1], 1], None),
        ([{"b": 1}, {"a": None, "b": 2}], pa.struct([("b", INT), ("a", pa.null())])),
        ([{"a": 1}, {"a": "x"}], None),
        ([{}, {}], None),
        ([{}, {"a": 1}], pa.struct([("a", INT)])),
        ([{"a": {}}], None),
        ([[{}]], None),
    ],
)
def test_the_type_that_holds_values(values: list[object], kind: pa.DataType | None) -> None:
    assert infer_type(values) == kind
    if kind is None:
        return
    fitting = []
    for value in values:
        try:
            make_array([value], kind)
        except DoesNotFit:
            assert abs(value) > 2**63 - 1 or math.isnan(value), "only integers beyond 64 bits and odd NaNs do not fit"  # type: ignore[arg-type]
        else:
            fitting.append(value)
    assert len(fitting) >= len(values) - 1
    assert make_array(fitting, kind).type == kind


def test_values_nested_too_deep_have_no_type() -> None:
    value: object = "x"
    for _ in range(62):
        value = [value]
    assert infer_type([value]) is not None
    assert infer_type([[value]]) is None
    assert infer_type([{"a": value}]) is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, "a", 2.5], FLOAT),
        ([1, "a", None, 2], INT),
        (["a", "b", 1, None], TEXT),
        ([True, False, "unknown"], pa.bool_()),
        ([["a", "b", 1], ["c"]], pa.list_(TEXT)),
        ([["a"], ["b"], "c"], pa.list_(TEXT)),
        ([[1], [2], [[3]]], pa.list_(INT)),
        ([{}, {}], TEXT),
        ([{"a": 1}, {"a": 2}, []], pa.struct([("a", INT)])),
    ],
)
def test_the_type_of_most_values(values: list[object], kind: pa.DataType) -> None:
    assert most_common_type(values) == kind


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, INT),
        (1.0, INT),
        (True, INT),
        (True, FLOAT),
        (1, pa.bool_()),
        (2**63, INT),
        (-1, pa.uint64()),
        (2**53 + 1, FLOAT),
        (10**400, FLOAT),
        (1, TEXT),
        ("ab", pa.list_(TEXT)),
        ({"a": 1, "z": 2}, pa.struct([("a", INT)])),
        ([{"a": 1.5}], pa.list_(pa.struct([("a", INT)]))),
        ("2020-01-01", pa.date32()),
    ],
)
def test_no_value_is_truncated(value: object, kind: pa.DataType) -> None:
    with pytest.raises(DoesNotFit):
        make_array([value], kind)
    assert make_array([None], kind).null_count == 1
