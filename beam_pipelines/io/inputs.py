"""Inputs of a job: their files, found and inspected once by the launcher, and the columns that these share."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile, widen
from beam_pipelines.io.formats.base import (
    UTF_8,
    AsWritten,
    Dialect,
    FileSummary,
    InputFile,
    ReadSpec,
    UnitWork,
    unit_rows_of,
)
from beam_pipelines.io.formats.registry import format_of
from beam_pipelines.io.later_files import check_fits, check_may_lack, is_new
from beam_pipelines.io.patterns import find
from beam_pipelines.io.resolve import NO_ROLES, Found, Roles, Unresolved, resolve
from beam_pipelines.io.storage import StorageOptions, explained, file_system
from schemas.carried import carried_field
from schemas.errors import CappyError

_LISTING_THREADS = 16
_END_BYTES = 64 * 1024


@dataclass(frozen=True)
class Input:
    """One input of a job.

    Args:
      files: its files, numbered in the order of their names.
      schema: the columns of all files that can be read, each with a type that holds the values of all files.
      bytes: uncompressed size.
      as_written: the text columns that hold values of other types, as their files have them (see `ReadSpec`).
      unusable: the reason for each column that `schema` lacks because it cannot be read.
      empty: the columns without a value in any file, as far as the files were inspected.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    bytes: int
    as_written: Mapping[str, AsWritten] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """Rows of all files, after any limit."""
        return sum(file.rows for file in self.files)

    def units(self, spec: ReadSpec) -> int:
        """Return the approximate number of units; there are more where rows are large or files compressed."""
        return sum(-(-file.rows // unit_rows_of(file, spec)) for file in self.files)

    @property
    def first_with_rows(self) -> InputFile:
        """The first file that has rows, or the first file if none has."""
        return next((file for file in self.files if file.rows), self.files[0])

    def check_usable(self, names: Collection[str] | None = None) -> None:
        """Raise UnreadableFile, with the reason, for a column of `names` (None: any) that cannot be read."""
        for name, reason in self.unusable.items():
            if names is None or name in names:
                raise UnreadableFile(reason)

    def read_spec(
        self, schema: pa.Schema, unit_rows: int, *, exact: bool = False, work: UnitWork | None = None
    ) -> ReadSpec:
        """Return how to read the columns of `schema`. Raises UnreadableFile for one that cannot be read."""
        self.check_usable(schema.names)
        as_written = {name: how for name, how in self.as_written.items() if name in schema.names}
        return ReadSpec(schema, unit_rows, exact, as_written, work)


@dataclass(frozen=True)
class Known:
    """The files that a run was last begun with, by name, in the order of their numbers.

    The `initial` first of them, those of its first launch, decide the columns of the run and their types.
    """

    names: tuple[str, ...] = ()
    initial: int = 0


NOTHING_KNOWN = Known()
"""A new run: its files decide together."""


def inspect(url: str, storage: StorageOptions, dialect: Dialect) -> FileSummary:
    """Return the columns, rows and uncompressed bytes of a file. Raises UnreadableFile for a damaged file."""
    try:
        return format_of(url).inspect(url, storage, dialect)
    except OSError as error:
        raise UnreadableFile(f"{url}: cannot be opened: {error.strerror or error}") from error


def open_input(
    patterns: Sequence[str],
    storage: StorageOptions,
    *,
    group: int = 0,
    first: int = 0,
    limit: int | None = None,
    dialect: Dialect = UTF_8,
    roles: Roles = NO_ROLES,
    outside: str | None = None,
    known: Known = NOTHING_KNOWN,
) -> Input:
    """Find and inspect the files of one input.

    Args:
      patterns: URLs with or without wildcards.
      storage: options for fsspec.
      group: index of this input among those of the job.
      first: number of the first file; the files are numbered in the order of their names, behind those that are known.
      limit: read only the first `limit` rows of each file; None for all.
      dialect: how text files are read.
      roles: the columns that the job needs as text, as numbers, or as values of templates.
      outside: an output folder; wildcards do not match the files below it.
      known: the files of the run that goes on. What later files lack is null; a column that its first files lack, or
        whose type does not hold the values of a later file, cannot be read.

    Raises CappyError if a pattern matches no file, if a file matches two patterns or is damaged, or if no file has a
    column. A column that cannot be read raises when it is asked for (see `Input.check_usable`).
    """
    names = _find(patterns, storage, outside)
    order = {name: number for number, name in enumerate(known.names)}
    urls = sorted(names, key=lambda url: (order.get(names[url], len(order)), names[url], url))
    for before, after in pairwise(urls):
        if names[before] == names[after]:
            raise CappyError(
                f"{before} and {after} have the same name {names[after]!r}; rename one, or start the pattern higher up"
            )
    with ThreadPoolExecutor(_LISTING_THREADS) as threads:
        summaries = list(threads.map(lambda url: inspect(url, storage, dialect), urls))
        sizes_and_ends = list(threads.map(lambda url: _size_and_ends(url, storage), urls))
    files = []
    for number, (url, summary, (size, ends)) in enumerate(zip(urls, summaries, sizes_and_ends, strict=True), first):
        rows = summary.rows if limit is None else min(limit, summary.rows)
        sizes = (rows * summary.bytes // max(1, summary.rows), _text_bytes(summary, rows, roles))
        files.append(InputFile(number, group, url, names[url], size, ends, rows, limit, storage, dialect, *sizes))
    share = sum(file.rows for file in files) / max(1, sum(summary.rows for summary in summaries))
    initial = len({*known.names[: known.initial]} & {*names.values()}) or len(urls)
    schema, as_written, unusable, empty = _columns(urls, summaries, roles, initial)
    unknown = [name for name in roles.text_columns if name not in (*schema.names, *unusable)]
    if unknown and not roles.templates:
        raise CappyError(f"--text-columns {unknown[0]}: there is no such column; there are {', '.join(schema.names)}")
    if not schema.names and not unusable:
        raise UnreadableFile(f"{', '.join(patterns)}: holds no rows, so its columns are unknown; give files with rows")
    size = int(share * sum(summary.bytes for summary in summaries))
    return Input(tuple(files), schema, size, as_written, unusable, empty)


def _find(patterns: Sequence[str], storage: StorageOptions, outside: str | None) -> dict[str, str]:
    """Return the URL and the name of every file that matches one of the patterns."""
    names: dict[str, str] = {}
    for pattern in patterns:
        matches = find(pattern, storage, outside=outside)
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


def _text_bytes(summary: FileSummary, rows: int, roles: Roles) -> dict[str, int]:
    """Return the uncompressed bytes of the first `rows` rows in the columns that are needed as text, where known."""
    known = {name: size for name, size in summary.column_bytes.items() if name in roles.text}
    return {name: rows * size // max(1, summary.rows) for name, size in known.items()}


def _columns(
    urls: Sequence[str], summaries: Sequence[FileSummary], roles: Roles, initial: int
) -> tuple[pa.Schema, dict[str, AsWritten], dict[str, str], frozenset[str]]:
    """Return the columns of all files in order of appearance, those read as written, the unusable and empty ones.

    The `initial` first files decide them.
    """
    found, unusable = _found(urls[:initial], summaries[:initial])
    later, unusable_later = _found(urls[initial:], summaries[initial:])
    unusable = {**unusable_later, **unusable}
    fields: list[pa.Field] = []
    as_written: dict[str, AsWritten] = {}
    for name, columns in found.items():
        if name in unusable:
            continue
        try:
            resolved, how = resolve(name, columns, roles)
            check_fits(name, (resolved, how), columns, later.get(name, ()), roles)
            carried = _carried(resolved, columns, everywhere=len(columns) == initial)
            having = {column.url for column in later.get(name, ())}
            check_may_lack(name, carried, [url for url in urls[initial:] if url not in having])
        except Unresolved as error:
            unusable[name] = str(error)
            continue
        fields.append(carried)
        if how is not None:
            as_written[name] = how
    unusable |= {name: is_new(name, later[name][0].url) for name in later if name not in (*found, *unusable)}
    everything = {name: [*columns, *later.get(name, ())] for name, columns in found.items()}
    empty = (name for name, columns in everything.items() if all(pa.types.is_null(c.field.type) for c in columns))
    return pa.schema(fields), as_written, unusable, frozenset(empty)


def _found(urls: Sequence[str], summaries: Sequence[FileSummary]) -> tuple[dict[str, list[Found]], dict[str, str]]:
    """Return the columns of files by name, as each has them, and the reasons for those that cannot be read."""
    found: dict[str, list[Found]] = {}
    unusable: dict[str, str] = {}
    for url, summary in zip(urls, summaries, strict=True):
        written = format_of(url).written_as
        for column in summary.schema:
            found.setdefault(column.name, []).append(Found(url, column, written, summary.mostly.get(column.name)))
        unusable = {**summary.unusable, **unusable}
    return found, unusable


def _carried(resolved: pa.Field, found: Sequence[Found], *, everywhere: bool) -> pa.Field:
    """Return the field that jobs carry; `everywhere` says whether all files have the column, which is null elsewhere.

    The name of an extension type remains if all files have it.
    """
    if not everywhere:
        resolved = resolved.with_type(widen(resolved.type, pa.null()))
    if any(not column.field.equals(resolved, check_metadata=True) for column in found):
        resolved = resolved.remove_metadata()
    return carried_field(resolved)
