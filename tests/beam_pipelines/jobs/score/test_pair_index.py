"""The index of scored pairs is a dict on disk: the first of equal pairs counts, and its files have no name."""

import errno
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.score.pair_index import SCORED_PAIR, PairIndex
from schemas.errors import CappyError
from schemas.ids import pair_ids, pair_keys

TEXTS = st.sampled_from(["", "a", "b", "ab", "é", "a b", "\x00", "word"])
PAIRS = st.tuples(TEXTS, TEXTS)
SCORED = st.tuples(
    st.one_of(st.none(), TEXTS),
    st.one_of(st.none(), TEXTS),
    st.one_of(st.none(), st.floats(width=32, allow_nan=False)),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
Scored = tuple[Any, ...]


def batches(rows: Sequence[Scored], size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), size):
        columns = zip(*rows[start : start + size], strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCORED_PAIR, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCORED_PAIR)


def look_up(index: PairIndex, pairs: Sequence[tuple[str, str]]) -> dict[int, Scored]:
    """Return what the index holds of pairs, by their place."""
    found = index.find([first for first, _ in pairs], [second for _, second in pairs])
    values = (record.tolist()[1:] for record in found.records)
    return dict(zip(found.places.tolist(), values, strict=True))


@given(st.lists(SCORED, max_size=40), st.lists(PAIRS, max_size=20), st.integers(1, 9), st.integers(1, 20))
def test_an_index_is_a_dict(rows: list[Scored], wanted: list[tuple[str, str]], size: int, run: int) -> None:
    known: dict[tuple[str, str], Scored] = {}
    for instruction, response, *values in rows:
        if None not in (instruction, response, values[0]):
            known.setdefault((instruction, response), tuple(values))
    index = PairIndex.build(batches(rows, size), run_records=run)
    assert len(index) == len(known)
    assert look_up(index, wanted) == {place: known[pair] for place, pair in enumerate(wanted) if pair in known}


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_keys_are_the_identifiers_of_pairs(pairs: list[tuple[str, str]]) -> None:
    keys = list(pair_keys([first for first, _ in pairs], [second for _, second in pairs]))
    assert [key.hex() for key in keys] == [pair_ids(first)(second) for first, second in pairs]


def test_many_pairs_in_many_runs() -> None:
    rows = [(f"instruction {i // 7}", f"response {i}", i / 4, i, i % 2 == 0) for i in range(20_000)]
    index = PairIndex.build(batches([*rows, *reversed(rows)], 999), run_records=3_000)
    assert len(index) == len(rows)
    assert look_up(index, [(first, second) for first, second, *_ in rows]) == {i: row[2:] for i, row in enumerate(rows)}
    assert not look_up(index, [(f"instruction {i}", "unknown") for i in range(100)])
    assert np.all(np.diff(index.find(["instruction 0"] * 7, [f"response {i}" for i in range(7)]).places) == 1)


def test_its_files_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Path] = []

    def watched() -> Iterator[pa.RecordBatch]:
        for batch in batches([("a", str(i), 1.0, 1, False) for i in range(100)], 10):
            seen.extend(tmp_path.iterdir())
            yield batch

    assert len(PairIndex.build(watched(), run_records=20)) == 100
    assert not seen and not list(tmp_path.iterdir())


def test_a_full_disk_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(CappyError, match="index of known scores: No space left on device. Free space, or set .*TMPDIR"):
        PairIndex.build([])
