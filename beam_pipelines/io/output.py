"""Writing: Parquet files with fixed names, whole or not at all, and the manifest that ends a run."""

import io
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.storage import OutputError, StorageOptions, check_writable, join, read_bytes, write_whole
from beam_pipelines.runs.card import Card, draw_card
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import CARD, FAILURE, MANIFEST, RUN, to_json
from schemas.stats import FileEntry, Stats

TALLY = "cappy.tally"
"""Where a unit's Parquet file keeps what was counted while it was made, in its key-value metadata."""


@dataclass(frozen=True)
class OutputDir:
    """An output folder, and how to reach it."""

    url: str
    storage: StorageOptions = field(default_factory=dict, repr=False)

    def write_parquet(
        self,
        path: str,
        batches: Sequence[pa.RecordBatch],
        schema: pa.Schema,
        *,
        metadata: Mapping[str, bytes] | None = None,
    ) -> FileEntry:
        """Writes chunks as one file of `parquet_bytes` at `path` below the folder. Raises OutputError."""
        data = parquet_bytes(batches, schema, metadata=metadata)
        write_whole(join(self.url, path), data, self.storage)
        return FileEntry(path, sum(batch.num_rows for batch in batches), len(data), digest_of(data))

    def write_unit(self, path: str, batches: Sequence[pa.RecordBatch], schema: pa.Schema, stats: Stats) -> Stats:
        """Writes the rows of a unit with its `stats` inside the file; the stats with the file's own entry added.

        Where this file stands the unit is finished (see `existing`), so whatever else belongs to the unit is written
        before, and its entries are in `stats`. Raises OutputError.
        """
        entry = self.write_parquet(path, batches, schema, metadata={TALLY: stats.to_json()})
        return Stats(files={entry}).add(stats)

    def existing(self, path: str) -> tuple[FileEntry, Stats] | None:
        """The entry and the kept stats of a unit that was finished before; None where it was not.

        Raises CappyError for a file that is damaged, or that no unit of ours can have left.
        """
        url = join(self.url, path)
        data = read_bytes(url, self.storage)
        if data is None:
            return None
        try:
            footer = pq.read_metadata(pa.BufferReader(data))
        except pa.ArrowException as error:
            raise CappyError(f"{url}: is no whole Parquet file ({error}); delete it, and it is made again") from error
        return FileEntry(path, footer.num_rows, len(data), digest_of(data)), stats_in(footer, url)

    def check_usable(self) -> None:
        """Raises OutputError where a worker does not see what the command wrote here, or cannot write here itself."""
        if read_bytes(join(self.url, RUN), self.storage) is None:
            raise OutputError(
                f"{self.url}: is another folder, or none, to the worker on {socket.gethostname()}: it lacks the {RUN} "
                "that the command wrote there. Give a folder that all workers see, on a shared disk or an object store."
            )
        try:
            check_writable(self.url, self.storage)
        except CappyError as error:
            raise OutputError(
                f"{error} (on the worker {socket.gethostname()}). Let those that workers run as write and delete "
                "there, or give a folder where they can; then give the same command again."
            ) from error

    def write(self, name: str, data: bytes) -> None:
        """Writes a file that is no data. Raises OutputError."""
        write_whole(join(self.url, name), data, self.storage)


def parquet_bytes(
    batches: Sequence[pa.RecordBatch], schema: pa.Schema, *, metadata: Mapping[str, bytes] | None = None
) -> bytes:
    """Chunks as one Parquet file: zstd, row groups of 16,384.

    The bytes are a function of the rows and of `metadata` (key-value pairs of the file, which are no part of its
    schema) alone, however the rows are cut into chunks.
    """
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=CHUNK_ROWS)
        writer.add_key_value_metadata(dict(metadata or {}))
    return buffer.getvalue()


def stats_in(footer: pq.FileMetaData, url: str) -> Stats:
    """The stats that the file at `url` keeps in its footer. Raises CappyError when it keeps none, or a damaged one."""
    try:
        return Stats.from_json(footer.metadata[TALLY.encode()])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CappyError(
            f"{url}: is not a file of this job: its metadata holds no {TALLY!r} ({type(error).__name__}: {error}); "
            "delete it, and it is made again"
        ) from error


class MergeStats(beam.CombineFn):
    """Adds all_stats up."""

    def create_accumulator(self) -> Stats:
        return Stats()

    def add_input(self, total: Stats, stats: Stats) -> Stats:
        return total.add(stats)

    def merge_accumulators(self, totals: Iterable[Stats]) -> Stats:
        merged = Stats()
        for total in totals:
            merged.add(total)
        return merged

    def extract_output(self, total: Stats) -> Stats:
        return total


class TooManyRejects(CappyError):
    """More rows were rejected than --max-reject-rate allows."""


@dataclass
class FinishRun(beam.PTransform):
    """Tallies of the whole run -> manifest.json and the dataset card; or failure.json, and an error.

    `summarise` makes the manifest of the stats; its `rejects` hold the `rate`, and what it is a share `of`.
    """

    folder: OutputDir
    summarise: Callable[[Stats], dict[str, Any]]
    card: Card
    max_reject_rate: float

    def expand(self, all_stats: beam.PCollection) -> beam.PCollection:
        return all_stats | "AddUp" >> beam.CombineGlobally(MergeStats()) | "Finish" >> beam.Map(self._finish)

    def _finish(self, stats: Stats) -> None:
        manifest = self.summarise(stats)
        rejects = manifest["rejects"]
        if rejects["rate"] > self.max_reject_rate:
            where = f"{join(self.folder.url, FAILURE)} counts the reasons"
            if rejects["rows"]:
                found = _reasons(rejects["by_reason"])
                where = f"Reject rows by reason: {found}. They stand in {join(self.folder.url, 'rejects')}"
            reason = (
                f"{rejects['rate']:.2%} of the {rejects['of']} were rejected, more than --max-reject-rate "
                f"{self.max_reject_rate:.2%}. {where}; mend the input, or raise the rate."
            )
            self.folder.write(FAILURE, to_json({"reason": reason, **manifest}))
            raise TooManyRejects(reason)
        self.folder.write(CARD, draw_card(self.card, manifest).encode())
        self.folder.write(MANIFEST, to_json(manifest))


def _reasons(by_reason: Mapping[str, Mapping[str, int]]) -> str:
    counts = [(count, reason) for reasons in by_reason.values() for reason, count in reasons.items()]
    return ", ".join(f"{count:,} {reason}" for count, reason in sorted(counts, reverse=True))
