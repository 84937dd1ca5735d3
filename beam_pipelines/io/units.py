"""Reads and units: how workers cut input files into chunks.

A read is the part of a file that one worker opens. It yields units, numbered by position. One unit is one chunk, one
element of a PCollection, and in a map job one output file.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.columns import UnreadableFile
from beam_pipelines.io.formats.base import BadRow, InputFile, ReadSpec, Span
from beam_pipelines.io.formats.registry import format_of
from beam_pipelines.io.work import cut_by_work


class Read(NamedTuple):
    """The part of a file that one worker opens; `number` is its position among the reads of the file."""

    file: InputFile
    number: int
    span: Span


class Unit(NamedTuple):
    """A chunk of source rows and its place in the input: the element of every map over inputs.

    Args:
      file: the file.
      read: number of the read in the file.
      number: number of the unit in the read.
      positions: int64, one per row: number of the row, or its byte offset in JSON Lines.
      rows: the rows that can be used, in the order of the file.
      bad: the rows that cannot.
    """

    file: InputFile
    read: int
    number: int
    positions: np.ndarray
    rows: pa.RecordBatch
    bad: list[BadRow]

    @property
    def name(self) -> str:
        """`FFFFF-RRRRR-UUUUU`: numbers of the file, the read and the unit."""
        return f"{self.file.number:05d}-{self.read:05d}-{self.number:05d}"

    def position(self, row: int) -> str:
        """Return the position of a row of the unit in its file, as `position_of`."""
        return position_of(self.file, int(self.positions[row]))


def position_of(file: InputFile, position: int) -> str:
    """Format the position of a row: `#` and its number, or `@` and its byte offset in JSON Lines."""
    return f"{format_of(file.url).position_mark}{position}"


def list_reads(file: InputFile, spec: ReadSpec) -> Iterator[Read]:
    """Yield the reads of a file in order. Raises UnreadableFile if this machine cannot open it."""
    with _explain_unreadable(file):
        for number, span in enumerate(format_of(file.url).spans(file, spec)):
            yield Read(file, number, span)


def read_units(read: Read, spec: ReadSpec) -> Iterator[Unit]:
    """Yield the units of a read in order. Raises UnreadableFile if this machine cannot open the file."""
    with _explain_unreadable(read.file):
        blocks = format_of(read.file.url).read(read.file, read.span, spec)
        cut = blocks if spec.work is None else cut_by_work(blocks, spec.work)
        for number, block in enumerate(cut):
            yield Unit(read.file, read.number, number, *block)


@contextmanager
def _explain_unreadable(file: InputFile) -> Iterator[None]:
    """Turn an OSError of a file that the launcher could open into an UnreadableFile that names this machine."""
    try:
        yield
    except OSError as error:
        raise UnreadableFile(
            f"{file.url}: cannot be read by the worker on {socket.gethostname()}: {error.strerror or error}. The "
            "command could: give files that all workers see, on a shared disk or an object store, and keep them there."
        ) from error
