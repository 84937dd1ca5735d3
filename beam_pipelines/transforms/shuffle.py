"""Shuffle jobs: units are reduced to chunks, chunks grouped into shards by the hash of a key, shards finished.

A shuffle job gives two functions that return a `Result`: one for a unit (`ReduceUnits`), one for a shard
(`FinishShards`). `GroupIntoShards`, between them, holds the only GroupByKey.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_pipelines.io.output import OutputDir
from beam_pipelines.transforms.results import Result, write_rejects, write_result
from schemas.chunks import from_ipc, group_rows, to_ipc
from schemas.ids import text_key

SHARD_BYTES = 64 * 2**20
MAX_SHARDS = 2_000
_PROCESS_BYTES = 600 * 2**20
_HELD_PER_BYTE = 5
_SHARDS_AT_ONCE = 4


def shards_for(estimated_bytes: int) -> int:
    """Return the number of shards, from 1 to 2,000, for an estimate of the text in bytes."""
    return max(1, min(MAX_SHARDS, -(-estimated_bytes // SHARD_BYTES)))


def finishing_memory(estimated_bytes: int, shards: int) -> int:
    """Return the bytes of memory that a machine needs to finish shards, for the resource hint `min_ram`.

    Finishing a shard takes five times its text (docs/architecture.md, Memory), and the process itself 0.6 GB: the
    largest worker measured had 0.9 GB with shards of 64 MB (docs/results.md, by size). The hint is for a machine, which
    runs one process for each vCPU: four on the machines that deploy/dataflow/submit.py asks for.
    """
    return _SHARDS_AT_ONCE * (_PROCESS_BYTES + _HELD_PER_BYTE * max(SHARD_BYTES, -(-estimated_bytes // shards)))


def text_keys(texts: pa.Array) -> np.ndarray:
    """Return the hash of each text, uint64[n] (see `schemas.ids.text_key`)."""
    return np.fromiter(map(text_key, texts.to_pylist()), dtype=np.uint64, count=len(texts))


def shard_of(keys: np.ndarray, shards: int) -> np.ndarray:
    """Return the shard, int64[n], of each uint64 key. Shards are consecutive ranges of keys, in order."""
    # The upper half of the 96-bit product: 32 bits of the key decide, which no number of shards here exceeds.
    return ((keys >> np.uint64(32)) * np.uint64(shards) >> np.uint64(32)).astype(np.int64)


def slice_chunk(chunk: pa.RecordBatch, column: str, shards: int) -> Iterator[tuple[int, bytes]]:
    """Split the rows of a chunk by the shard of their text in `column`: (shard, compressed Arrow IPC stream)."""
    for shard, rows in group_rows(shard_of(text_keys(chunk[column]), shards)):
        yield shard, to_ipc(chunk.take(pa.array(rows)))


@dataclass
class GroupIntoShards(beam.PTransform):
    """Group the rows of chunks by the hash of `column`: one (shard, slices) for each shard, also for an empty one."""

    column: str
    shards: int

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        slices = chunks | "Slice" >> beam.FlatMap(slice_chunk, self.column, self.shards).with_output_types(
            tuple[int, bytes]
        )
        # An empty marker for each shard, so that one without rows is written too.
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
    """Return the rows of a shard, one chunk for each of the `schemas`; skip markers and chunks of other schemas."""
    chunks = [from_ipc(data) for data in slices if data]
    empty = [pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in s], schema=s) for s in schemas]
    return [pa.concat_batches([none, *(c for c in chunks if c.schema.equals(none.schema))]) for none in empty]


@dataclass
class ReduceUnits(beam.PTransform):
    """Reduce units (or other elements) to chunks for a shuffle: (chunks; all_stats). Writes rejects.

    `reduce` returns the result of a unit. Its rows may be chunks of several schemas, which `gather` tells apart; the
    `schema` of the result is not used.
    """

    reduce: Callable[[Any], Result]
    output: OutputDir

    def expand(self, units: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        reduced = units | "Reduce" >> beam.Map(self.reduce)
        chunks = reduced | "Chunks" >> beam.FlatMap(operator.attrgetter("rows"))
        return chunks, reduced | "Rejects" >> beam.Map(write_rejects, self.output)


def shard_result(
    element: tuple[int, Iterable[bytes]], finish: Callable[..., Result], schemas: Sequence[pa.Schema], shards: int
) -> Result:
    """Return `finish(name, *chunks)`: the name of a shard's file, and the shard's rows, a chunk for each schema."""
    shard, slices = element
    return finish(f"shard-{shard:05d}-of-{shards:05d}", *gather(slices, *schemas))


@dataclass
class FinishShards(beam.PTransform):
    """Finish shards and write the results: (shard, slices) -> all_stats.

    Args:
      finish: returns the result of a shard; called as `shard_result` does.
      schemas: schemas of the chunks that were shuffled.
      shards: number of shards.
      output: output folder of the run.
      folder: where the rows are written below `output`.
    """

    finish: Callable[..., Result]
    schemas: Sequence[pa.Schema]
    shards: int
    output: OutputDir
    folder: str = ""

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        finished = shards | "Finish" >> beam.Map(shard_result, self.finish, self.schemas, self.shards)
        return finished | "Write" >> beam.Map(write_result, self.output, self.folder)
