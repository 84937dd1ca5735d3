"""The stream of batches: each pair once in an epoch, by seed, from any place, in bounded memory."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cappy_model.score.encoding import PairEncoder
from cappy_model.train import data
from cappy_model.train.data import Place, Stream, evaluation_pairs, grouped
from cappy_model.train.split import Policy, select
from tests.cappy_model.models import tiny_tokenizer
from tests.cappy_model.train.corpora import some_rows, write_corpus

COUNT = 400


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), COUNT)


def stream_of(corpus: list[str], **changes: Any) -> Stream:
    given = {"batch_size": 7, "buffer": 120, "seed": 0, **changes}
    encoder = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
    selection = select(corpus, Policy(seed=0), storage={}, rows_per_range=given["buffer"])
    return Stream(selection, encoder, 1, **given)


def take(batches: Iterator[dict[str, Any]], count: int) -> list[list[str]]:
    return [batch["pair_ids"] for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize(("batch_size", "buffer"), [(1, 50), (7, 120), (8, 30), (64, 10_000)])
def test_each_pair_once_in_each_epoch(corpus: list[str], batch_size: int, buffer: int) -> None:
    stream = stream_of(corpus, batch_size=batch_size, buffer=buffer)
    batches, orders = stream.batches(0, Place()), []
    for epoch in range(3):
        found = take(batches, stream.batches_of_epoch(epoch))
        assert max(map(len, found)) <= batch_size
        orders.append([each for batch in found for each in batch])
        assert Counter(orders[-1]) == Counter(row["pair_id"] for row in some_rows(COUNT))
    assert orders[0] != orders[1] != orders[2]


def test_the_seed_decides_the_order(corpus: list[str]) -> None:
    first, again, other = (take(stream_of(corpus, seed=seed).batches(0, Place()), 40) for seed in (0, 0, 1))
    assert first == again != other


@settings(max_examples=30)
@given(start=st.integers(0, 200), count=st.integers(1, 20), world=st.integers(1, 4))
def test_it_starts_anywhere_and_processes_share_it(start: int, count: int, world: int) -> None:
    stream = SHARED_STREAM
    whole = [pairs.ids for pairs in itertools.islice(stream._pairs(0, Place()), start + count * world + world)]
    for rank in range(world):
        found = [pairs.ids for pairs in itertools.islice(stream._pairs(start, Place(rank, world)), count)]
        begin = start + (rank - start) % world
        assert found == whole[begin::world][:count]


def test_what_a_batch_holds(corpus: list[str]) -> None:
    rows = {row["pair_id"]: row for row in some_rows(COUNT)}
    tokenizer = tiny_tokenizer("roberta")
    for batch in itertools.islice(stream_of(corpus).batches(0, Place()), 10):
        texts = [rows[each] for each in batch["pair_ids"]]
        assert batch["labels"].tolist() == [row["label"] for row in texts] and batch["labels"].dtype == torch.float32
        plain = tokenizer(
            [row["instruction"] for row in texts], [row["response"] for row in texts], padding=True, return_tensors="pt"
        )
        assert torch.equal(batch["input_ids"], plain["input_ids"])
        assert torch.equal(batch["attention_mask"], plain["attention_mask"])


def test_memory_is_bounded_by_the_buffer(corpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    join = data.join_pairs
    monkeypatch.setattr(data, "join_pairs", lambda parts: read.append(sum(len(p.ids) for p in parts)) or join(parts))
    stream = stream_of(corpus, buffer=60)
    for _ in itertools.islice(stream._pairs(0, Place()), stream.batches_of_epoch(0)):
        assert len(read) <= 1 + sum(read) // 30  # a window is read when it is needed, not before
    assert max(read) <= 60 and sum(read) == COUNT


def test_little_is_read_in_vain_to_start_late(corpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    real = data.read_range
    monkeypatch.setattr(
        data, "read_range", lambda part, rows, storage: read.append(part) or real(part, rows, storage=storage)
    )
    stream = stream_of(corpus, buffer=60)
    next(stream._pairs(10 * stream.batches_of_epoch(0), Place()))
    assert len(read) <= 2


@given(
    lengths=st.lists(st.integers(0, 1000), min_size=1, max_size=2_000).map(np.array),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_batches_hold_every_row_once(lengths: np.ndarray, batch_size: int, seed: int) -> None:
    found = grouped(lengths, batch_size, np.random.default_rng(seed))
    assert sorted(row for batch in found for row in batch.tolist()) == list(range(len(lengths)))
    assert len(found) == -(-len(lengths) // batch_size)
    assert sorted(map(len, found), reverse=True)[:-1] == [batch_size] * (len(found) - 1)


def test_batches_are_of_like_length_and_in_no_order_of_it() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 4_000)
    found = grouped(lengths, 8, np.random.default_rng(1))
    padded = sum(lengths[batch].max() * len(batch) for batch in found)
    assert padded < 1.05 * lengths.sum()
    longest = np.array([lengths[batch].max() for batch in found])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.15


def test_pairs_of_evaluation_are_read_in_the_order_of_the_files(corpus: list[str]) -> None:
    selection = select(corpus, Policy(seed=0, evaluation_share=0.3), storage={}, rows_per_range=64)
    found = evaluation_pairs(selection, {})
    places = {row["pair_id"]: place for place, row in enumerate(some_rows(COUNT))}
    assert [places[each] for each in found.ids] == sorted(places[each] for each in found.ids)
    assert len(found.ids) == selection.counts["evaluation"] > 50


@pytest.fixture(scope="module", autouse=True)
def _shared_stream(corpus: list[str]) -> None:
    global SHARED_STREAM
    SHARED_STREAM = stream_of(corpus)


SHARED_STREAM: Stream


def test_a_corpus_in_a_file_system_of_its_own(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    (path,) = write_corpus(tmp_path, 50, files=1)
    memory.pipe_file("/train/pairs.parquet", Path(path).read_bytes())
    stream = stream_of(["memory://train/pairs.parquet"])
    found = take(stream.batches(0, Place()), stream.batches_of_epoch(0))
    assert sorted(each for batch in found for each in batch) == sorted(row["pair_id"] for row in some_rows(50))
