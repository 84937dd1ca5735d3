"""Inputs: which files there are and what they hold (asked once, by the launcher), their reads and units (by workers).

A read is what one worker opens; it yields units, numbered by their place. One unit is one chunk, one element, and in a
map job one output file.
"""

import hashlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_pipelines.io.formats import delimited, json_lines, parquet
from beam_pipelines.io.formats.base import (
    BadRow,
    Facts,
    InputFile,
    Piece,
    Span,
    UnreadableFile,
    ReadSpec,
    fits,
    kind_of,
    nested_types,
)
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import StorageOptions, explained, file_system, find
from beam_pipelines.runs.release import check_release, this_release
from schemas.errors import CappyError

__all__ = [
    "Input",
    "Read",
    "ReadInputs",
    "Unit",
    "ReadSpec",
    "inspect",
    "kind_of",
    "list_reads",
    "open_input",
    "position_of",
    "read_units",
]

_LISTING_THREADS = 16
_END_BYTES = 64 * 1024
_MAX_DEPTH = 64  # of Arrow's IPC


class _Format(Protocol):
    """What the module of a format has."""

    def inspect(self, url: str, storage: StorageOptions) -> Facts:
        """Columns, rows and uncompressed bytes. Raises OSError, and UnreadableFile when it is no whole file."""

    def spans(self, file: InputFile, unit_rows: int) -> Iterator[Span]:
        """The parts that a file is read in, in order."""

    def read(self, file: InputFile, span: Span, wanted: ReadSpec) -> Iterator[Piece]:
        """The units of a span, projected to the wanted columns."""


_FORMATS: dict[str, _Format] = {"parquet": parquet, "jsonl": json_lines, "csv": delimited}


def inspect(url: str, storage: StorageOptions) -> Facts:
    """Columns, rows and uncompressed bytes of a file. Raises UnreadableFile when it is no whole file of its kind."""
    try:
        return _FORMATS[kind_of(url)[0]].inspect(url, storage)
    except OSError as error:
        raise UnreadableFile(f"{url}: cannot be opened: {error.strerror or error}") from error


@dataclass(frozen=True)
class Input:
    """One of a job's inputs: its files, and the columns that all of them have together."""

    files: tuple[InputFile, ...]
    schema: pa.Schema
    bytes: int

    @property
    def rows(self) -> int:
        """Rows of all files, after any limit."""
        return sum(file.rows for file in self.files)

    @property
    def first_with_rows(self) -> InputFile:
        """The first file that has rows; the first of all where none has."""
        return next((file for file in self.files if file.rows), self.files[0])


def open_input(
    patterns: Sequence[str], storage: StorageOptions, *, group: int = 0, first: int = 0, limit: int | None = None
) -> Input:
    """Finds and inspects the files of `patterns`; they are numbered from `first` in the order of their names.

    A CSV column that is empty in every file is text, as an empty field is.

    Raises CappyError when a pattern matches nothing, when a file matches two, when a file is broken, or when two files
    give a column different types, naming both.
    """
    named = _find(patterns, storage)
    urls = sorted(named, key=lambda url: (named[url], url))
    for before, after in pairwise(urls):
        if named[before] == named[after]:
            raise CappyError(f"{before} and {after} are both named {named[after]!r}, which must tell them apart")
    with ThreadPoolExecutor(_LISTING_THREADS) as threads:
        facts = list(threads.map(lambda url: inspect(url, storage), urls))
        sizes_and_ends = list(threads.map(lambda url: _size_and_ends(url, storage), urls))
    files = []
    for number, (url, fact, (size, ends)) in enumerate(zip(urls, facts, sizes_and_ends, strict=True), start=first):
        rows = fact.rows if limit is None else min(limit, fact.rows)
        files.append(InputFile(number, group, url, named[url], size, ends, rows, limit, storage))
    share = sum(f.rows for f in files) / max(1, sum(fact.rows for fact in facts))
    schema = _union(urls, facts)
    if any(kind_of(url)[0] == "csv" for url in urls):
        schema = pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in schema])
    return Input(tuple(files), schema, int(share * sum(fact.bytes for fact in facts)))


def _find(patterns: Sequence[str], storage: StorageOptions) -> dict[str, str]:
    """The files of all patterns: each URL and its name."""
    named: dict[str, str] = {}
    for pattern in patterns:
        found = find(pattern, storage)
        repeated = sorted(named.keys() & found.keys())
        if repeated:
            raise CappyError(
                f"{repeated[0]}: matches two patterns of {', '.join(patterns)}; its rows would count twice. "
                "Make one pattern narrower."
            )
        named.update(found)
    return named


def _size_and_ends(url: str, storage: StorageOptions) -> tuple[int, str]:
    """The size of a file, and a hash of its first and last 64 KB."""
    fs, path = file_system(url, storage)
    with explained(url, "read"):
        size = fs.size(path)
        ends = fs.read_block(path, 0, _END_BYTES) + fs.read_block(path, max(0, size - _END_BYTES), _END_BYTES)
    return size, hashlib.blake2b(ends, digest_size=16).hexdigest()


def _union(urls: list[str], facts: list[Facts]) -> pa.Schema:
    """The columns of all files; where two differ in the type of one, the type that holds the values of both."""
    union: dict[str, tuple[pa.Field, str]] = {}
    for url, fact in zip(urls, facts, strict=True):
        for field in fact.schema:
            _check_type(field, url)
            known, origin = union.setdefault(field.name, (field, url))
            if fits(field.type, known.type):
                continue
            if not fits(known.type, field.type):
                raise CappyError(
                    f"column {field.name!r} is {field.type} in {url} and {known.type} in {origin}; "
                    "files of one input must agree: convert one, or give them apart"
                )
            union[field.name] = (field, url)
    for field, url in union.values():
        if any(pa.types.is_struct(kind) and not kind.num_fields for kind, _ in nested_types(field.type)):
            raise CappyError(
                f"{url}: column {field.name!r} is {field.type}, with objects that are all empty, which Parquet cannot "
                f"hold; drop the column, or write null for {{}}"
            )
    return pa.schema([field for field, _ in union.values()])


def _check_type(field: pa.Field, url: str) -> None:
    """Raises UnreadableFile for a type that Arrow can make and not pass on."""
    for kind, depth in nested_types(field.type):
        if depth > _MAX_DEPTH:
            raise UnreadableFile(
                f"{url}: column {field.name!r} is nested more than {_MAX_DEPTH} levels deep; drop it or make it text"
            )
        names = [child.name for child in kind] if pa.types.is_struct(kind) else []
        if len(set(names)) < len(names):
            raise UnreadableFile(f"{url}: column {field.name!r} has a field twice: {', '.join(names)}; rename one")


class Read(NamedTuple):
    """What one worker opens: a span of a file, numbered by its place in the file."""

    file: InputFile
    number: int
    span: Span


class Unit(NamedTuple):
    """A chunk of source rows that knows where it stood: the element of every map over inputs."""

    file: InputFile
    read: int
    number: int
    positions: np.ndarray
    rows: pa.RecordBatch
    bad: list[BadRow]

    @property
    def name(self) -> str:
        """`FFFFF-RRRRR-UUUUU`: file, read and unit."""
        return f"{self.file.number:05d}-{self.read:05d}-{self.number:05d}"

    def position(self, row: int) -> str:
        """Where a row stands in its file: `#` and its number, or `@` and its byte for JSON Lines."""
        return position_of(self.file, int(self.positions[row]))


def position_of(file: InputFile, position: int) -> str:
    """`#` and the row's number, or `@` and the row's byte in JSON Lines."""
    return f"{'@' if kind_of(file.url)[0] == 'jsonl' else '#'}{position}"


def list_reads(file: InputFile, unit_rows: int) -> Iterator[Read]:
    """The reads of a file, in order. Raises UnreadableFile where this machine cannot open it."""
    with _seen_by_the_command(file):
        for number, span in enumerate(_FORMATS[kind_of(file.url)[0]].spans(file, unit_rows)):
            yield Read(file, number, span)


def read_units(read: Read, wanted: ReadSpec) -> Iterator[Unit]:
    """The units of a read, in order. Raises UnreadableFile where this machine cannot open the file."""
    with _seen_by_the_command(read.file):
        for number, piece in enumerate(_FORMATS[kind_of(read.file.url)[0]].read(read.file, read.span, wanted)):
            yield Unit(read.file, read.number, number, *piece)


@contextmanager
def _seen_by_the_command(file: InputFile) -> Iterator[None]:
    """For a worker that opens a file which the command has opened before it."""
    try:
        yield
    except OSError as error:
        raise UnreadableFile(
            f"{file.url}: cannot be read by the worker on {socket.gethostname()}: {error.strerror or error}. The "
            "command could: give files that all workers see, on a shared disk or an object store, and leave them there."
        ) from error


class _OnOurWorkers(beam.DoFn):
    """Gives what `work` makes of an element, on a worker that runs the submitter's code and can write its output."""

    def __init__(self, work: Callable[[Any], Iterable[Any]], folder: OutputDir) -> None:
        self._work, self._folder, self._release, self._checked = work, folder, this_release(), False

    def start_bundle(self) -> None:
        """Checks once. (In `setup` the error of a new worker is lost, for which Flink then waits three minutes.)"""
        if not self._checked:
            check_release(self._release)
            self._folder.check_usable()
            self._checked = True

    def process(self, element: Any) -> Iterable[Any]:
        return self._work(element)


@dataclass
class ReadInputs(beam.PTransform):
    """Files -> their units. `wanted` is indexed by the files' group.

    Refuses workers with other code than ours, and those that do not see the `folder` of the run, or cannot write there.
    """

    wanted: Sequence[ReadSpec]
    folder: OutputDir

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        wanted, folder = self.wanted, self.folder
        return (
            files
            | "ListReads"
            >> beam.ParDo(_OnOurWorkers(lambda file: list_reads(file, wanted[file.group].unit_rows), folder))
            | "Spread" >> beam.Reshuffle()
            | "ReadUnits" >> beam.ParDo(_OnOurWorkers(lambda read: read_units(read, wanted[read.file.group]), folder))
        )
