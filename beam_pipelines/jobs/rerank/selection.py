"""The best candidates of the groups of a shard, from what was kept of each unit: ranked, written and counted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.jobs.rerank.reduction import (
    GROUP,
    best_of,
    dense_ranks,
    fixed_point,
    kept_schema,
    over_groups,
    part_schema,
    ranks,
)
from beam_pipelines.jobs.rerank.scored_rows import ScoredColumns
from beam_pipelines.transforms.rejects import write_rejects
from beam_pipelines.transforms.shuffle import gather, text_keys
from schemas.records import reject
from schemas.stats import FIXED_POINT, SAMPLES_PER_KEY, Stats, count_scores


class Groups(NamedTuple):
    """The whole groups of a shard, as columns of equal length n, in the order of their keys.

    `key` uint64[n] is a hash of the group, `candidates` int64[n] how many have a score, `first` float64[n] the score of
    the first of them, and `sum` int64[n] of all scores in `FIXED_POINT`. `measured` bool[n]: no score is too large for
    it. `mixed` bool[n]: the instructions differ. `source` and `at` say where the first candidate stands.
    """

    key: np.ndarray
    candidates: np.ndarray
    first: np.ndarray
    sum: np.ndarray
    measured: np.ndarray
    mixed: np.ndarray
    source: pa.Array
    at: pa.Array


def put_together(parts: pa.RecordBatch, ids: pa.Array) -> Groups:
    """The groups whose parts these are (rows of `part_schema`). `ids`: the group of each place in the result."""
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
    """What decides between equal scores, the most important first."""
    return dense_ranks(rows["order"]), *(rows[name].to_numpy() for name in ("file", "position", "item"))


def _ordered_groups(parts: pa.RecordBatch) -> pa.Array:
    """The distinct groups of a shard, by the hash that decided their shard."""
    ids = pc.unique(parts[GROUP])
    return ids.take(pa.array(np.lexsort((np.array(ids.to_pylist(), dtype="S32"), text_keys(ids)))))


class Selected(NamedTuple):
    """The selections of a shard, with their scores (float64[n]) and the places of their groups (int64[n]).

    And the groups themselves, and REJECT rows for those that are none.
    """

    rows: pa.RecordBatch
    score: np.ndarray
    group: np.ndarray
    groups: Groups
    rejects: list[dict[str, Any]]


def select(kept: pa.RecordBatch, parts: pa.RecordBatch, columns: ScoredColumns, top_k: int) -> Selected:
    """The `top_k` best of each group, as rows of `columns.output` ordered by (hash of the group, rank).

    `kept` are rows of `kept_schema` and `parts` rows of `part_schema`, in any order, of all units that hold any of
    these groups. A group whose candidates have different instructions is a reject.
    """
    ids = _ordered_groups(parts)
    groups = put_together(parts, ids)
    group, score = pc.index_in(kept[GROUP], ids).to_numpy(), kept["score"].to_numpy()
    best = best_of(group, score, _places(kept), top_k)
    mixed = groups.mixed[group[best]]
    wrong = best[mixed & (ranks(group[best]) == 1)]
    names = kept["row"].take(pa.array(wrong)).to_pylist()
    rejects = [_mixed(groups, *found, columns) for found in zip(group[wrong].tolist(), names, strict=True)]
    best = best[~mixed]
    rows = pa.RecordBatch.from_struct_array(kept["row"].take(pa.array(best)))
    arrays = dict(zip(rows.schema.names, rows.columns, strict=True))
    arrays["score"] = pa.array(score[best].astype(np.float32))
    arrays["rank"] = pa.array(ranks(group[best]).astype(np.int32))
    arrays["num_candidates"] = pa.array(groups.candidates[group[best]].astype(np.int32))
    rows = pa.RecordBatch.from_arrays([arrays[name] for name in columns.output.names], schema=columns.output)
    return Selected(rows, score[best], group[best], groups, rejects)


def _mixed(groups: Groups, group: int, best: dict[str, Any], columns: ScoredColumns) -> dict[str, Any]:
    name = columns.renamed.get(columns.group, columns.group)
    return reject(
        stage="select",
        reason="mixed_instructions",
        source=groups.source[group].as_py(),
        position=groups.at[group].as_py(),
        detail=f"the {groups.candidates[group]:,} candidates with {columns.group} {best[name]!r} have different "
        "instructions; --group-column names what tells groups apart",
        excerpt=best["instruction"],
    )


def count_selected(selected: Selected, stats: Stats) -> None:
    """Counts the groups and their candidates, and by size of group what choosing the best is worth; keeps samples."""
    groups, rows = selected.groups, selected.rows
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
        texts = {name: str(rows[name][index]) for name in ("instruction_id", "instruction", "response")}
        mean = float(groups.sum[group] / FIXED_POINT / groups.candidates[group])
        scores = {"score": float(selected.score[index]), "first": float(groups.first[group]), "mean": mean}
        row = {**texts, **scores, "num_candidates": int(groups.candidates[group])}
        stats.sample("selections", int(groups.key[group]), row)


def _count_gain(stats: Stats, groups: Groups, all_of_them: np.ndarray, measured: np.ndarray, best: np.ndarray) -> None:
    """By size of group, doubling from bucket to bucket: how many groups, and sums of scores over those `measured`."""
    size = groups.candidates[measured]
    sums = {
        "measured": np.ones(len(measured), dtype=np.int64),
        "best": fixed_point(best),
        "first": fixed_point(groups.first[measured]),
        "mean": groups.sum[measured] // size,
    }
    counted = [("groups", size_bucket(groups.candidates[all_of_them]), np.ones(len(all_of_them), dtype=np.int64))]
    counted += [(name, size_bucket(size), values) for name, values in sums.items()]
    for name, buckets, values in counted:
        totals = over_groups(np.add, values, buckets).tolist()
        for bucket, total in zip(np.unique(buckets).tolist(), totals, strict=True):
            stats.counts["gain", f"{bucket:02d}", name] += total


def size_bucket(sizes: np.ndarray) -> np.ndarray:
    """int64[n]: b for groups of more than 2**(b - 1) and at most 2**b candidates, 0 for those of one."""
    return np.frexp(sizes - 1)[1].astype(np.int64)


@dataclass
class SelectAndWrite(beam.PTransform):
    """(shard, slices) -> `shard-SSSSS-of-NNNNN.parquet`, the rejects of its groups, and its stats."""

    folder: OutputDir
    columns: ScoredColumns
    top_k: int
    shards: int

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return shards | "Select" >> beam.Map(self._select)

    def _select(self, element: tuple[int, Iterable[bytes]]) -> Stats:
        shard, slices = element
        kept, parts = gather(slices, kept_schema(self.columns), part_schema(self.columns))
        selected = select(kept, parts, self.columns, self.top_k)
        stats = Stats()
        count_selected(selected, stats)
        name = f"shard-{shard:05d}-of-{self.shards:05d}"
        stats.files.add(self.folder.write_parquet(f"{name}.parquet", [selected.rows], self.columns.output))
        return stats.add(write_rejects(self.folder, name, selected.rejects))
