"""Inputs of a job: their files, found and inspected once by the launcher, and the schema that these share."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile, fits, nested_types
from beam_pipelines.io.formats.base import FileSummary, InputFile
from beam_pipelines.io.formats.registry import format_of
from beam_pipelines.io.storage import StorageOptions, explained, file_system, find
from schemas.errors import CappyError

_LISTING_THREADS = 16
_END_BYTES = 64 * 1024
_MAX_DEPTH = 64  # of Arrow's IPC


@dataclass(frozen=True)
class Input:
    """One input of a job: its files, the union of their schemas, and their uncompressed size in bytes."""

    files: tuple[InputFile, ...]
    schema: pa.Schema
    bytes: int

    @property
    def rows(self) -> int:
        """Rows of all files, after any limit."""
        return sum(file.rows for file in self.files)

    def units(self, unit_rows: int) -> int:
        """Return the approximate number of units; there are more where rows are large or files compressed."""
        return sum(-(-file.rows // unit_rows) for file in self.files)

    @property
    def first_with_rows(self) -> InputFile:
        """The first file that has rows, or the first file if none has."""
        return next((file for file in self.files if file.rows), self.files[0])


def inspect(url: str, storage: StorageOptions) -> FileSummary:
    """Return the schema, rows and uncompressed bytes of a file. Raises UnreadableFile for a damaged file."""
    try:
        return format_of(url).inspect(url, storage)
    except OSError as error:
        raise UnreadableFile(f"{url}: cannot be opened: {error.strerror or error}") from error


def open_input(
    patterns: Sequence[str], storage: StorageOptions, *, group: int = 0, first: int = 0, limit: int | None = None
) -> Input:
    """Find and inspect the files of one input.

    Args:
      patterns: URLs with or without wildcards.
      storage: options for fsspec.
      group: index of this input among those of the job.
      first: number of the first file; the files are numbered in the order of their names.
      limit: read only the first `limit` rows of each file; None for all.

    Raises CappyError if a pattern matches no file, if a file matches two patterns or is damaged, or if two files give a
    column types of which neither holds the other's values.
    """
    names = _find(patterns, storage)
    urls = sorted(names, key=lambda url: (names[url], url))
    for before, after in pairwise(urls):
        if names[before] == names[after]:
            raise CappyError(
                f"{before} and {after} have the same name {names[after]!r}; rename one, or start the pattern higher up"
            )
    with ThreadPoolExecutor(_LISTING_THREADS) as threads:
        summaries = list(threads.map(lambda url: inspect(url, storage), urls))
        sizes_and_ends = list(threads.map(lambda url: _size_and_ends(url, storage), urls))
    files = []
    for number, (url, summary, (size, ends)) in enumerate(zip(urls, summaries, sizes_and_ends, strict=True), first):
        rows = summary.rows if limit is None else min(limit, summary.rows)
        files.append(InputFile(number, group, url, names[url], size, ends, rows, limit, storage))
    share = sum(file.rows for file in files) / max(1, sum(summary.rows for summary in summaries))
    schema = _union(urls, summaries)
    if any(format_of(url).empty_as_text for url in urls):
        schema = pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in schema])
    return Input(tuple(files), schema, int(share * sum(summary.bytes for summary in summaries)))


def _find(patterns: Sequence[str], storage: StorageOptions) -> dict[str, str]:
    """Return the URL and the name of every file that matches one of the patterns."""
    names: dict[str, str] = {}
    for pattern in patterns:
        matches = find(pattern, storage)
        repeated = sorted(names.keys() & matches.keys())
        if repeated:
            raise CappyError(
                f"{repeated[0]}: matches two patterns of {', '.join(patterns)}; its rows would count twice. "
                "Make one pattern narrower."
            )
        names.update(matches)
    return names


def _size_and_ends(url: str, storage: StorageOptions) -> tuple[int, str]:
    """Return the size of a file in bytes, and a hash of its first and last 64 KB."""
    fs, path = file_system(url, storage)
    with explained(url, "read"):
        size = fs.size(path)
        ends = fs.read_block(path, 0, _END_BYTES) + fs.read_block(path, max(0, size - _END_BYTES), _END_BYTES)
    return size, hashlib.blake2b(ends, digest_size=16).hexdigest()


def _union(urls: list[str], summaries: list[FileSummary]) -> pa.Schema:
    """Return the columns of all files, each with the widest of its types.

    Raises CappyError, naming both files, for two types of which neither fits the other.
    """
    union: dict[str, tuple[pa.Field, str]] = {}
    for url, summary in zip(urls, summaries, strict=True):
        for field in summary.schema:
            _check_type(field, url)
            widest, origin = union.setdefault(field.name, (field, url))
            if fits(field.type, widest.type):
                continue
            if not fits(widest.type, field.type):
                raise CappyError(
                    f"column {field.name!r} is {field.type} in {url} and {widest.type} in {origin}; "
                    "files of one input must agree: convert one, or pass them in separate runs"
                )
            union[field.name] = (field, url)
    for field, url in union.values():
        if any(pa.types.is_struct(kind) and not kind.num_fields for kind, _ in nested_types(field.type)):
            raise CappyError(
                f"{url}: column {field.name!r} is {field.type}: all its objects are empty, which Parquet cannot store; "
                "drop the column, or write null for {}"
            )
    return pa.schema([field for field, _ in union.values()])


def _check_type(field: pa.Field, url: str) -> None:
    """Raise UnreadableFile for a type that Arrow can build but not serialize."""
    for kind, depth in nested_types(field.type):
        if depth > _MAX_DEPTH:
            raise UnreadableFile(
                f"{url}: column {field.name!r} is nested more than {_MAX_DEPTH} levels deep; drop it or make it text"
            )
        names = [child.name for child in kind] if pa.types.is_struct(kind) else []
        if len(set(names)) < len(names):
            raise UnreadableFile(f"{url}: column {field.name!r} has a duplicate field: {', '.join(names)}; rename one")
