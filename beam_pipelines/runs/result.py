"""The result of a run for Python callers: its folder, its manifest and its table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.storage import StorageOptions, absolute, join, read_bytes
from beam_pipelines.report.text import plural
from beam_pipelines.runs.data import data_entries
from beam_pipelines.runs.files import remedy_for_lost
from beam_pipelines.runs.folder import load_manifest
from schemas.errors import CappyError
from schemas.ids import digest_of

_T = TypeVar("_T")

_BATCH_ROWS = 1024
_FIELD_ID = b"PARQUET:field_id"  # a reader of Parquet adds it


@dataclass(frozen=True, repr=False)
class RunResult:
    """A finished run, as every job's `run` returns it.

    Args:
      folder: the output folder, an absolute path or a URL.
      manifest: the content of `manifest.json`: counts, warnings, versions, and the files with their digests.
      storage: options for fsspec to reach the folder.

    Example:
      >>> from beam_pipelines.jobs.score import ScoreConfig, run
      >>> result = run(ScoreConfig(input="outputs/*.parquet", model="scorer", output="scored"), options)
      >>> result.manifest["totals"]["scored"]
      20929
      >>> frame = result.table().to_pandas()
    """

    folder: str
    manifest: Mapping[str, Any]
    storage: StorageOptions = field(default_factory=dict)

    def __repr__(self) -> str:
        rows = sum(entry["rows"] for entry in data_entries(self.manifest))
        return f"<{self.manifest['job']} in {self.folder}: {plural(rows, 'row')}>"

    def table(self) -> pa.Table:
        """Read the table of the run into memory: score's rows, rerank's selections, a corpus's pairs, and so on.

        Columns have the types of their files, and rows the order of the files' names, which in score is the order of
        the input. Raises CappyError for a job without a table, such as train, for a run without rows, and, naming the
        file, for one that is missing or damaged.
        """
        reader = self.reader()
        return reader.read_all()

    def reader(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Return a reader of the table in batches of at most 1,024 rows, which holds one file in memory at a time.

        `columns` are those to read, in their order; None for all. Raises CappyError as `table` does, there and while
        reading, and for a column that is missing.
        """
        entries = self._entries()
        opened = [self._open(entries[0])]
        schema = _plain_schema(opened[0].schema_arrow)
        missing = next((name for name in columns or () if name not in schema.names), None)
        if missing is not None:
            raise CappyError(f"{self._url(entries[0])}: has no column {missing!r}; it has {', '.join(schema.names)}")
        read = schema if columns is None else pa.schema([schema.field(name) for name in columns])

        def batches_of(entry: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
            parquet = opened.pop() if opened else self._open(entry)
            if not _plain_schema(parquet.schema_arrow).equals(schema):
                raise CappyError(f"{self._url(entry)}: has other columns than {self._url(entries[0])}")
            batches = parquet.iter_batches(_BATCH_ROWS, columns=read.names)
            while (batch := self._read(entry, lambda: next(batches, None))) is not None:
                yield pa.RecordBatch.from_arrays([batch[name] for name in read.names], schema=read)

        return pa.RecordBatchReader.from_batches(read, chain.from_iterable(map(batches_of, entries)))

    def _entries(self) -> list[dict[str, Any]]:
        """Return the manifest's entries of the table's files, at least one."""
        entries = data_entries(self.manifest)
        if not entries and self.manifest["job"] == "train":
            raise CappyError(f"{self.folder}: train makes a model and no table; its folder is what --model takes")
        if not entries:
            raise CappyError(f"{self.folder}: the run has no file with rows, so there is no table")
        return entries

    def _url(self, entry: Mapping[str, Any]) -> str:
        return join(self.folder, entry["path"])

    def _open(self, entry: Mapping[str, Any]) -> pq.ParquetFile:
        """Open a file of the table, whose bytes must be those that the manifest lists."""
        data = read_bytes(self._url(entry), self.storage)
        if data is None:
            raise CappyError(f"{self._url(entry)}: is missing; {remedy_for_lost(self.manifest)}")
        if digest_of(data) != entry["digest"]:
            raise self._damaged(entry, "its bytes are not those that the manifest lists")
        return self._read(entry, lambda: pq.ParquetFile(pa.BufferReader(data)))

    def _read(self, entry: Mapping[str, Any], read: Callable[[], _T]) -> _T:
        """Return what `read` does of a file. Raises CappyError if its content is no Parquet."""
        try:
            return read()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(entry, " ".join(str(error).split())) from error

    def _damaged(self, entry: Mapping[str, Any], reason: str) -> CappyError:
        remedy = "delete it, and run the job's command again to rebuild it"
        return CappyError(f"{self._url(entry)}: is damaged: {reason}; {remedy}")


def _plain_schema(found: pa.Schema) -> pa.Schema:
    """Return the schema of a file without what only describes the file."""
    fields = []
    for own in found:
        metadata = {key: value for key, value in (own.metadata or {}).items() if key != _FIELD_ID}
        fields.append(own.with_metadata(metadata or None))
    return pa.schema(fields)


def result_of(config: Any, manifest: Mapping[str, Any]) -> RunResult:
    """Return the result of a job's run with these options and this manifest."""
    return RunResult(absolute(config.output), manifest, config.storage)


def stage_results(config: Any, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, RunResult]:
    """Return the results of the stages of a job by name; each is a folder of this name below the output."""
    storage = getattr(config, "storage", {})
    return {name: RunResult(join(absolute(config.output), name), made, storage) for name, made in manifests.items()}


def open_result(folder: str, storage: StorageOptions | None = None) -> RunResult:
    """Return the result of the finished run in a folder.

    Raises CappyError if the folder holds none, or a run that is unfinished or has failed.
    """
    storage, folder = storage or {}, absolute(folder)
    return RunResult(folder, load_manifest(folder, storage), storage)
