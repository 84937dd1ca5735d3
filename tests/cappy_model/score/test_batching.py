"""Batches under a budget of tokens."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.score.batching import shared_batches, similar_lengths, token_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=200).map(lambda lengths: np.array(lengths, dtype=np.int64))


@pytest.mark.parametrize("padded", [True, False])
@given(LENGTHS, st.integers(1, 5000))
def test_every_row_once_and_no_batch_over_the_budget(padded: bool, lengths: np.ndarray, budget: int) -> None:
    batches = token_batches(lengths, budget, padded=padded)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    costs = [int(lengths[b].max()) * len(b) if padded else int(lengths[b].sum()) for b in batches]
    assert all(cost <= budget or len(batch) == 1 for cost, batch in zip(costs, batches, strict=True))
    ordered = [length for batch in batches for length in lengths[batch].tolist()]
    assert ordered == sorted(ordered, reverse=True)


@pytest.mark.parametrize("padded", [True, False])
@given(LENGTHS, st.integers(1, 5000))
def test_no_row_could_have_joined_the_batch_before_it(padded: bool, lengths: np.ndarray, budget: int) -> None:
    batches = token_batches(lengths, budget, padded=padded)
    for before, after in itertools.pairwise(batches):
        joined = np.append(before, after[0])
        assert (int(lengths[joined].max()) * len(joined) if padded else int(lengths[joined].sum())) > budget


def test_sorting_leaves_hardly_any_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 512, 2048)
    cost = sum(int(lengths[batch].max()) * len(batch) for batch in token_batches(lengths, 4096, padded=True))
    assert cost < 1.02 * lengths.sum()


@given(st.lists(st.tuples(st.integers(16, 300), st.lists(st.integers(1, 200), min_size=1, max_size=20)), max_size=12))
def test_a_group_is_split_only_where_it_is_over_the_budget(drawn: list[tuple[int, list[int]]]) -> None:
    sizes = [len(rests) for _, rests in drawn]
    prefixes = np.repeat(np.array([prefix for prefix, _ in drawn], dtype=np.int64), sizes)
    rest = np.array([length for _, rests in drawn for length in rests], dtype=np.int64)
    groups = np.repeat(np.arange(len(drawn)), sizes)

    def cost(rows: np.ndarray) -> int:
        return int(prefixes[rows].max()) * len(np.unique(groups[rows])) + int(rest[rows].sum())

    batches = shared_batches(prefixes + rest, prefixes, groups, 1000)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(groups)))
    assert all(cost(batch) <= 1000 or len(batch) == 1 for batch in batches)
    for group in range(len(drawn)):
        rows = np.flatnonzero(groups == group)
        parts = [batch for batch in batches if (groups[batch] == group).any()]
        cached = (int(prefixes[rows].max()) + int(rest[rows].max())) * len(rows) // 8
        assert len(parts) == 1 or max(cost(rows), cached) > 1000


@given(LENGTHS)
def test_similar_lengths_have_little_padding(lengths: np.ndarray) -> None:
    parts = similar_lengths(lengths)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(lengths)))
    assert all(8 * int(lengths[part].max()) * len(part) <= 9 * int(lengths[part].sum()) for part in parts)
