"""Output folders: Parquet files with fixed names, each written whole or not at all."""

import io
import posixpath
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.storage import OutputError, StorageOptions, check_writable, join, read_bytes, write_whole
from schemas.carried import restored
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import RUN
from schemas.stats import FileEntry, Stats

STATS_KEY = "cappy.tally"
"""Key of a unit's statistics in the metadata of its Parquet file; older files have it, so the name stays."""


@dataclass(frozen=True)
class OutputDir:
    """An output folder: its URL and the fsspec options to reach it."""

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
        """Write chunks as one Parquet file at `path` below the folder; return its entry. Raises OutputError."""
        data = parquet_bytes(batches, schema, metadata=metadata)
        write_whole(join(self.url, path), data, self.storage)
        return FileEntry(path, sum(batch.num_rows for batch in batches), len(data), digest_of(data))

    def write_unit(self, path: str, batches: Sequence[pa.RecordBatch], schema: pa.Schema, stats: Stats) -> Stats:
        """Write the rows of a unit with its `stats` in the file's metadata; return the stats and the file's entry.

        The unit is finished once this file exists (see `existing`), so write everything else that belongs to it before,
        and add its entries to `stats`. Paths of files named like the unit are stored as their folder only: the name
        holds the file's number, and the unit's bytes must not depend on it. Raises OutputError.
        """
        name = posixpath.basename(path)
        files = {file._replace(path=_by_folder(file.path, name)) for file in stats.files}
        metadata = {STATS_KEY: Stats(stats.counts, stats.samples, files).to_json()}
        entry = self.write_parquet(path, batches, schema, metadata=metadata)
        return Stats(files={entry}).add(stats)

    def existing(self, path: str) -> tuple[FileEntry, Stats] | None:
        """Return the entry and the stats of a finished unit; None if its file does not exist.

        Raises CappyError for a damaged file, or one that holds no stats.
        """
        url = join(self.url, path)
        data = read_bytes(url, self.storage)
        if data is None:
            return None
        try:
            footer = pq.read_metadata(pa.BufferReader(data))
        except pa.ArrowException as error:
            raise CappyError(f"{url}: is not a whole Parquet file ({error}); delete it to have it rebuilt") from error
        stats, name = stats_in(footer, url), posixpath.basename(path)
        stats.files = {
            file._replace(path=file.path + name) if file.path.endswith("/") else file for file in stats.files
        }
        return FileEntry(path, footer.num_rows, len(data), digest_of(data)), stats

    def check_usable(self) -> None:
        """Raise OutputError if this worker does not see what the launcher wrote here, or cannot write here."""
        if read_bytes(join(self.url, RUN), self.storage) is None:
            raise OutputError(
                f"{self.url}: the worker on {socket.gethostname()} does not see this folder: it lacks the {RUN} that "
                "the command wrote there. Give a folder that all workers see, on a shared disk or an object store."
            )
        try:
            check_writable(self.url, self.storage)
        except CappyError as error:
            raise OutputError(
                f"{error} (on the worker {socket.gethostname()}). Let the user of the workers write and delete there, "
                "or give another folder; then run the same command again."
            ) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file of bytes, such as a manifest. Raises OutputError."""
        write_whole(join(self.url, name), data, self.storage)


def _by_folder(path: str, name: str) -> str:
    """Return the folder of a path with its `/` where the file has this name, else the path."""
    folder, _, own = path.rpartition("/")
    return f"{folder}/" if folder and own == name else path


def parquet_bytes(
    batches: Sequence[pa.RecordBatch], schema: pa.Schema, *, metadata: Mapping[str, bytes] | None = None
) -> bytes:
    """Encode chunks as one Parquet file: zstd, row groups of 16,384 rows.

    The bytes depend only on the rows and on `metadata` (key-value pairs of the file, not of its schema), not on how the
    rows are cut into chunks. Carried columns get their own types back.
    """
    table = restored(pa.Table.from_batches(batches, schema).combine_chunks())
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=CHUNK_ROWS)
        writer.add_key_value_metadata(dict(metadata or {}))
    return buffer.getvalue()


def stats_in(footer: pq.FileMetaData, url: str) -> Stats:
    """Return the stats in the footer of the file at `url`. Raises CappyError if they are missing or damaged."""
    try:
        return Stats.from_json(footer.metadata[STATS_KEY.encode()])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CappyError(
            f"{url}: is not a file of this job: its metadata has no valid {STATS_KEY!r} "
            f"({type(error).__name__}: {error}); delete it to have it rebuilt"
        ) from error
