"""Read the rows of input files, as the jobs do."""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard

from beam_pipelines.io.formats.base import UnitWork
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.units import Unit, list_reads, read_units


def units(
    pattern: str | Path,
    unit_rows: int = 7,
    limit: int | None = None,
    *,
    exact: bool = False,
    work: UnitWork | None = None,
    **options: Any,
) -> Iterator[Unit]:
    source = open_input([str(pattern)], {}, limit=limit, **options)
    for file in source.files:
        spec = source.read_spec(source.schema, unit_rows, exact=exact, work=work)
        for read in list_reads(file, spec):
            yield from read_units(read, spec)


def good(found: list[Unit]) -> list[dict[str, Any]]:
    return [row for unit in found for row in unit.rows.to_pylist()]


def bad(found: list[Unit]) -> list[tuple[str, str]]:
    return [
        (f"{unit.file.name}{'@' if 'jsonl' in unit.file.name else '#'}{b.position}", b.reason)
        for unit in found
        for b in unit.bad
    ]


def compressed(data: bytes, ending: str) -> bytes:
    compress: dict[str, Callable[[bytes], bytes]] = {
        "": lambda plain: plain,
        ".gz": gzip.compress,
        ".zst": zstandard.compress,
        ".bz2": lambda plain: bz2.compress(plain, 1),  # in blocks of 100 kB
        ".xz": lambda plain: lzma.compress(plain, preset=0),
        ".lz4": _lz4,
    }
    return compress[ending.lower()](data)


def _lz4(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()
