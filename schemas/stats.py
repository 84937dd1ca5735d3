"""What a run counts, in a form that merges in any order: integers by key, the smallest samples by hash, and files."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SAMPLES_PER_KEY = 6

Key = tuple[str, ...]

REAL_TOKENS = ("tokens", "real")
"""The key that counts the tokens, without padding, which a model has read or written."""


class FileEntry(NamedTuple):
    """A file that a run wrote: its path below the output folder, rows, bytes, and blake2b-128 as hex."""

    path: str
    rows: int
    bytes: int
    digest: str


@dataclass
class Stats:
    """Counts by key; per key the rows with the smallest hashes; the files written.

    Adding all_stats gives the same whatever their order, so nothing in a manifest depends on how a run was spread.
    """

    counts: Counter[Key] = field(default_factory=Counter)
    samples: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    files: set[FileEntry] = field(default_factory=set)

    def sample(self, key: str, hashed: int, row: dict[str, Any]) -> None:
        """Offers a row as a sample of `key`."""
        self._keep(key, [(hashed, row)])

    def add(self, other: "Stats") -> "Stats":
        """Takes in everything of `other`; returns self."""
        self.counts.update(other.counts)
        for key, rows in other.samples.items():
            self._keep(key, rows)
        self.files |= other.files
        return self

    def _keep(self, key: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        both = dict((*self.samples.get(key, ()), *rows))
        self.samples[key] = sorted(both.items())[:SAMPLES_PER_KEY]

    def under(self, *prefix: str) -> dict[str, Any]:
        """The counts whose keys start with `prefix`, as nested dictionaries of the rest of their keys, sorted."""
        nested: dict[str, Any] = {}
        for key in sorted(key for key in self.counts if key[: len(prefix)] == prefix):
            *path, last = key[len(prefix) :]
            node = nested
            for step in path:
                node = node.setdefault(step, {})
            node[last] = self.counts[key]
        return nested

    def to_json(self) -> bytes:
        """All of it as JSON in ASCII; equal all_stats give equal bytes.

        Raises TypeError for a sample that holds more than JSON can: text, numbers, None, lists, dictionaries.
        """
        content = {
            "counts": [[*key, count] for key, count in sorted(self.counts.items())],
            "samples": dict(sorted(self.samples.items())),
            "files": sorted(self.files),
        }
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> "Stats":
        """The stats that `to_json` wrote. Raises ValueError, KeyError, TypeError or AttributeError for others."""
        content = json.loads(data)
        return cls(
            Counter({tuple(key): count for *key, count in content["counts"]}),
            {key: [(hashed, row) for hashed, row in rows] for key, rows in content["samples"].items()},
            {FileEntry(*entry) for entry in content["files"]},
        )


LENGTH_EDGES = np.unique(np.round(np.geomspace(1, 2**20, 81)).astype(np.int64))
"""Upper edges of the buckets of text lengths, in characters: four or so to a doubling, the last one 1,048,576."""


def count_lengths(stats: Stats, key: Key, lengths: np.ndarray) -> None:
    """Counts lengths (int64[n], characters) into the buckets of `LENGTH_EDGES`.

    Bucket i ends at edge i, inclusive; the last one also takes everything longer.
    """
    found = np.minimum(np.searchsorted(LENGTH_EDGES, lengths), len(LENGTH_EDGES) - 1)
    buckets, counts = np.unique(found, return_counts=True)
    for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
        stats.counts[(*key, f"{bucket:03d}")] += count


LABEL_BINS = 20


def count_labels(stats: Stats, key: Key, labels: np.ndarray) -> None:
    """Counts labels (float32[n] in [0, 1]) into 20 equal bins; 1.0 falls into the last one."""
    bins, counts = np.unique(np.minimum((labels * LABEL_BINS).astype(np.int64), LABEL_BINS - 1), return_counts=True)
    for bucket, count in zip(bins.tolist(), counts.tolist(), strict=True):
        stats.counts[(*key, f"{bucket:02d}")] += count


FIXED_POINT = 2**20
"""Sums of scores are integers, in units of 1 / 2**20, so that they do not depend on the order of adding."""

SCORE_BINS = 4_000
BINS_PER_SCORE = 20
"""Bins of raw scores: 0.05 wide, from -100 to 100."""


def count_scores(stats: Stats, key: Key, scores: np.ndarray) -> None:
    """Counts scores (float[n], without NaN) into `SCORE_BINS`, bin i from i / 20 - 100; the outer two take the rest."""
    bins, counts = np.unique(score_bins(scores), return_counts=True)
    for number, count in zip(bins.tolist(), counts.tolist(), strict=True):
        stats.counts[(*key, f"{number:04d}")] += count


def score_bins(scores: np.ndarray) -> np.ndarray:
    """int64[n]: the bin of each score (float[n], without NaN), as `count_scores` counts them."""
    found = np.floor(scores * BINS_PER_SCORE) + SCORE_BINS // 2
    return np.clip(found, 0, SCORE_BINS - 1).astype(np.int64)
