"""Cells of CSV: numbers only where they read back the same; text is read as written."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.formats.cells import convert_column, infer_type
from beam_pipelines.io.formats.text import ParsedRow

INT, FLOAT, TEXT, BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()


def _rows(cells: list[str]) -> list[ParsedRow[list[str]]]:
    return [ParsedRow(position, [cell], None, len(cell), cell) for position, cell in enumerate(cells)]


@pytest.mark.parametrize(
    ("cells", "kind", "mostly"),
    [
        (["", ""], pa.null(), None),
        (["1", "", "-2", "0"], INT, None),
        (["9223372036854775807"], INT, None),
        (["9223372036854775808"], TEXT, FLOAT),
        (["1", "-0"], TEXT, FLOAT),
        (["1.5", "2.0", "1e-07"], FLOAT, None),
        (["1", "2.5"], TEXT, FLOAT),
        (["3.50"], TEXT, FLOAT),
        (["1e3"], TEXT, FLOAT),
        (["+5", "5"], TEXT, FLOAT),
        (["1", "2", "n/a"], TEXT, INT),
        (["1", "n/a"], TEXT, None),
        (["true", "", "False"], TEXT, BOOL),
        (["TRUE", "maybe"], TEXT, None),
        (["007", "042", "9"], TEXT, None),
        (["0123456789", "+0049"], TEXT, None),
        (["1_000", " 12 ", "٣", "nan", "inf", "0x1f", "1,5"], TEXT, None),
        (["9" * 5000], TEXT, None),
    ],
)
def test_types_of_cells(cells: list[str], kind: pa.DataType, mostly: pa.DataType | None) -> None:
    assert infer_type(cells) == (kind, mostly)


@given(st.lists(st.one_of(st.integers().map(str), st.floats().map(repr), st.sampled_from(["3.50", "007", "", "-0"]))))
def test_an_inferred_number_is_written_back_the_same(cells: list[str]) -> None:
    kind, _ = infer_type(cells)
    values, unfit = convert_column(_rows(cells), 0, pa.field("n", kind), None)
    written = [
        "" if value is None else value if isinstance(value, str) else repr(value) for value in values.to_pylist()
    ]
    assert written == cells and not unfit


@pytest.mark.parametrize(
    ("kind", "fitting", "others"),
    [
        (INT, {"1": 1, "-2": -2, "": None}, ["007", "1_000", " 12 ", "+5", "٣", "nan", "1.5", "-0", "9" * 19, "true"]),
        (
            FLOAT,
            {"3.50": 3.5, "1e3": 1000.0, "+5": 5.0, "007": 7.0, ".5": 0.5, "5.": 5.0, "-0": -0.0, "": None},
            ["1_0.5", " 1.5", "٣.5", "nan", "inf", "1e999", "9" * 18, "9" * 5000, "x", "1,5", "0x1"],
        ),
        (BOOL, {"true": True, "FALSE": False, "": None}, ["1", "yes"]),
        (TEXT, {"3.50": "3.50", "": "", "true": "true", " ": " "}, []),
        (pa.date32(), {"": None}, ["2020-01-01"]),
    ],
)
def test_cells_that_do_not_fit(kind: pa.DataType, fitting: dict[str, object], others: list[str]) -> None:
    cells = [*fitting, *others]
    values, unfit = convert_column(_rows(cells), 0, pa.field("n", kind), None)
    assert values.to_pylist() == [*fitting.values(), *[None] * len(others)]
    assert list(unfit) == list(range(len(fitting), len(cells)))
    assert all("column 'n': " in detail and "--text-columns n" in detail for detail in unfit.values())


def test_cells_as_written() -> None:
    rows = _rows(["3.50", ""])
    field = pa.field("n", TEXT)
    assert convert_column(rows, 0, field, "cell").values.to_pylist() == ["3.50", None]
    assert convert_column(rows, 0, field, "text").values.to_pylist() == ["3.50", ""]
    assert convert_column(rows, None, field, "text").values.to_pylist() == [None, None]
