"""Rows sorted on disk: by key, stable, each key in one table, in bounded memory, without files left behind."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.train.external_sort import KEY, sort_by_key

KEYS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 70), st.sampled_from([2**63, 2**63 + 1, 2**64 - 1]))


def batches_of(keys: np.ndarray, size: int, *, text: str = "") -> Iterator[pa.RecordBatch]:
    """The keys in batches of `size` rows, numbered."""
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        rows = pa.array(range(start, start + len(part)))
        yield pa.RecordBatch.from_pydict({"row": rows, "text": [text] * len(part), KEY: pa.array(part)})


@given(
    keys=st.lists(KEYS, min_size=1, max_size=60),
    size=st.integers(1, 20),
    memory=st.sampled_from([1, 800, 4_000, 2**20]),
)
def test_rows_are_sorted_and_keep_their_order(
    keys: list[int], size: int, memory: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sort")
    tables = list(sort_by_key(batches_of(np.array(keys, np.uint64), size), folder, memory=memory))
    rows = [row for table in tables for row in table["row"].to_pylist()]
    assert rows == sorted(range(len(keys)), key=lambda row: (keys[row], row))
    of_tables = [set(table[KEY].to_pylist()) for table in tables]
    assert sum(map(len, of_tables)) == len(set(keys))
    assert list(folder.iterdir()) == []


def test_nothing_to_sort(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert list(sort_by_key([], tmp_path_factory.mktemp("sort"))) == []


def test_memory_is_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Forty megabytes are sorted with sixteen; the keys of half of the rows begin with the same twelve bits."""
    memory, rows = 16 * 2**20, 40_000
    keys = np.random.default_rng(0).integers(0, 2**64, rows, np.uint64)
    keys[::2] >>= np.uint64(12)
    folder = tmp_path_factory.mktemp("sort")
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    try:
        counts = [len(table) for table in sort_by_key(batches_of(keys, 1_000, text="x" * 1_000), folder, memory=memory)]
    finally:
        pa.set_memory_pool(default)
    assert sum(counts) == rows and len(counts) > 64
    assert memory // 8 < pool.max_memory() < memory
