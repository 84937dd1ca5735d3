"""Candidate rows (responses sampled from language models), read and checked for their way into a corpus."""

import json
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import join
from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.rejects import reject_at, unread, write_rejects
from schemas.errors import CappyError
from schemas.records import CANDIDATE
from schemas.stats import Stats

ORIGIN = "candidates"
"""What the sources of candidates start with, where those of rows start with their dataset."""

NEEDED = ("instruction_id", "instruction", "response", "generator", "decoding", "sample_index")
PLACED_CANDIDATE = pa.schema(
    [CANDIDATE.field(name) for name in NEEDED]
    + [pa.field("source", pa.string(), nullable=False), pa.field("position", pa.string(), nullable=False)]
)
"""What labelling needs of a candidate, and where it stood."""


def candidate_columns(found: pa.Schema, flag: str = "--candidates") -> pa.Schema:
    """The columns to read of the candidate files that `flag` names.

    Raises CappyError when some are missing, naming all of these and those there are, or when one is of another type.
    """
    missing = [name for name in NEEDED if name not in found.names]
    if missing:
        wanted = ", ".join(f"{name!r} ({CANDIDATE.field(name).type})" for name in missing)
        raise CappyError(f"{flag}: has no column {wanted}; there are {', '.join(found.names)}")
    for name in NEEDED:
        kind, wanted = found.field(name).type, CANDIDATE.field(name).type
        if not (kind.equals(wanted) or (pa.types.is_integer(kind) and pa.types.is_integer(wanted))):
            raise CappyError(f"{flag}: column {name!r} is {kind} and must be {wanted}")
    return pa.schema([found.field(name) for name in NEEDED])


class PlacedCandidates(NamedTuple):
    """The good candidates of a unit, its REJECT rows, and the unit's name."""

    name: str
    chunk: pa.RecordBatch
    rejects: list[dict[str, Any]]


def place_candidates(unit: Unit) -> PlacedCandidates:
    """The candidates of a unit with their places. Rows with a null in a needed column are rejects."""
    faults = _faults(unit.rows)
    rejects = unread(unit, origin=ORIGIN)
    for row, (reason, detail) in faults.items():
        excerpt = json.dumps(unit.rows.slice(row, 1).to_pylist()[0], ensure_ascii=False)
        position = int(unit.positions[row])
        rejects.append(
            reject_at(unit, position, origin=ORIGIN, stage="read", reason=reason, detail=detail, excerpt=excerpt)
        )
    good = pa.array(np.setdiff1d(np.arange(unit.rows.num_rows), list(faults)))
    positions = [unit.position(row) for row in range(unit.rows.num_rows)]
    source = join(ORIGIN, unit.file.name)
    arrays = [*unit.rows.columns, pa.array([source] * len(positions), pa.string()), pa.array(positions, pa.string())]
    chunk = pa.RecordBatch.from_arrays(arrays, PLACED_CANDIDATE.names).take(good)
    return PlacedCandidates(f"candidates-{unit.name}", chunk.cast(PLACED_CANDIDATE), rejects)


def _faults(rows: pa.RecordBatch) -> dict[int, tuple[str, str]]:
    """The rows that are no candidate, each with a reason and a detail."""
    faults: dict[int, tuple[str, str]] = {}
    index = rows["sample_index"].to_pylist()
    for row in [row for row, value in enumerate(index) if value is not None and not 0 <= value < 2**31]:
        faults[row] = ("does_not_fit", f"sample_index {index[row]} is not in [0, 2**31)")
    for name in rows.schema.names:
        for row in np.flatnonzero(pc.is_null(rows[name]).to_numpy(zero_copy_only=False)).tolist():
            faults[row] = ("null_value", f"null in {name}")
    return faults


@dataclass
class PlaceCandidates(beam.PTransform):
    """Units of candidate files -> (PLACED_CANDIDATE chunks; all_stats). Writes the rejects of each unit."""

    folder: OutputDir

    def expand(self, units: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        placed = units | "Place" >> beam.Map(place_candidates)
        return placed | "Chunks" >> beam.Map(operator.attrgetter("chunk")), placed | "Rejects" >> beam.Map(self._write)

    def _write(self, placed: PlacedCandidates) -> Stats:
        stats = write_rejects(self.folder, f"part-{placed.name}", placed.rejects)
        stats.counts["candidates", "read"] += placed.chunk.num_rows + len(placed.rejects)
        stats.counts["candidates", "rejected"] += len(placed.rejects)
        return stats
