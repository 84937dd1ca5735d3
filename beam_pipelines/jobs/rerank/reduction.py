"""A unit of scored rows -> the best of each group in it, and what it knows of the others: all that is shuffled."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.rerank.scored_rows import GROUP_ID, Candidates, ScoredColumns, read_candidates
from beam_pipelines.transforms.rejects import write_rejects
from beam_pipelines.transforms.shuffle import text_keys
from schemas.ids import digest
from schemas.stats import FIXED_POINT, Stats, count_scores

GROUP = "group"
LARGEST = float(2**20)
"""Groups with a score beyond this, up or down, are left out of means: their sums would not fit into 64 bits."""


def kept_schema(columns: ScoredColumns) -> pa.Schema:
    """What the shuffle carries of a candidate that may be among the best: its group, what it is compared by, its row.

    `group` is the digest of the group column's value as text, so that keys of any type and length are alike.
    """
    return pa.schema(
        [
            *_places(columns),
            pa.field("score", pa.float64(), nullable=False),
            pa.field("row", pa.struct(list(columns.carried)), nullable=False),
        ]
    )


def part_schema(columns: ScoredColumns) -> pa.Schema:
    """What the shuffle carries of the part of a group that one unit holds, whichever of its candidates are kept.

    The place is that of the part's first candidate, `source` and `at` say it in words; `lowest` and `highest` are
    hashes of the candidates' instructions, which differ when these do.
    """
    kinds = {
        "source": pa.string(),
        "at": pa.string(),
        "first": pa.float64(),
        "candidates": pa.int64(),
        "sum": pa.int64(),
        "beyond": pa.int64(),
        "lowest": pa.uint64(),
        "highest": pa.uint64(),
    }
    return pa.schema([*_places(columns), *(pa.field(name, kind, nullable=False) for name, kind in kinds.items())])


def _places(columns: ScoredColumns) -> list[pa.Field]:
    """The columns that say whose a candidate is, and its order among equal scores: `order`, file, position, item."""
    order = pa.int8() if columns.order is None else columns.schema.field(columns.order).type
    return [
        pa.field(GROUP, pa.string(), nullable=False),
        pa.field("order", order),
        pa.field("file", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
    ]


def best_of(group: np.ndarray, score: np.ndarray, places: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """int64[m]: the positions of the `limit` best of each group, ordered by group, then from the best on.

    `group` int64[n], `score` float[n]; of equal scores the smaller of `places` (arrays of length n, the most important
    first) is better, and of equal places the earlier position.
    """
    ordered = np.lexsort((*reversed(places), -score, group))
    return ordered[ranks(group[ordered]) <= limit]


def ranks(group: np.ndarray) -> np.ndarray:
    """int64[n]: each member's number in its group, from 1; equal values of `group` stand together."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(starts, append=len(group))
    return np.arange(len(group)) - np.repeat(starts, sizes) + 1


def over_groups(add: np.ufunc, values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The `values` of each group taken together, for the groups in ascending order."""
    ordered = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[ordered], prepend=-1))
    result: np.ndarray = add.reduceat(values[ordered], starts)
    return result


def dense_ranks(values: pa.Array) -> np.ndarray:
    """Dense ranks of the order column's values, ascending; nulls come last."""
    return np.asarray(pc.rank(values, tiebreaker="dense"))


class Reduced(NamedTuple):
    """What is left of a unit: its name, chunks of `kept_schema` and `part_schema`, REJECT rows, and its counts."""

    name: str
    chunks: list[pa.RecordBatch]
    rejects: list[dict[str, Any]]
    stats: Stats


def reduce_unit(unit: Unit, columns: ScoredColumns, top_k: int) -> Reduced:
    """The `top_k` best of each group in a unit, and what is known of the part of each group that it holds.

    Raises CappyError for a score that is NaN.
    """
    found, lost = read_candidates(unit, columns)
    stats = Stats()
    stats.counts["rows",] += unit.rows.num_rows + len(unit.bad)
    stats.counts["candidates", "read"] += len(found.row) + lost.candidates
    stats.counts["candidates", "rejected"] += lost.candidates
    stats.counts["candidates", "unscored"] += lost.unscored
    count_scores(stats, ("scores", "all"), found.score)
    chunks = _chunks(unit, columns, found, top_k) if len(found.row) else []
    return Reduced(f"part-{unit.name}", chunks, lost.rejects, stats)


def _chunks(unit: Unit, columns: ScoredColumns, found: Candidates, top_k: int) -> list[pa.RecordBatch]:
    codes, values = _distinct(unit.rows[columns.group].cast(pa.string()))
    present, group = np.unique(codes[found.row], return_inverse=True)
    ids = pa.array([digest(value) for value in values.take(pa.array(present)).to_pylist()], pa.string())
    order = pa.nulls(unit.rows.num_rows, pa.int8()) if columns.order is None else unit.rows[columns.order]
    places = [dense_ranks(order)[found.row]]

    def place(chosen: np.ndarray) -> list[pa.Array]:
        rows = found.row[chosen]
        file = pa.array(np.full(len(chosen), unit.file.number), pa.int64())
        taken = (ids.take(pa.array(group[chosen])), order.take(pa.array(rows)), file)
        return [*taken, pa.array(unit.positions[rows], pa.int64()), pa.array(found.item[chosen])]

    kept = best_of(group, found.score, places, top_k)
    rows = _carried(unit.rows, columns, found, kept)
    best = [*place(kept), pa.array(found.score[kept]), rows]
    first = best_of(group, np.zeros(len(group)), places, 1)
    parts = [*place(first), *_known(unit, columns, found, group, first)]
    return [
        pa.RecordBatch.from_arrays(best, schema=kept_schema(columns)),
        pa.RecordBatch.from_arrays(parts, schema=part_schema(columns)),
    ]


def _distinct(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """int64[n], the place of each text among the distinct ones (0 for null); and these."""
    encoded = texts.dictionary_encode()
    return encoded.indices.fill_null(0).to_numpy().astype(np.int64), encoded.dictionary


def _carried(rows: pa.RecordBatch, columns: ScoredColumns, found: Candidates, kept: np.ndarray) -> pa.StructArray:
    """The rows of the candidates at the positions `kept`, as a selection has them."""
    taken = rows.select([columns.instruction, *(n for n in rows.schema.names if n == GROUP_ID), *columns.others])
    taken = taken.take(pa.array(found.row[kept]))
    arrays = {**dict(zip(taken.schema.names, taken.columns, strict=True)), "instruction": taken[columns.instruction]}
    arrays["response"] = found.response.take(pa.array(kept))
    if GROUP_ID not in rows.schema.names:
        codes, texts = _distinct(arrays["instruction"])
        ids = pa.array([digest(text) for text in texts.to_pylist()], pa.string())
        arrays[GROUP_ID] = ids.take(pa.array(codes))
    return pa.StructArray.from_arrays([arrays[field.name] for field in columns.carried], fields=list(columns.carried))


def _known(
    unit: Unit, columns: ScoredColumns, found: Candidates, group: np.ndarray, first: np.ndarray
) -> list[pa.Array]:
    """The columns of `part_schema` beside the place; `first` are the positions of the groups' first candidates."""
    at = [unit.position(row) for row in found.row[first].tolist()]
    beyond = np.abs(found.score) > LARGEST
    codes, texts = _distinct(unit.rows[columns.instruction])
    hashes = text_keys(texts)[codes[found.row]]
    return [
        pa.array([unit.file.name] * len(first), pa.string()),
        pa.array(at, pa.string()),
        pa.array(found.score[first]),
        pa.array(over_groups(np.add, np.ones(len(group), dtype=np.int64), group)),
        pa.array(over_groups(np.add, fixed_point(np.where(beyond, 0, found.score)), group)),
        pa.array(over_groups(np.add, beyond.astype(np.int64), group)),
        pa.array(over_groups(np.minimum, hashes, group)),
        pa.array(over_groups(np.maximum, hashes, group)),
    ]


def fixed_point(scores: np.ndarray) -> np.ndarray:
    """int64[n]: scores, which are not beyond `LARGEST`, in units of 1 / 2**20."""
    return np.rint(scores * FIXED_POINT).astype(np.int64)


@dataclass
class KeepBestOfUnits(beam.PTransform):
    """Units of scored rows -> (chunks of `kept_schema` and `part_schema`; all_stats). Writes the rejects of each unit."""

    folder: OutputDir
    columns: ScoredColumns
    top_k: int

    def expand(self, units: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        reduced = units | "Reduce" >> beam.Map(reduce_unit, self.columns, self.top_k)
        chunks = reduced | "Chunks" >> beam.FlatMap(operator.attrgetter("chunks"))
        return chunks, reduced | "Rejects" >> beam.Map(self._write)

    def _write(self, reduced: Reduced) -> Stats:
        return Stats().add(reduced.stats).add(write_rejects(self.folder, reduced.name, reduced.rejects))
