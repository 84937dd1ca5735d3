import pickle
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import chunks
from schemas.chunks import from_columns, from_ipc, from_rows, group_rows, invalid_text_rows, pieces, row_bytes, to_ipc

SCHEMA = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("n", pa.int32())])


@given(st.lists(st.integers(-5, 5)))
def test_group_rows_is_a_stable_grouping(keys: list[int]) -> None:
    expected = {key: [i for i, other in enumerate(keys) if other == key] for key in sorted(set(keys))}
    assert {key: rows.tolist() for key, rows in group_rows(np.array(keys, dtype=np.int64))} == expected


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.integers(-9, 9))))
def test_ipc_gives_the_chunk_back(rows: list[tuple[str, int | None]]) -> None:
    batch = from_rows([{"text": text, "n": n} for text, n in rows], SCHEMA)
    assert from_ipc(to_ipc(batch)).equals(batch)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_pickled_slice_carries_its_own_rows_only(pickler: Any) -> None:
    rows = [{"text": f"{i}" * 1000, "n": i if i % 2 else None} for i in range(1000)]
    whole = from_rows(rows, SCHEMA)
    part = whole.slice(501, 10)
    data = pickler.dumps(("any", [part]))
    assert len(data) < 5_000
    assert pickle.loads(data) == ("any", [part])
    assert pickle.loads(pickler.dumps(whole.slice(0, 0))).equals(whole.slice(0, 0))


def test_pieces_keep_order_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1000)
    texts = ["x" * (i % 7) for i in range(95)] + ["y" * 5000, "z"]
    batch = from_columns({"text": texts, "n": list(range(97))}, SCHEMA)
    cut = list(pieces(batch))
    assert [text for piece in cut for text in piece["text"].to_pylist()] == texts
    assert all(piece.num_rows <= 10 for piece in cut)
    assert all(piece.nbytes <= 1000 or piece.num_rows == 1 for piece in cut)


def test_a_null_in_a_required_column_is_an_error() -> None:
    with pytest.raises(pa.ArrowInvalid, match="'text' must not be null"):
        from_columns({"text": ["a", None], "n": [1, 2]}, SCHEMA)


def test_invalid_utf8_is_found_at_any_depth() -> None:
    offsets = pa.py_buffer(np.array([0, 2, 4, 6], dtype=np.int32).tobytes())
    broken = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"ok\xff\xfeok")])
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), broken)
    for column in (broken, nested):
        assert invalid_text_rows(pa.RecordBatch.from_arrays([column], ["c"])) == [1]
    assert invalid_text_rows(pa.RecordBatch.from_arrays([pa.array(["é", None])], ["c"])) == []


TYPES = {
    "text": pa.string(),
    "view": pa.string_view(),
    "raw": pa.large_binary(),
    "tag": pa.dictionary(pa.int32(), pa.string()),
    "number": pa.decimal128(10, 2),
    "nothing": pa.null(),
    "uuid": pa.uuid(),
    "list": pa.list_(pa.struct([("a", pa.string()), ("b", pa.list_(pa.string()))])),
    "views": pa.list_view(pa.string()),
    "map": pa.map_(pa.string(), pa.int64()),
}


def test_row_bytes_are_of_the_values_and_not_of_their_buffers() -> None:
    nested = [{"a": "1234", "b": ["12", None]}, None]
    full = {"text": "12345", "view": "12", "raw": b"1", "tag": "123", "number": 1, "nothing": None}
    full |= {"uuid": b"x" * 16, "list": nested, "views": ["12", "3"], "map": [("12", 1)]}
    rows = [full, dict.fromkeys(TYPES), full]
    schema = pa.schema(list(TYPES.items()))
    expected = {"text": 13, "view": 10, "raw": 9, "tag": 11, "number": 8, "nothing": 8, "uuid": 24}
    expected |= {"list": 8 + (8 + 12 + 8 + 10 + 8) + (8 + 8 + 8), "views": 8 + 10 + 9, "map": 8 + 8 + 10 + 8}
    for name, size in expected.items():
        column = pa.array([row[name] for row in rows], schema.field(name).type)
        batch = pa.RecordBatch.from_arrays([column], [name])
        assert row_bytes(batch).tolist() == [size, 8, size], name
        assert row_bytes(batch.slice(1)).tolist() == [8, size], name
    assert row_bytes(pa.RecordBatch.from_pylist([{"a": "12", "b": None}])).tolist() == [18]
    assert row_bytes(pa.RecordBatch.from_pylist([], schema)).tolist() == []
