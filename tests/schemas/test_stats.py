import pickle
import random
from collections import Counter
from functools import reduce

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.stats import LENGTH_EDGES, SAMPLES_PER_KEY, FileEntry, Stats, count_labels, count_lengths


def stats(seed: int) -> Stats:
    draw = random.Random(seed)
    result = Stats()
    for _ in range(draw.randrange(8)):
        result.counts[draw.choice("ab"), draw.choice("xyz")] += draw.randrange(9)
        hashed = draw.randrange(1000)
        result.sample(draw.choice("pq"), hashed, {"row": hashed})
    result.files.add(FileEntry(f"{seed}.parquet", seed, seed, "d"))
    return result


@given(st.lists(st.integers(0, 50), unique=True, max_size=12), st.randoms())
def test_order_does_not_matter(seeds: list[int], shuffler: random.Random) -> None:
    one = reduce(Stats.add, map(stats, seeds), Stats())
    shuffler.shuffle(seeds)
    half = len(seeds) // 2
    other = reduce(Stats.add, map(stats, seeds[:half]), Stats()).add(
        reduce(Stats.add, map(stats, seeds[half:]), Stats())
    )
    assert one == other
    assert all(
        len(rows) <= SAMPLES_PER_KEY and rows == sorted(rows, key=lambda r: r[0]) for rows in one.samples.values()
    )


VALUES = st.none() | st.floats(allow_nan=False) | st.integers() | st.text() | st.lists(st.text())
COUNTED = st.builds(
    Stats,
    st.dictionaries(st.lists(st.text(), min_size=1).map(tuple), st.integers()).map(Counter),
    st.dictionaries(st.text(), st.lists(st.tuples(st.integers(0, 2**128), st.dictionaries(st.text(), VALUES)))),
    st.sets(st.builds(FileEntry, st.text(), st.integers(0), st.integers(0), st.text())),
)


@given(COUNTED)
def test_json_gives_the_stats_back(one: Stats) -> None:
    again = Stats.from_json(one.to_json())
    assert again == one
    assert again.to_json() == one.to_json()


@given(COUNTED)
def test_pickling_gives_the_stats_back(one: Stats) -> None:
    assert pickle.loads(pickle.dumps(one)) == one


@given(st.lists(st.integers(0, 50), unique=True, max_size=6))
def test_equal_tallies_are_equal_json(seeds: list[int]) -> None:
    one, other = (reduce(Stats.add, map(stats, order), Stats()) for order in (seeds, seeds[::-1]))
    assert one.to_json() == other.to_json()


def test_the_message_of_many_files_is_small() -> None:
    draw = random.Random(0)
    files = {
        FileEntry(f"rows/part-{n:05d}-00000-{unit:05d}.parquet", draw.randrange(16_385), draw.randrange(10**7), digest)
        for n in range(300)
        for unit in range(10)
        for digest in [f"{draw.getrandbits(128):032x}"]
    }
    whole = reduce(Stats.add, (Stats(files={entry}) for entry in files), Stats())
    message = pickle.dumps(whole)
    assert pickle.loads(message) == whole and len(message) < 40 * len(files)


def test_under_nests_keys() -> None:
    result = Stats()
    result.counts.update({("pairs", "b", "made"): 2, ("pairs", "a", "made"): 1, ("rows", "d"): 5})
    assert result.under("pairs") == {"a": {"made": 1}, "b": {"made": 2}}
    assert list(result.under("pairs")) == ["a", "b"]
    assert result.under("rows") == {"d": 5}
    assert result.under("nothing") == {}


@given(st.lists(st.integers(0, 5_000_000), min_size=1))
def test_lengths_fall_below_their_edge(lengths: list[int]) -> None:
    result = Stats()
    count_lengths(result, ("k",), np.array(lengths))
    counts = {int(bucket): count for (_, bucket), count in result.counts.items()}
    assert sum(counts.values()) == len(lengths)
    for bucket, count in counts.items():
        low = LENGTH_EDGES[bucket - 1] if bucket else -1
        high = LENGTH_EDGES[bucket] if bucket < len(LENGTH_EDGES) - 1 else np.inf
        assert count == sum(low < length <= high for length in lengths)


def test_labels_fall_into_twenty_bins() -> None:
    result = Stats()
    count_labels(result, ("k",), np.array([0.0, 0.049, 0.05, 0.5, 0.999, 1.0], dtype=np.float32))
    assert dict(result.counts) == {("k", "00"): 2, ("k", "01"): 1, ("k", "10"): 1, ("k", "19"): 2}
