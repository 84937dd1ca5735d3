"""Statistics of a run that merge in any order: integer counts by key, samples with the smallest hashes, and files."""

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SAMPLES_PER_KEY = 6

Key = tuple[str, ...]

REAL_TOKENS = ("tokens", "real")
"""Key of the tokens that a model has read or written, without padding."""


class FileEntry(NamedTuple):
    """A file that a run wrote: its path below the output folder, rows, bytes, and blake2b-128 in hex."""

    path: str
    rows: int
    bytes: int
    digest: str


@dataclass
class Stats:
    """Counts by key, sample rows by key (those with the smallest hashes), and the files written.

    The sum of several statistics does not depend on their order, so a manifest does not depend on the parallelism.
    """

    counts: Counter[Key] = field(default_factory=Counter)
    samples: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    files: set[FileEntry] = field(default_factory=set)

    def sample(self, key: str, hashed: int, row: dict[str, Any]) -> None:
        """Offer a row as a sample of `key`; the rows with the smallest hashes are kept."""
        self._keep(key, [(hashed, row)])

    def add(self, other: "Stats") -> "Stats":
        """Add `other` in place; return self."""
        self.counts.update(other.counts)
        for key, rows in other.samples.items():
            self._keep(key, rows)
        self.files |= other.files
        return self

    def _keep(self, key: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        both = dict((*self.samples.get(key, ()), *rows))
        self.samples[key] = sorted(both.items())[:SAMPLES_PER_KEY]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the files packed: a runner may send the statistics of a hundred thousand units in one message."""
        return _unpacked, (self.counts, self.samples, _pack(self.files))

    def under(self, *prefix: str) -> dict[str, Any]:
        """Return the counts whose keys start with `prefix`, nested by the rest of the key and sorted."""
        nested: dict[str, Any] = {}
        for key in sorted(key for key in self.counts if key[: len(prefix)] == prefix):
            *path, last = key[len(prefix) :]
            node = nested
            for step in path:
                node = node.setdefault(step, {})
            node[last] = self.counts[key]
        return nested

    def to_json(self) -> bytes:
        """Return the statistics as JSON in ASCII; equal statistics give equal bytes.

        Raises TypeError for a sample with a value that JSON cannot hold.
        """
        content = {
            "counts": [[*key, count] for key, count in sorted(self.counts.items())],
            "samples": dict(sorted(self.samples.items())),
            "files": sorted(self.files),
        }
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> "Stats":
        """Read the output of `to_json`. Raises ValueError, KeyError, TypeError or AttributeError for other bytes."""
        content = json.loads(data)
        return cls(
            Counter({tuple(key): count for *key, count in content["counts"]}),
            {key: [(hashed, row) for hashed, row in rows] for key, rows in content["samples"].items()},
            {FileEntry(*entry) for entry in content["files"]},
        )


def _pack(files: Iterable[FileEntry]) -> bytes:
    """Return entries as compressed JSON in order of path: 35 bytes each where there are many, a third of a pickle."""
    return zlib.compress(json.dumps(sorted(files)).encode("ascii"), level=1)


def _unpacked(counts: Counter[Key], samples: dict[str, list[tuple[int, dict[str, Any]]]], files: bytes) -> Stats:
    return Stats(counts, samples, {FileEntry(*entry) for entry in json.loads(zlib.decompress(files))})


LENGTH_EDGES = np.unique(np.round(np.geomspace(1, 2**20, 81)).astype(np.int64))
"""Upper edges of the text length buckets, in characters: about four per doubling, up to 1,048,576."""


def count_lengths(stats: Stats, key: Key, lengths: np.ndarray) -> None:
    """Count lengths (int64[n], characters) in the buckets of `LENGTH_EDGES`.

    Bucket i ends at edge i, inclusive; the last one also counts all longer texts.
    """
    numbers = np.minimum(np.searchsorted(LENGTH_EDGES, lengths), len(LENGTH_EDGES) - 1)
    buckets, counts = np.unique(numbers, return_counts=True)
    for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
        stats.counts[(*key, f"{bucket:03d}")] += count


LABEL_BINS = 20


def count_labels(stats: Stats, key: Key, labels: np.ndarray) -> None:
    """Count labels (float32[n] in [0, 1]) in 20 equal bins; 1.0 is in the last one."""
    bins, counts = np.unique(np.minimum((labels * LABEL_BINS).astype(np.int64), LABEL_BINS - 1), return_counts=True)
    for bucket, count in zip(bins.tolist(), counts.tolist(), strict=True):
        stats.counts[(*key, f"{bucket:02d}")] += count


FIXED_POINT = 2**20
"""Sums of scores are integers in units of 1 / 2**20, so that they do not depend on the order of addition."""

SCORE_BINS = 4_000
BINS_PER_SCORE = 20
"""Bins of raw scores: 0.05 wide, from -100 to 100."""


def count_scores(stats: Stats, key: Key, scores: np.ndarray) -> None:
    """Count scores (float[n], no NaN) in `SCORE_BINS` bins; bin i starts at i / 20 - 100, the outer two are open."""
    bins, counts = np.unique(score_bins(scores), return_counts=True)
    for number, count in zip(bins.tolist(), counts.tolist(), strict=True):
        stats.counts[(*key, f"{number:04d}")] += count


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Return the bin of each score (float[n], no NaN) as `count_scores` counts it: int64[n]."""
    numbers = np.floor(scores * BINS_PER_SCORE) + SCORE_BINS // 2
    return np.clip(numbers, 0, SCORE_BINS - 1).astype(np.int64)
