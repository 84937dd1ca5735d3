"""Bringing rows of one key together: chunks are sliced by the key's hash into shards, one GroupByKey, done."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from schemas.chunks import from_ipc, group_rows, to_ipc
from schemas.ids import text_key

SHARD_BYTES = 64 * 2**20
MAX_SHARDS = 2_000
_PROCESS_BYTES = 600 * 2**20
_HELD_PER_BYTE = 5
_SHARDS_AT_ONCE = 4


def shards_for(estimated_bytes: int) -> int:
    """The number of shards, from 1 to 2,000, for so many bytes of text: a function of the inputs only."""
    return max(1, min(MAX_SHARDS, -(-estimated_bytes // SHARD_BYTES)))


def finishing_memory(estimated_bytes: int, shards: int) -> int:
    """Bytes of memory that a machine needs to finish shards, for the hint `min_ram`.

    Finishing a shard holds five times its text (docs/architecture.md, Memory) beside what the process holds anyway: the
    largest worker that was measured had 0.9 GB with shards of 64 MB (docs/results.md, by size), so 0.6 GB for itself.
    The hint is of a machine, which runs a process for each of its vCPUs: four, those of the machines that
    deploy/dataflow/submit.py asks for.
    """
    return _SHARDS_AT_ONCE * (_PROCESS_BYTES + _HELD_PER_BYTE * max(SHARD_BYTES, -(-estimated_bytes // shards)))


def text_keys(texts: pa.Array) -> np.ndarray:
    """uint64[n]: the hash of each text (see `schemas.ids.text_key`)."""
    return np.fromiter(map(text_key, texts.to_pylist()), dtype=np.uint64, count=len(texts))


def shard_of(keys: np.ndarray, shards: int) -> np.ndarray:
    """int64[n]: the shard of each uint64 key. Shards are consecutive ranges of keys, so shard order is key order."""
    # The upper half of the 96-bit product: 32 bits of the key decide, which no number of shards here exceeds.
    return ((keys >> np.uint64(32)) * np.uint64(shards) >> np.uint64(32)).astype(np.int64)


def slice_chunk(chunk: pa.RecordBatch, column: str, shards: int) -> Iterator[tuple[int, bytes]]:
    """The rows of a chunk by the shard of their text in `column`: (shard, compressed Arrow IPC stream)."""
    for shard, rows in group_rows(shard_of(text_keys(chunk[column]), shards)):
        yield shard, to_ipc(chunk.take(pa.array(rows)))


@dataclass
class GroupIntoShards(beam.PTransform):
    """Chunks -> one (shard, slices) for each of the `shards`, also for those that no row falls into."""

    column: str
    shards: int

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        slices = chunks | "Slice" >> beam.FlatMap(slice_chunk, self.column, self.shards).with_output_types(
            tuple[int, bytes]
        )
        # A marker for each shard, so that one without rows is written too.
        markers = (
            chunks.pipeline
            | "AllShards" >> beam.Create([self.shards])
            | "Mark" >> beam.FlatMap(_markers).with_output_types(tuple[int, bytes])
        )
        return (slices, markers) | "Together" >> beam.Flatten() | "Shuffle" >> beam.GroupByKey()


def _markers(shards: int) -> Iterator[tuple[int, bytes]]:
    for shard in range(shards):
        yield shard, b""


def gather(slices: Iterable[bytes], *schemas: pa.Schema) -> list[pa.RecordBatch]:
    """The rows of a shard, one chunk for each of the `schemas`; markers are passed over."""
    chunks = [from_ipc(data) for data in slices if data]
    return [
        pa.concat_batches([pa.RecordBatch.from_pylist([], schema), *(c for c in chunks if c.schema.equals(schema))])
        for schema in schemas
    ]
