"""Candidates (responses sampled from language models): their columns checked, their rows prepared for the shuffle."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.storage import join
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.build_corpus.config import CANDIDATE_COLUMNS
from beam_pipelines.transforms.results import Result, reject_row, unreadable_rows
from schemas.errors import CappyError
from schemas.records import CANDIDATE
from schemas.stats import Stats
from schemas.values import excerpt_of

ORIGIN = "candidates"
"""Precedes the file in the `source` of a candidate's reject, as the dataset's label does in that of a source row."""

TEXTS_OF_CANDIDATES = ("instruction_id", "instruction", "response", "generator", "decoding", "references", "dataset")
"""The columns of candidates that are text, whatever their files call them."""

PLACED_CANDIDATE = pa.schema(
    [CANDIDATE.field(name) for name in CANDIDATE_COLUMNS]
    + [pa.field("source", pa.string(), nullable=False), pa.field("position", pa.string(), nullable=False)]
)
"""A candidate as it is shuffled: the columns that labelling needs, and its file and position for a reject."""


def candidate_columns(found: pa.Schema, flag: str = "--candidates") -> pa.Schema:
    """Return the columns to read from files of candidates with the schema `found`; `flag` named the files.

    Raises CappyError if columns are missing, naming all of them and the columns there are, or if one has another type.
    """
    missing = [name for name in CANDIDATE_COLUMNS if name not in found.names]
    if missing:
        required = ", ".join(f"{name!r} ({CANDIDATE.field(name).type})" for name in missing)
        raise CappyError(f"{flag}: has no column {required}; there are {', '.join(found.names)}")
    for name in CANDIDATE_COLUMNS:
        kind, required = found.field(name).type, CANDIDATE.field(name).type
        if not (kind.equals(required) or (pa.types.is_integer(kind) and pa.types.is_integer(required))):
            raise CappyError(f"{flag}: column {name!r} is {kind} and must be {required}")
    return pa.schema([found.field(name) for name in CANDIDATE_COLUMNS])


def place_candidates(unit: Unit) -> Result:
    """Return the candidates of a unit as one PLACED_CANDIDATE chunk; rows that are no candidate become rejects."""
    faults = _faults(unit.rows)
    rejects = unreadable_rows(unit, origin=ORIGIN)
    for row, (reason, detail) in faults.items():
        position, excerpt = int(unit.positions[row]), excerpt_of(unit.rows, row)
        rejects.append(
            reject_row(unit, position, origin=ORIGIN, stage="read", reason=reason, detail=detail, excerpt=excerpt)
        )
    good = pa.array(np.setdiff1d(np.arange(unit.rows.num_rows), list(faults)))
    positions = [unit.position(row) for row in range(unit.rows.num_rows)]
    source = join(ORIGIN, unit.file.name)
    arrays = [*unit.rows.columns, pa.array([source] * len(positions), pa.string()), pa.array(positions, pa.string())]
    chunk = pa.RecordBatch.from_arrays(arrays, PLACED_CANDIDATE.names).take(good).cast(PLACED_CANDIDATE)
    stats = Stats()
    stats.counts["candidates", "read"] += chunk.num_rows + len(rejects)
    stats.counts["candidates", "rejected"] += len(rejects)
    return Result(f"part-candidates-{unit.name}", [chunk], PLACED_CANDIDATE, rejects, stats)


def _faults(rows: pa.RecordBatch) -> dict[int, tuple[str, str]]:
    """Return the rows that are no candidate, with a reason and a detail: a value is null or out of range."""
    faults: dict[int, tuple[str, str]] = {}
    index = rows["sample_index"].to_pylist()
    for row in [row for row, value in enumerate(index) if value is not None and not 0 <= value < 2**31]:
        faults[row] = ("does_not_fit", f"sample_index {index[row]} is not in [0, 2**31)")
    for name in rows.schema.names:
        for row in np.flatnonzero(pc.is_null(rows[name]).to_numpy(zero_copy_only=False)).tolist():
            faults[row] = ("null_value", f"null in {name}")
    return faults
