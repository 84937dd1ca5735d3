"""The examples of a shard, one row each: the value of each method's choice, or the measures of its order."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.jobs.evaluate.columns import EvaluatedColumns
from beam_pipelines.jobs.evaluate.config import CLASSIFICATION, GENERATION, RANKING
from beam_pipelines.transforms.candidates import GROUP, best_of, fixed_point, over_groups, ranks
from beam_pipelines.transforms.results import Result
from cappy_model.metrics.evaluation import ORACLE, RANDOM
from cappy_model.metrics.measures import WITHIN, measure_groups
from cappy_model.metrics.ranking import RankedGroups, expected_best
from schemas.records import reject
from schemas.stats import Stats, count_scores, score_bins

_FIRST = pa.list_(pa.struct({"generator": pa.string(), "decoding": pa.string(), "value": pa.float64()}))
_NUMBERS = pa.list_(pa.float64())


def choosers(columns: EvaluatedColumns) -> list[str]:
    """Return the methods that choose by scores, and the oracle, which chooses by value."""
    return [*columns.methods, ORACLE]


def curve_of(method: str) -> str:
    """Return the column of the expected values of a method's choice among 1, 2, 4, ... random candidates."""
    return f"{method} curve"


def scores_of(method: str) -> str:
    """Return the column of the scores that `method` gives the candidates of an example."""
    return f"{method} scores"


def example_schema(columns: EvaluatedColumns) -> pa.Schema:
    """Return the schema of an example, as the last step takes it.

    For generation and classification: the value of each method's choice, curves, `first` (the value of the first sample
    of each language model and decoding), and `right`, the digest of the right choice. For ranking: the measures of each
    method, and the `labels` and scores of all candidates, for the measures over all of them.
    """
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("dataset", "group", "example")]
    fields += [pa.field("template", pa.string()), pa.field("candidates", pa.int64(), nullable=False)]
    if columns.task == RANKING:
        fields += [
            pa.field(f"{method} {measure}", pa.float64()) for method in (*columns.methods, RANDOM) for measure in WITHIN
        ]
        fields += [pa.field(name, _NUMBERS) for name in ("labels", *map(scores_of, columns.methods))]
        return pa.schema(fields)
    fields += [pa.field(method, pa.float64()) for method in (*columns.methods, RANDOM, ORACLE)]
    fields += [pa.field(curve_of(method), _NUMBERS) for method in choosers(columns)]
    return pa.schema([*fields, pa.field("first", _FIRST), pa.field("right", pa.string())])


class _Grouped(NamedTuple):
    """Candidates by group: `group` int64[n], from 0 on without a gap; `rows` of `measured_schema`."""

    group: np.ndarray
    rows: pa.RecordBatch

    @property
    def groups(self) -> int:
        """The number of examples."""
        return int(self.group[-1]) + 1 if len(self.group) else 0

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as float64[n], NaN for null."""
        found: np.ndarray = self.rows[name].to_numpy(zero_copy_only=False).astype(np.float64)
        return found

    def select(self, which: np.ndarray) -> "_Grouped":
        """Return the candidates where bool[n] `which` is true, with their groups renumbered."""
        positions = np.flatnonzero(which)
        group = np.unique(self.group[positions], return_inverse=True)[1]
        return _Grouped(group.astype(np.int64), self.rows.take(pa.array(positions)))

    @property
    def first(self) -> np.ndarray:
        """The position of each group's first candidate, int64[g]."""
        return np.flatnonzero(np.diff(self.group, prepend=-1))


def evaluate_examples(name: str, measured: pa.RecordBatch, *, columns: EvaluatedColumns) -> Result:
    """Return the examples of the shard `name`, as rows of `example_schema`.

    `measured` are rows of `measured_schema`, in any order. An example is a reject if its candidates differ in their
    instructions or references, if equal responses have different labels, or if a scorer scores none of them.
    """
    stats, found = Stats(), _in_order(measured)
    faults = _faults(found, columns)
    rejects = [_reject(found, *fault) for fault in faults.items()]
    bad = np.isin(found.group, list(faults))
    found = found.select(~bad)
    stats.counts["candidates", "rejected"] += int(bad.sum())
    stats.counts["candidates", "evaluated"] += len(found.group)
    stats.counts["examples", "rejected"] += len(rejects)
    stats.counts["examples", "evaluated"] += found.groups
    for method, column in columns.methods.items():
        stats.counts["unscored", column] += int(np.isnan(found.numbers(method)).sum())
    arrays = _ordered_by(found, columns, stats) if columns.task == RANKING else _chosen_by(found, columns, stats)
    firsts = found.rows.take(pa.array(found.first))
    sizes = np.bincount(found.group, minlength=found.groups)
    arrays |= {column: firsts[column] for column in ("dataset", "example", "template")} | {"group": firsts["name"]}
    arrays = {"candidates": pa.array(sizes, pa.int64()), **arrays}
    schema = example_schema(columns)
    rows = pa.RecordBatch.from_arrays([arrays[field.name].cast(field.type) for field in schema], schema=schema)
    return Result(name, [rows], schema, rejects, stats)


def _in_order(measured: pa.RecordBatch) -> _Grouped:
    """Sort candidates by group, then by position in the input."""
    group = np.unique(np.array(measured[GROUP].to_pylist(), dtype="S32"), return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((*(measured[name].to_numpy() for name in ("item", "position", "file")), group))
    return _Grouped(group[order], measured.take(pa.array(order)))


def _faults(found: _Grouped, columns: EvaluatedColumns) -> dict[int, tuple[str, str]]:
    """Return the reason and the detail of each group that cannot be evaluated."""
    faults: dict[int, tuple[str, str]] = {}
    if not found.groups:
        return faults
    for method in columns.scorers:
        scored = over_groups(np.add, (~np.isnan(found.numbers(method))).astype(np.int64), found.group)
        for group in np.flatnonzero(scored == 0).tolist():
            faults[group] = ("unscored", f"no candidate has a {columns.methods[method]}")
    if columns.task == CLASSIFICATION:
        texts, first = _texts(found)
        different = found.numbers("value") != found.numbers("value")[first][texts]
        for group in np.unique(found.group[different]).tolist():
            faults[group] = ("mixed_labels", "equal responses have different labels")
    mixed = {"references": "have different references", "instruction": "have different instructions"}
    for name, what in mixed.items():
        hashes = found.rows[name].to_numpy()
        differ = over_groups(np.minimum, hashes, found.group) != over_groups(np.maximum, hashes, found.group)
        reason = "mixed_instructions" if name == "instruction" else "mixed_references"
        for group in np.flatnonzero(differ).tolist():
            faults[group] = (reason, f"candidates {what}; --group-column names what tells groups apart")
    return faults


def _reject(found: _Grouped, group: int, fault: tuple[str, str]) -> dict[str, Any]:
    """Return the reject record of a group, at its first candidate."""
    reason, detail = fault
    first = found.rows.slice(int(found.first[group]), 1).to_pylist()[0]
    count = int((found.group == group).sum())
    return reject(
        stage="evaluate",
        reason=reason,
        source=first["source"],
        position=first["at"],
        detail=f"group {first['name']!r} of {count:,}: {detail}",
        excerpt=None,
    )


def _texts(found: _Grouped) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each candidate's text, int64[n], and the first position of each of the d texts, int64[d].

    Equal texts of one group have one number; texts are numbered in the order of the candidates.
    """
    codes = found.rows["text"].dictionary_encode()
    keys = found.group * max(1, len(codes.dictionary)) + codes.indices.to_numpy()
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[number], first[order]


def _chosen_by(found: _Grouped, columns: EvaluatedColumns, stats: Stats) -> dict[str, pa.Array]:
    """Return the columns of choices. Equal texts are one candidate, with the first score that any of them has."""
    texts, first = _texts(found)
    group, value = found.group[first], found.numbers("value")[first]
    stats.counts["candidates", "duplicates"] += len(texts) - len(first)
    scores = {method: _first_known(found.numbers(method), texts, len(first)) for method in columns.methods}
    for method in columns.scorers:
        _count_reliability(stats, columns.methods[method], scores[method], value)
    arrays: dict[str, pa.Array] = {"candidates": pa.array(np.bincount(group, minlength=found.groups), pa.int64())}
    for method, score in {**scores, ORACLE: value}.items():
        chosen, curves = _choose(group, score, value, found.groups)
        arrays[method] = pa.array(chosen, from_pandas=True)
        arrays[curve_of(method)] = pa.array(curves if columns.task == GENERATION else [None] * found.groups, _NUMBERS)
    sums, counts = (np.bincount(group, weights, minlength=found.groups) for weights in (value, None))
    arrays[RANDOM] = pa.array(sums / counts)
    arrays["first"] = pa.array(_first_samples(found), _FIRST)
    right = np.full(found.groups, None, dtype=object)
    if columns.task == CLASSIFICATION:
        correct = np.flatnonzero(value == 1)[::-1]  # the first of several is assigned last
        right[group[correct]] = found.rows["text"].take(pa.array(first[correct])).to_pylist()
    return arrays | {"right": pa.array(right.tolist(), pa.string())}


def _first_known(scores: np.ndarray, texts: np.ndarray, count: int) -> np.ndarray:
    """Return the first score of each of `count` texts, float64[count]; NaN for a text without a score."""
    known = np.flatnonzero(~np.isnan(scores))
    number, first = np.unique(texts[known], return_index=True)
    found = np.full(count, np.nan)
    found[number] = scores[known[first]]
    return found


def _choose(
    group: np.ndarray, score: np.ndarray, value: np.ndarray, groups: int
) -> tuple[np.ndarray, list[list[float]]]:
    """Return the value of the best candidate by `score`, float64[groups], NaN without a score; and curves.

    The curve of a group has the expected values of the best of 1, 2, 4, ... random candidates, up to its size.
    """
    known = np.flatnonzero(~np.isnan(score))
    ordered = known[best_of(group[known], score[known], (known,), len(known))]
    chosen = np.full(groups, np.nan)
    curves: list[list[float]] = [[] for _ in range(groups)]
    for members, rows in _by_size(group[ordered]):
        values = value[ordered[rows]]
        here = group[ordered[rows[:, 0]]]
        chosen[here] = values[:, 0]
        drawn = [2**power for power in range(members.bit_length())]
        for place, curve in zip(here.tolist(), expected_best(values, drawn).tolist(), strict=True):
            curves[place] = curve
    return chosen, curves


def _by_size(group: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each group size m with the positions of the members of those groups, int64[g, m]; members are adjacent."""
    starts = np.flatnonzero(ranks(group) == 1) if len(group) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(starts, append=len(group))
    for members in np.unique(sizes).tolist():
        yield members, starts[sizes == members][:, None] + np.arange(members)


def _first_samples(found: _Grouped) -> list[list[dict[str, Any]]]:
    """Return the values of the first samples of each language model and decoding, by group.

    The first sample has the smallest index; of several the first in the input.
    """
    samples: list[list[dict[str, Any]]] = [[] for _ in range(found.groups)]
    known = np.flatnonzero(found.rows["decoding"].is_valid())
    drawn = found.rows.take(pa.array(known))
    by = [drawn[name].dictionary_encode(null_encoding="encode") for name in ("generator", "decoding")]
    generator, decoding = (codes.indices.to_numpy().astype(np.int64) for codes in by)
    generators, decodings = (codes.dictionary.to_pylist() for codes in by)
    key = (found.group[known] * len(generators) + generator) * len(decodings) + decoding
    index = drawn["sample_index"].fill_null(np.iinfo(np.int64).max).to_numpy()
    ordered = np.lexsort((known, index, key))
    first = ordered[np.flatnonzero(np.diff(key[ordered], prepend=-1))]
    values = found.numbers("value")[known]
    for place in first.tolist():
        drawn_by = {"generator": generators[generator[place]], "decoding": decodings[decoding[place]]}
        samples[int(found.group[known[place]])].append({**drawn_by, "value": float(values[place])})
    return samples


def _ordered_by(found: _Grouped, columns: EvaluatedColumns, stats: Stats) -> dict[str, pa.Array]:
    """Return the columns of orders; equal texts remain several candidates."""
    label = found.numbers("value")
    arrays: dict[str, pa.Array] = {"labels": _lists(label, found)}
    # Equal scores have the value of a random order.
    for measure, values in _measures(found.group, np.zeros(len(label)), label, found.groups).items():
        arrays[f"{RANDOM} {measure}"] = pa.array(values, from_pandas=True)
    for method in columns.methods:
        score = found.numbers(method)
        arrays[scores_of(method)] = _lists(score, found)
        known = ~np.isnan(score)
        for measure, values in _measures(found.group[known], score[known], label[known], found.groups).items():
            arrays[f"{method} {measure}"] = pa.array(values, from_pandas=True)
        if method in columns.scorers:
            _count_reliability(stats, columns.methods[method], score, label)
    return arrays


def _measures(group: np.ndarray, score: np.ndarray, label: np.ndarray, groups: int) -> dict[str, np.ndarray]:
    """Return each measure of `WITHIN`, float64[groups], as `measure_groups` does; NaN for a group without a score."""
    found = {measure: np.full(groups, np.nan) for measure in WITHIN}
    for _, rows in _by_size(group):
        for measure, values in measure_groups(RankedGroups(score[rows], label[rows])).items():
            found[measure][group[rows[:, 0]]] = values
    return found


def _lists(values: np.ndarray, found: _Grouped) -> pa.Array:
    """Return the values of each group's candidates as a list; NaN is null."""
    offsets = pa.array([*found.first.tolist(), len(values)], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.float64(), from_pandas=True))


def _count_reliability(stats: Stats, scorer: str, score: np.ndarray, value: np.ndarray) -> None:
    """Count candidates, and add their values in fixed point, by bin of scores."""
    known = ~np.isnan(score)
    count_scores(stats, ("reliability", scorer, "candidates"), score[known])
    bins, number = np.unique(score_bins(score[known]), return_inverse=True)
    totals = np.zeros(len(bins), dtype=np.int64)
    np.add.at(totals, number, fixed_point(value[known]))
    for place, total in zip(bins.tolist(), totals.tolist(), strict=True):
        stats.counts["reliability", scorer, "worth", f"{place:04d}"] += total
