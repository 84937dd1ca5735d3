"""The best candidates of the groups of a shard: selected from the reduced units, ranked and counted."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.jobs.rerank.scored_rows import ScoredColumns
from beam_pipelines.transforms.candidates import GROUP, best_of, dense_ranks, fixed_point, over_groups, ranks
from beam_pipelines.transforms.results import Result
from beam_pipelines.transforms.shuffle import text_keys
from schemas.records import reject
from schemas.stats import FIXED_POINT, SAMPLES_PER_KEY, Stats, count_scores
from schemas.values import python_columns


class Groups(NamedTuple):
    """The n whole groups of a shard as columns, in the order of their keys.

    Args:
      key: uint64[n], hash of the group.
      candidates: int64[n], number of candidates with a score.
      first: float64[n], score of the first candidate.
      sum: int64[n], sum of the scores in fixed point.
      measured: bool[n], whether every score is small enough for `sum`.
      mixed: bool[n], whether the instructions differ.
      source: file of the first candidate.
      at: position of the first candidate in it.
    """

    key: np.ndarray
    candidates: np.ndarray
    first: np.ndarray
    sum: np.ndarray
    measured: np.ndarray
    mixed: np.ndarray
    source: pa.Array
    at: pa.Array


def combine_parts(parts: pa.RecordBatch, ids: pa.Array) -> Groups:
    """Combine the parts (rows of `part_schema`) of the groups `ids`, which are in the order of the result."""
    group = pc.index_in(parts[GROUP], ids).to_numpy()
    first = best_of(group, np.zeros(len(group)), _places(parts), 1)
    columns = {name: parts[name].to_numpy() for name in ("candidates", "sum", "beyond", "lowest", "highest")}
    total = {name: over_groups(np.add, columns[name], group) for name in ("candidates", "sum", "beyond")}
    lowest = over_groups(np.minimum, columns["lowest"], group)
    highest = over_groups(np.maximum, columns["highest"], group)
    firsts = parts.take(pa.array(first))
    return Groups(
        text_keys(ids),
        total["candidates"],
        firsts["first"].to_numpy(),
        total["sum"],
        total["beyond"] == 0,
        lowest != highest,
        firsts["source"],
        firsts["at"],
    )


def _places(rows: pa.RecordBatch) -> tuple[np.ndarray, ...]:
    """Return the columns that break ties, the most important first."""
    return dense_ranks(rows["order"]), *(rows[name].to_numpy() for name in ("file", "position", "item"))


def _ordered_groups(parts: pa.RecordBatch) -> pa.Array:
    """Return the distinct groups of a shard, ordered by the hash that decided their shard."""
    ids = pc.unique(parts[GROUP])
    return ids.take(pa.array(np.lexsort((np.array(ids.to_pylist(), dtype="S32"), text_keys(ids)))))


class Selected(NamedTuple):
    """The m selections of a shard as rows of `ScoredColumns.output`, and all its groups.

    `score` float64[m] and `group` int64[m], the index in `groups`, are columns of the selections. `rejects` are the
    reject records of the groups with mixed instructions.
    """

    rows: pa.RecordBatch
    score: np.ndarray
    group: np.ndarray
    groups: Groups
    rejects: list[dict[str, Any]]


def select(kept: pa.RecordBatch, parts: pa.RecordBatch, columns: ScoredColumns, top_k: int) -> Selected:
    """Select the `top_k` best of each group, ordered by (hash of the group, rank).

    `kept` (rows of `kept_schema`) and `parts` (rows of `part_schema`) are those of all units that hold these groups, in
    any order. A group whose candidates have different instructions is a reject.
    """
    ids = _ordered_groups(parts)
    groups = combine_parts(parts, ids)
    group, score = pc.index_in(kept[GROUP], ids).to_numpy(), kept["score"].to_numpy()
    best = best_of(group, score, _places(kept), top_k)
    mixed = groups.mixed[group[best]]
    wrong = best[mixed & (ranks(group[best]) == 1)]
    shown = pa.RecordBatch.from_struct_array(kept["row"].take(pa.array(wrong)))
    values, instructions = python_columns(shown.select([columns.written_group, "instruction"]))
    named = zip(group[wrong].tolist(), values, instructions, strict=True)
    rejects = [_reject_mixed(groups, *found, columns) for found in named]
    best = best[~mixed]
    rows = pa.RecordBatch.from_struct_array(kept["row"].take(pa.array(best)))
    arrays = dict(zip(rows.schema.names, rows.columns, strict=True))
    arrays[columns.score] = pa.array(score[best].astype(np.float32))
    arrays["rank"] = pa.array(ranks(group[best]).astype(np.int32))
    arrays["num_candidates"] = pa.array(groups.candidates[group[best]].astype(np.int32))
    rows = pa.RecordBatch.from_arrays([arrays[name] for name in columns.output.names], schema=columns.output)
    return Selected(rows, score[best], group[best], groups, rejects)


def _reject_mixed(groups: Groups, group: int, value: Any, instruction: Any, columns: ScoredColumns) -> dict[str, Any]:
    """Return the reject record of a group with mixed instructions; `instruction` is that of its best candidate."""
    return reject(
        stage="select",
        reason="mixed_instructions",
        source=groups.source[group].as_py(),
        position=groups.at[group].as_py(),
        detail=f"the {groups.candidates[group]:,} candidates with {columns.group} {value!r} have different "
        "instructions; --group-column names what tells groups apart",
        excerpt=instruction,
    )


def count_selected(selected: Selected) -> Stats:
    """Count the groups and their candidates, and the gain of the best by size of group; sample selections."""
    groups, rows, stats = selected.groups, selected.rows, Stats()
    stats.counts["groups",] += int((~groups.mixed).sum())
    stats.counts["selected",] += rows.num_rows
    for outcome, which in (("compared", ~groups.mixed), ("rejected", groups.mixed)):
        stats.counts["candidates", outcome] += int(groups.candidates[which].sum())
    winners = np.flatnonzero(rows["rank"].to_numpy() == 1)
    count_scores(stats, ("scores", "best"), selected.score[winners])
    measured = winners[groups.measured[selected.group[winners]]]
    _count_gain(stats, groups, selected.group[winners], selected.group[measured], selected.score[measured])
    for index in measured[:SAMPLES_PER_KEY].tolist():
        group = selected.group[index]
        names = ["instruction_id", "instruction", "response"]
        found = python_columns(rows.slice(index, 1).select(names))
        texts = {name: str(value) for name, (value,) in zip(names, found, strict=True)}
        mean = float(groups.sum[group] / FIXED_POINT / groups.candidates[group])
        scores = {"score": float(selected.score[index]), "first": float(groups.first[group]), "mean": mean}
        row = {**texts, **scores, "num_candidates": int(groups.candidates[group])}
        stats.sample("selections", int(groups.key[group]), row)
    return stats


def _count_gain(stats: Stats, groups: Groups, selected: np.ndarray, measured: np.ndarray, best: np.ndarray) -> None:
    """Count by size of group: all `selected` groups, and sums of scores over the `measured` ones with `best` scores."""
    size = groups.candidates[measured]
    sums = {
        "measured": np.ones(len(measured), dtype=np.int64),
        "best": fixed_point(best),
        "first": fixed_point(groups.first[measured]),
        "mean": groups.sum[measured] // size,
    }
    counted = [("groups", size_bucket(groups.candidates[selected]), np.ones(len(selected), dtype=np.int64))]
    counted += [(name, size_bucket(size), values) for name, values in sums.items()]
    for name, buckets, values in counted:
        totals = over_groups(np.add, values, buckets).tolist()
        for bucket, total in zip(np.unique(buckets).tolist(), totals, strict=True):
            stats.counts["gain", f"{bucket:02d}", name] += total


def size_bucket(sizes: np.ndarray) -> np.ndarray:
    """Return the bucket of each group size, int64[n]: b for 2**(b - 1) < size <= 2**b, 0 for size 1."""
    return np.frexp(sizes - 1)[1].astype(np.int64)


def select_shard(
    name: str, kept: pa.RecordBatch, parts: pa.RecordBatch, *, columns: ScoredColumns, top_k: int
) -> Result:
    """Return the selections, rejects and statistics of a shard (see `select`)."""
    selected = select(kept, parts, columns, top_k)
    return Result(name, [selected.rows], columns.output, selected.rejects, count_selected(selected))
