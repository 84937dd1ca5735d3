"""An index of scored pairs on this machine's disk: the 128-bit key of a pair -> its score.

It is sorted by key and mapped into memory, so a look-up takes as little memory among a billion pairs as among a
thousand. Building it sorts one of 256 buckets at a time, which holds a few copies of the bucket: of 100 MB each with a
billion pairs. The files have no name: they are gone with the process, however that ends.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.errors import CappyError
from schemas.ids import DIGEST_BYTES, pair_keys

SCORED_PAIR = pa.schema(
    {
        "instruction": pa.string(),
        "response": pa.string(),
        "score": pa.float32(),
        "num_tokens": pa.int32(),
        "truncated": pa.bool_(),
    }
)
"""A pair with its score, as score writes it. A pair without a score, or without one of its texts, is not indexed."""

RECORD = np.dtype([("key", f"S{DIGEST_BYTES}"), ("score", "<f4"), ("num_tokens", "<i4"), ("truncated", "?")])
"""A pair in the index. Keys are compared as unsigned bytes."""

_BUCKETS = 256  # by the first byte of the key
_RUN_RECORDS = 2**18


class Hits(NamedTuple):
    """The pairs among n that an index holds: their positions int64[m], ascending, and their records RECORD[m]."""

    places: np.ndarray
    records: np.ndarray


class PairIndex:
    """Scored pairs by their texts. Safe to read from several threads. Build it with `build`."""

    def __init__(self, mapped: mmap.mmap | None) -> None:
        """Take records in the order of their keys, which are distinct; None for no records."""
        self._mapped = mapped
        self._records = np.empty(0, RECORD) if mapped is None else np.frombuffer(mapped, RECORD)

    def __len__(self) -> int:
        return len(self._records)

    @classmethod
    def build(cls, batches: Iterable[pa.RecordBatch], *, run_records: int = _RUN_RECORDS) -> "PairIndex":
        """Index batches of SCORED_PAIR; of equal pairs the first one counts.

        Records are dealt into buckets, `run_records` at a time, and each bucket is sorted by itself. Raises CappyError
        if the temporary folder cannot hold twice the size of the index.
        """
        with _explained(), tempfile.TemporaryFile() as dealt, tempfile.TemporaryFile() as ordered:
            bounds = [_deal(records, dealt) for records in _gathered(map(_records_of, batches), run_records)]
            dealt.flush()
            for bucket in range(_BUCKETS):
                ordered.write(_sorted(b"".join(_read(dealt, run[bucket : bucket + 2]) for run in bounds)).tobytes())
            ordered.flush()
            size = ordered.tell()  # an empty file cannot be mapped
            return cls(mmap.mmap(ordered.fileno(), size, access=mmap.ACCESS_READ) if size else None)

    def find(self, instructions: Sequence[str], responses: Sequence[str]) -> Hits:
        """Look up the pairs (instructions[i], responses[i])."""
        if self._mapped is None:
            return Hits(np.empty(0, np.int64), self._records)
        keys = _keys(instructions, responses)
        places = np.searchsorted(self._records["key"], keys)
        places[places == len(self)] = 0
        found = np.flatnonzero(self._records["key"][places] == keys)
        records = self._records[places[found]]
        # The pages that were read stay in the system's cache, and no longer count as memory of this process.
        self._mapped.madvise(mmap.MADV_DONTNEED)
        return Hits(found, records)


def _keys(instructions: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    return np.frombuffer(b"".join(pair_keys(instructions, responses)), RECORD["key"])


def _records_of(batch: pa.RecordBatch) -> np.ndarray:
    """Return the records of the pairs that have both texts and a score."""
    pairs = batch.drop_null()
    records = np.empty(pairs.num_rows, RECORD)
    records["key"] = _keys(pairs["instruction"].to_pylist(), pairs["response"].to_pylist())
    for name in ("score", "num_tokens", "truncated"):
        records[name] = pairs[name].to_numpy(zero_copy_only=False)
    return records


def _gathered(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the records in arrays of at least `size`, but for the last."""
    waiting: list[np.ndarray] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            yield np.concatenate(waiting)
            waiting.clear()
    if waiting:
        yield np.concatenate(waiting)


def _deal(records: np.ndarray, file: IO[bytes]) -> list[int]:
    """Append records in the order of their buckets; return the places in the file where buckets begin and end."""
    buckets = records["key"].copy().view(np.uint8)[::DIGEST_BYTES]
    order = np.argsort(buckets, kind="stable")
    bounds = np.searchsorted(buckets[order], np.arange(_BUCKETS + 1)) * RECORD.itemsize + file.tell()
    file.write(records[order].tobytes())
    return bounds.tolist()


def _read(file: IO[bytes], bounds: Sequence[int]) -> bytes:
    start, stop = bounds
    return os.pread(file.fileno(), stop - start, start)


def _sorted(data: bytes) -> np.ndarray:
    """Return the records of a bucket in the order of their keys, of equal ones the first."""
    records = np.frombuffer(data, RECORD)
    return records[np.unique(records["key"], return_index=True)[1]]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the temporary files into a CappyError with the remedy."""
    try:
        yield
    except OSError as error:
        raise CappyError(
            f"{tempfile.gettempdir()}: cannot hold the index of known scores: {error.strerror or error}. Free space, "
            "or set the environment variable TMPDIR to a folder with more."
        ) from error
