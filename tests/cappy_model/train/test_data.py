"""The stream of batches: each pair once in an epoch, by seed, from any place, in bounded memory."""

import itertools
import tempfile
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
from cappy_model.train import selection as selection_module
from cappy_model.train.batches import GroupPart, packed, shuffled
from cappy_model.train.corpus import CorpusError
from cappy_model.train.data import Place, Stream, evaluation_pairs
from tests.cappy_model.models import tiny_tokenizer
from tests.cappy_model.train.corpora import some_rows, write_corpus, write_pairs
from tests.cappy_model.train.selections import selection_of

COUNT = 400


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), COUNT)


def stream_of(corpus: list[str], folder: Path | None = None, *, grouped: bool = False, **changes: Any) -> Stream:
    given = {"batch_size": 7, "buffer": 120, "seed": 0, **changes}
    encoder = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
    selection = selection_of(corpus, folder, grouped=grouped, rows_per_range=given["buffer"])
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
    whole = [batch.pairs.ids for batch in itertools.islice(stream._batches(0, Place()), start + count * world + world)]
    for rank in range(world):
        found = [batch.pairs.ids for batch in itertools.islice(stream._batches(start, Place(rank, world)), count)]
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
    join = selection_module.join_pairs
    monkeypatch.setattr(
        selection_module, "join_pairs", lambda parts: read.append(sum(len(p.ids) for p in parts)) or join(parts)
    )
    stream = stream_of(corpus, buffer=60)
    for _ in itertools.islice(stream._batches(0, Place()), stream.batches_of_epoch(0)):
        assert len(read) <= 1 + sum(read) // 30  # a window is read when it is needed, not before
    assert max(read) <= 60 and sum(read) == COUNT


def test_little_is_read_in_vain_to_start_late(corpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    real = selection_module.read_range
    monkeypatch.setattr(
        selection_module, "read_range", lambda part, *rest, **more: read.append(part) or real(part, *rest, **more)
    )
    stream = stream_of(corpus, buffer=60)
    next(stream._batches(10 * stream.batches_of_epoch(0), Place()))
    assert len(read) <= 2


@given(
    lengths=st.lists(st.integers(0, 1000), min_size=1, max_size=2_000).map(np.array),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_batches_hold_every_row_once(lengths: np.ndarray, batch_size: int, seed: int) -> None:
    found = shuffled(lengths, batch_size, np.random.default_rng(seed))
    assert sorted(row for batch in found for row in batch.tolist()) == list(range(len(lengths)))
    assert len(found) == -(-len(lengths) // batch_size)
    assert sorted(map(len, found), reverse=True)[:-1] == [batch_size] * (len(found) - 1)


def test_batches_are_of_like_length_and_in_no_order_of_it() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 4_000)
    found = shuffled(lengths, 8, np.random.default_rng(1))
    padded = sum(lengths[batch].max() * len(batch) for batch in found)
    assert padded < 1.05 * lengths.sum()
    longest = np.array([lengths[batch].max() for batch in found])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.15


def test_pairs_of_evaluation_are_read_in_the_order_of_the_files(corpus: list[str]) -> None:
    selection = selection_of(corpus, evaluation_share=0.3, rows_per_range=64)
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


SIZES = [*range(1, 24), *range(1, 12)]


@pytest.fixture(scope="module")
def many_sizes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Instructions with 1 to 23 responses, in a file whose row groups cut some of them."""
    rows = [
        {**row, "instruction": f"question {number}", "pair_id": f"{number}-{index}"}
        for number, size in enumerate(SIZES)
        for index, row in enumerate(some_rows(size))
    ]
    return str(write_pairs(tmp_path_factory.mktemp("sizes") / "pairs.parquet", rows, group=30))


@pytest.mark.parametrize(("batch_size", "buffer"), [(8, 40), (16, 1_000), (32, 60)])
def test_groups_stay_together_and_come_once_in_each_epoch(
    many_sizes: str, batch_size: int, buffer: int, tmp_path: Path
) -> None:
    stream = stream_of([many_sizes], tmp_path, grouped=True, batch_size=batch_size, buffer=buffer)
    batches, orders = stream._batches(0, Place()), []
    for epoch in range(3):
        found = list(itertools.islice(batches, stream.batches_of_epoch(epoch)))
        orders.append([each for batch in found for each in batch.pairs.ids])
        assert len(set(orders[-1])) == len(orders[-1]) == sum(SIZES)
        for batch in found:
            assert len(batch.groups) == len(batch.pairs.ids) <= batch_size
            numbers = {(text, int(group)) for text, group in zip(batch.pairs.instructions, batch.groups, strict=True)}
            within = Counter(batch.pairs.instructions)
            assert len(numbers) == len(within) == len(set(batch.groups.tolist()))
            for instruction, count in within.items():
                whole = SIZES[int(instruction.split()[1])]
                parts = -(-whole // batch_size)
                assert whole // parts <= count <= -(-whole // parts)
                labels = [
                    label
                    for text, label in zip(batch.pairs.instructions, batch.pairs.labels, strict=True)
                    if text == instruction
                ]
                assert whole < 2 * parts or set(labels) == {0.0, 1.0}, "right and wrong in each part"
        seen = stream.pairs_of(sum(map(stream.batches_of_epoch, range(epoch + 1))))
        assert seen == (sum(SIZES) * (epoch + 1), epoch + 1)
        batches_so_far = sum(map(stream.batches_of_epoch, range(epoch + 1)))
        assert stream.batches_for(sum(SIZES) * (epoch + 1)) == batches_so_far
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("grouped", [True, False])
def test_pairs_are_counted_at_any_batch(many_sizes: str, grouped: bool, tmp_path: Path) -> None:
    stream = stream_of([many_sizes], tmp_path, grouped=grouped, batch_size=9, buffer=50)
    count = stream.batches_of_epoch(0) + stream.batches_of_epoch(1)
    sizes = [len(batch.groups) for batch in itertools.islice(stream._batches(0, Place()), count)]
    for number in range(count):
        pairs, epochs = stream.pairs_of(number)
        assert pairs == sum(sizes[:number]) and epochs == pytest.approx(pairs / sum(SIZES))


@settings(max_examples=20)
@given(start=st.integers(0, 90), count=st.integers(1, 20), world=st.integers(1, 3))
def test_groups_start_anywhere_and_processes_share_them(start: int, count: int, world: int) -> None:
    stream = GROUPED_STREAM
    whole = [batch.pairs.ids for batch in itertools.islice(stream._batches(0, Place()), start + count * world + world)]
    for rank in range(world):
        found = [batch.pairs.ids for batch in itertools.islice(stream._batches(start, Place(rank, world)), count)]
        assert found == whole[start + (rank - start) % world :: world][:count]


@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=300).map(np.array),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_packed_batches_hold_every_share_once(sizes: np.ndarray, batch_size: int, seed: int) -> None:
    found = packed(sizes, sizes * 10, batch_size, np.random.default_rng(seed))
    shares = [share for batch in found for share in batch]
    expected = {
        GroupPart(g, p, -(-s // batch_size)) for g, s in enumerate(sizes.tolist()) for p in range(-(-s // batch_size))
    }
    assert len(shares) == len(expected) and set(shares) == expected
    labels = [np.arange(size) % 2 for size in sizes.tolist()]
    for batch in found:
        assert sum(len(share.rows(0, labels[share.group])) for share in batch) <= batch_size
    for group, size in enumerate(sizes.tolist()):
        rows = [share.rows(5, labels[group]).tolist() for share in shares if share.group == group]
        assert sorted(itertools.chain(*rows)) == list(range(5, 5 + size))


def test_batches_are_nearly_full_and_of_like_length() -> None:
    rng = np.random.default_rng(0)
    sizes, lengths = rng.choice([2, 3, 4, 5, 18], 4_000), rng.integers(1, 500, 4_000)
    found = packed(sizes, lengths, 32, np.random.default_rng(1))
    assert sizes.sum() > 0.9 * 32 * len(found)
    pairs = sum(sizes[share.group] * lengths[share.group] for batch in found for share in batch)
    padded = sum(
        max(lengths[share.group] for share in batch) * sum(sizes[share.group] for share in batch) for batch in found
    )
    assert padded < 1.2 * pairs


def test_a_group_of_ten_thousand(tmp_path: Path) -> None:
    rows = [{**row, "instruction": "one", "pair_id": str(n)} for n, row in enumerate(some_rows(10_000))]
    path = str(write_pairs(tmp_path / "pairs.parquet", [*rows, *some_rows(20)], group=3_000))
    stream = stream_of([path], tmp_path, grouped=True, batch_size=32, buffer=100)
    batches = list(itertools.islice(stream._batches(0, Place()), stream.batches_of_epoch(0)))
    assert sum(len(batch.groups) for batch in batches) == 10_020
    for batch in batches:
        assert 0 < batch.pairs.labels.mean() < 1


@pytest.fixture(scope="module", autouse=True)
def _grouped_stream(many_sizes: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    global GROUPED_STREAM
    folder = tmp_path_factory.mktemp("grouped")
    GROUPED_STREAM = stream_of([many_sizes], folder, grouped=True, batch_size=9, buffer=50)


GROUPED_STREAM: Stream


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=4, max_size=25),
    buffer=st.integers(1, 30),
    batch_size=st.integers(1, 16),
    limit=st.none() | st.integers(20, 60),
    seed=st.integers(0, 99),
)
def test_groups_of_any_corpus(sizes: list[int], buffer: int, batch_size: int, limit: int | None, seed: int) -> None:
    """Scattered rows, groups larger than the buffer, limits and evaluation: every training pair once in an epoch."""
    rows = [
        {**row, "instruction": f"question {number}", "pair_id": f"{number}-{index}"}
        for number, size in enumerate(sizes)
        for index, row in enumerate(some_rows(size + 1))
    ]
    order = np.random.default_rng(seed).permutation(len(rows)) if seed % 2 else np.arange(len(rows))
    with tempfile.TemporaryDirectory() as folder:
        path = write_pairs(Path(folder) / "pairs.parquet", [rows[index] for index in order], group=17)
        given = {"rows_per_range": buffer, "max_pairs": limit, "evaluation_share": 0.3, "seed": seed}
        try:
            selection = selection_of([str(path)], Path(folder), **given)
        except CorpusError:  # nothing is left for one of the two sides
            return
        stream = Stream(selection, ENCODER, 1, batch_size, buffer, seed)
        count = stream.batches_of_epoch(0)
        batches = list(itertools.islice(stream._batches(0, Place()), count + 1))
    found = [each for batch in batches[:count] for each in batch.pairs.ids]
    assert len(found) == len(set(found)) == selection.counts["training"] == stream.pairs_of(count)[0]
    assert stream.batches_for(len(found)) == count
    kept = Counter(each.split("-")[0] for each in found)
    assert all(size == sizes[int(number)] + 1 for number, size in kept.items())


ENCODER = PairEncoder(tiny_tokenizer("roberta"), policy="keep_response", max_length=64)
