"""Pairs of the input for the check before a run: the same at each launch, and cheap however large the input is."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.formats.base import InputFile, ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.units import Read, list_reads, read_units
from schemas.errors import CappyError
from schemas.ids import seed_for, text_key

SAMPLED_ROWS = 4_096
"""Most rows that are read to pick pairs from."""

PAIR_CHARACTERS = 8_000
"""Each text of a picked pair is cut here: the pairs travel to the workers with the pipeline."""

_PLACES = 2  # of a file, few: up to a place in a row group of Parquet all of it is decoded
_FILES = 16
_ROWS = SAMPLED_ROWS // _PLACES


def pick_pairs(source: Input, instruction: str, response: str, count: int) -> list[tuple[str, str]]:
    """Pick at most `count` distinct (instruction, response) pairs of an input, each text cut to `PAIR_CHARACTERS`.

    They have the smallest hashes among the rows of `sample_rows`. A column of lists of responses gives a pair for each
    item. Null texts are skipped.
    """
    if not count:
        return []
    ranked = {text_key("\0".join(pair)): pair for pair in _pairs(source, instruction, response)}
    picked = [ranked[key] for key in heapq.nsmallest(count, ranked)]
    return [(a[:PAIR_CHARACTERS], b[:PAIR_CHARACTERS]) for a, b in picked]


def _pairs(source: Input, instruction: str, response: str) -> Iterator[tuple[str, str]]:
    for rows in sample_rows(source, (instruction, response)):
        first, second = rows[instruction], rows[response]
        if pa.types.is_list(second.type):
            first, second = first.take(pc.list_parent_indices(second)), pc.list_flatten(second)
        pairs = zip(first.to_pylist(), second.to_pylist(), strict=True)
        yield from (pair for pair in pairs if None not in pair)


def sample_rows(source: Input, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield at most `SAMPLED_ROWS` rows of hash-picked places of an input, with the given columns.

    The places depend on the names of the files and on how they are cut into reads, so they are the same at each
    launch. At most `_FILES` files are opened, and a unit of `_ROWS` rows is read at each place. Rows and places that
    cannot be read are skipped: the run reports them.
    """
    spec = source.read_spec(pa.schema([source.schema.field(name) for name in dict.fromkeys(columns)]), _ROWS)
    left = SAMPLED_ROWS
    for read in _places(source, spec):
        try:
            unit = next(iter(read_units(read, spec)), None)
        except CappyError:
            continue
        if unit is None:
            continue
        yield unit.rows.slice(0, left)
        left -= min(left, unit.rows.num_rows)
        if not left:
            return


def _places(source: Input, spec: ReadSpec) -> Iterator[Read]:
    """Yield the reads to sample: one of each file, then another one of each, in the order of their hashes."""
    filled = (file for file in source.files if file.rows)
    files = heapq.nsmallest(_FILES, filled, key=lambda file: seed_for(0, file.name))
    reads: dict[int, list[Read]] = {}
    for turn in range(_PLACES):
        for file in files:
            if file.number not in reads:
                reads[file.number] = _reads(file, spec)
            yield from islice(reads[file.number], turn, turn + 1)


def _reads(file: InputFile, spec: ReadSpec) -> list[Read]:
    try:
        reads = list_reads(file, spec)
        return heapq.nsmallest(_PLACES, reads, key=lambda read: seed_for(0, file.name, str(read.span.start)))
    except CappyError:
        return []
