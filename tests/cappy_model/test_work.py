"""Sizes of units: a fixed table, monotonic in the model, and a power of two of rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.work import (
    BYTES_PER_TOKEN,
    GENERATING,
    OPERATIONS_PER_PARAMETER,
    SCORING,
    UNIT_SECONDS,
    rows_of_unit,
    unit_bytes,
)

parameters = st.integers(1, 10**12)
devices = st.sampled_from(["cpu", "cuda"])
rates = st.sampled_from([SCORING, GENERATING])


@given(rates=rates, device=devices, count=parameters)
def test_a_unit_is_at_most_a_minute_of_work_or_one_token(rates: dict[str, float], device: str, count: int) -> None:
    size = unit_bytes(rates, device, count)
    tokens = size // BYTES_PER_TOKEN
    seconds = tokens * OPERATIONS_PER_PARAMETER * count / rates[device]
    assert seconds <= UNIT_SECONDS + 1e-6 or tokens == 1
    assert size % BYTES_PER_TOKEN == 0 and size >= unit_bytes(rates, device, count + 1)


@pytest.mark.parametrize(
    ("device", "count", "wanted"),
    [("cpu", 10_800_000, 1_111_108), ("cpu", 303_000_000, 39_600), ("cuda", 303_000_000, 79_207_920)],
)
def test_the_table_is_fixed(device: str, count: int, wanted: int) -> None:
    """Any other size would give a run that is resumed other files."""
    assert unit_bytes(SCORING, device, count) == wanted


@given(size=st.integers(1, 10**10), row=st.floats(0, 1e9), most=st.integers(1, 20_000))
def test_the_rows_of_a_unit_are_the_largest_power_of_two_that_fits(size: int, row: float, most: int) -> None:
    rows = rows_of_unit(size, row, most)
    assert 1 <= rows <= most and rows & (rows - 1) == 0
    assert rows == 1 or rows * max(row, 1.0) <= size
    assert 2 * rows > most or 2 * rows * max(row, 1.0) > size * (1 - 1e-9)
