"""The reduction of a unit of scored rows: the best of each group in it, and sums over the others."""

import numpy as np
import pyarrow as pa

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.rerank.scored_rows import Candidates, ScoredColumns, read_candidates
from beam_pipelines.transforms.candidates import (
    GROUP,
    GROUP_ID,
    LARGEST,
    best_of,
    dense_ranks,
    fixed_point,
    group_texts,
    over_groups,
)
from beam_pipelines.transforms.results import Result
from beam_pipelines.transforms.shuffle import text_keys
from schemas.ids import digest
from schemas.stats import Stats, count_scores


def kept_schema(columns: ScoredColumns) -> pa.Schema:
    """Return the schema of the candidates that are shuffled because they may be among the best.

    `group` is the digest of the group's value as text, so that keys of any type and length are alike.
    """
    return pa.schema(
        [
            *_places(columns),
            pa.field("score", pa.float64(), nullable=False),
            pa.field("row", pa.struct(list(columns.carried)), nullable=False),
        ]
    )


def part_schema(columns: ScoredColumns) -> pa.Schema:
    """Return the schema of the statistics that are shuffled of the part of a group that one unit holds.

    The place is that of the part's first candidate, which `source` and `at` name for reject records and `first` scores.
    `candidates` are counted, `sum` adds their scores in fixed point, `beyond` counts scores too large for that, and
    `lowest` and `highest` are hashes of the candidates' instructions, which differ if the instructions do.
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
    """Return the columns of a candidate's group and of its order among equal scores."""
    order = pa.int8() if columns.order is None else columns.schema.field(columns.order).type
    return [
        pa.field(GROUP, pa.string(), nullable=False),
        pa.field("order", order),
        pa.field("file", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
    ]


def reduce_unit(unit: Unit, columns: ScoredColumns, top_k: int) -> Result:
    """Keep the `top_k` best of each group in a unit, and statistics of the part of each group that the unit holds.

    The rows of the result are a chunk of `kept_schema` and one of `part_schema`; there are none if no candidate can be
    compared. Raises CappyError for a score that is NaN.
    """
    found, rejected = read_candidates(unit, columns)
    stats = Stats()
    stats.counts["rows",] += unit.rows.num_rows + len(unit.bad)
    stats.counts["candidates", "read"] += len(found.row) + rejected.candidates
    stats.counts["candidates", "rejected"] += rejected.candidates
    stats.counts["candidates", "unscored"] += rejected.unscored
    count_scores(stats, ("scores", "all"), found.score)
    chunks = _chunks(unit, columns, found, top_k) if len(found.row) else []
    return Result(f"part-{unit.name}", chunks, kept_schema(columns), rejected.rejects, stats)


def _chunks(unit: Unit, columns: ScoredColumns, found: Candidates, top_k: int) -> list[pa.RecordBatch]:
    """Return the chunks of `reduce_unit` for at least one candidate."""
    codes, values = _distinct(group_texts(unit.rows, columns.group))
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
    parts = [*place(first), *_statistics(unit, columns, found, group, first)]
    return [
        pa.RecordBatch.from_arrays(best, schema=kept_schema(columns)),
        pa.RecordBatch.from_arrays(parts, schema=part_schema(columns)),
    ]


def _distinct(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Return the index of each text among the distinct ones, int64[n], 0 for null; and the distinct ones."""
    encoded = texts.dictionary_encode()
    return encoded.indices.fill_null(0).to_numpy().astype(np.int64), encoded.dictionary


def _carried(rows: pa.RecordBatch, columns: ScoredColumns, found: Candidates, kept: np.ndarray) -> pa.StructArray:
    """Return the rows of the candidates at the positions `kept`, with the columns `carried`."""
    taken = rows.select([columns.instruction, *(n for n in rows.schema.names if n == GROUP_ID), *columns.others])
    taken = taken.take(pa.array(found.row[kept]))
    arrays = {**dict(zip(taken.schema.names, taken.columns, strict=True)), "instruction": taken[columns.instruction]}
    arrays["response"] = found.response.take(pa.array(kept))
    if GROUP_ID not in rows.schema.names:
        codes, texts = _distinct(arrays["instruction"])
        ids = pa.array([digest(text) for text in texts.to_pylist()], pa.string())
        arrays[GROUP_ID] = ids.take(pa.array(codes))
    return pa.StructArray.from_arrays([arrays[field.name] for field in columns.carried], fields=list(columns.carried))


def _statistics(
    unit: Unit, columns: ScoredColumns, found: Candidates, group: np.ndarray, first: np.ndarray
) -> list[pa.Array]:
    """Return the columns of `part_schema` after the place; `first` are positions of the groups' first candidates."""
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
