"""Read the rows of input files, as the jobs do."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.units import Unit, list_reads, read_units


def units(pattern: str | Path, unit_rows: int = 7, limit: int | None = None, **flags: bool) -> Iterator[Unit]:
    source = open_input([str(pattern)], {}, limit=limit)
    for file in source.files:
        for read in list_reads(file, unit_rows):
            yield from read_units(read, source.read_spec(source.schema, unit_rows, **flags))


def good(found: list[Unit]) -> list[dict[str, Any]]:
    return [row for unit in found for row in unit.rows.to_pylist()]


def bad(found: list[Unit]) -> list[tuple[str, str]]:
    return [
        (f"{unit.file.name}{'@' if 'jsonl' in unit.file.name else '#'}{b.position}", b.reason)
        for unit in found
        for b in unit.bad
    ]


def compressed(data: bytes, ending: str) -> bytes:
    return {"": lambda d: d, ".gz": gzip.compress, ".zst": zstandard.compress}[ending](data)
