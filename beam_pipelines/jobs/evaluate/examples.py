"""The candidates of a shard -> one row for each example: what each method's choice is worth, or how well it orders."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.jobs.evaluate.columns import CLASSIFICATION, GENERATION, RANKING, EvaluatedColumns
from beam_pipelines.jobs.rerank.reduction import GROUP, best_of, fixed_point, over_groups, ranks
from cappy_model.metrics.evaluation import ORACLE, RANDOM
from cappy_model.metrics.ranking import expected_best, pair_rows, spearman_rows
from schemas.records import reject
from schemas.stats import Stats, count_scores, score_bins

PER_GROUP = ("spearman", "kendall", "pairwise_accuracy")
"""The measures of an order within a group."""

_FIRST = pa.list_(pa.struct({"generator": pa.string(), "decoding": pa.string(), "value": pa.float64()}))
_NUMBERS = pa.list_(pa.float64())


def choosers(columns: EvaluatedColumns) -> list[str]:
    """The methods that choose by scores, and the oracle, which chooses by worth."""
    return [*columns.methods, ORACLE]


def curve_of(method: str) -> str:
    """The column with what `method` chooses on average of 1, 2, 4, ... random candidates."""
    return f"{method} curve"


def scores_of(method: str) -> str:
    """The column with the scores that `method` gives the candidates of an example."""
    return f"{method} scores"


def example_schema(columns: EvaluatedColumns) -> pa.Schema:
    """What the last step is given of an example: whose it is, what the methods are worth, and what sums need.

    Of generation and classification: `first` by language model and decoding, curves, and `right`, the digest of the
    right choice. Of ranking: the `labels` and scores of all candidates, for the measures over all of them.
    """
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("dataset", "group", "example")]
    fields += [pa.field("template", pa.string()), pa.field("candidates", pa.int64(), nullable=False)]
    if columns.task == RANKING:
        fields += [
            pa.field(f"{method} {measure}", pa.float64())
            for method in (*columns.methods, RANDOM)
            for measure in PER_GROUP
        ]
        fields += [pa.field(name, _NUMBERS) for name in ("labels", *map(scores_of, columns.methods))]
        return pa.schema(fields)
    fields += [pa.field(method, pa.float64()) for method in (*columns.methods, RANDOM, ORACLE)]
    fields += [pa.field(curve_of(method), _NUMBERS) for method in choosers(columns)]
    return pa.schema([*fields, pa.field("first", _FIRST), pa.field("right", pa.string())])


class _Candidates(NamedTuple):
    """Candidates of whole examples, in order: `group` int64[n] from 0 on without a gap, `rows` of `measured_schema`."""

    group: np.ndarray
    rows: pa.RecordBatch

    @property
    def groups(self) -> int:
        """How many examples there are."""
        return int(self.group[-1]) + 1 if len(self.group) else 0

    def numbers(self, name: str) -> np.ndarray:
        """float64[n]: a column, NaN for null."""
        found: np.ndarray = self.rows[name].to_numpy(zero_copy_only=False).astype(np.float64)
        return found

    def kept(self, which: np.ndarray) -> "_Candidates":
        """The candidates for which bool[n] `which` is true, their groups numbered anew."""
        positions = np.flatnonzero(which)
        group = np.unique(self.group[positions], return_inverse=True)[1]
        return _Candidates(group.astype(np.int64), self.rows.take(pa.array(positions)))

    @property
    def first(self) -> np.ndarray:
        """int64[g]: the position of each group's first candidate."""
        return np.flatnonzero(np.diff(self.group, prepend=-1))


class Examples(NamedTuple):
    """The examples of a shard as rows of `example_schema`, REJECT rows of those that are none, and counts."""

    rows: pa.RecordBatch
    rejects: list[dict[str, Any]]
    stats: Stats


def evaluate_examples(measured: pa.RecordBatch, columns: EvaluatedColumns) -> Examples:
    """The examples that `measured` rows (of `measured_schema`, in any order) make up.

    An example is a reject when its candidates differ in their instructions or references, when equal texts among them
    have different labels, or when a scorer gave none of them a score.
    """
    stats, found = Stats(), _in_order(measured)
    faults = _faults(found, columns)
    rejects = [_reject(found, *fault) for fault in faults.items()]
    bad = np.isin(found.group, list(faults))
    found = found.kept(~bad)
    stats.counts["candidates", "rejected"] += int(bad.sum())
    stats.counts["candidates", "evaluated"] += len(found.group)
    stats.counts["examples", "rejected"] += len(rejects)
    stats.counts["examples", "evaluated"] += found.groups
    for method, name in columns.methods.items():
        stats.counts["unscored", name] += int(np.isnan(found.numbers(method)).sum())
    arrays = _ordered_by(found, columns, stats) if columns.task == RANKING else _chosen_by(found, columns, stats)
    firsts = found.rows.take(pa.array(found.first))
    sizes = np.bincount(found.group, minlength=found.groups)
    arrays |= {name: firsts[name] for name in ("dataset", "example", "template")} | {"group": firsts["name"]}
    arrays = {"candidates": pa.array(sizes, pa.int64()), **arrays}
    schema = example_schema(columns)
    rows = pa.RecordBatch.from_arrays(
        [arrays[name].cast(schema.field(name).type) for name in schema.names], schema=schema
    )
    return Examples(rows, rejects, stats)


def _in_order(measured: pa.RecordBatch) -> _Candidates:
    """By group, then by place in the input."""
    group = np.unique(np.array(measured[GROUP].to_pylist(), dtype="S32"), return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((*(measured[name].to_numpy() for name in ("item", "position", "file")), group))
    return _Candidates(group[order], measured.take(pa.array(order)))


def _faults(found: _Candidates, columns: EvaluatedColumns) -> dict[int, tuple[str, str]]:
    """The groups that cannot be evaluated, each with a reason and a detail."""
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


def _reject(found: _Candidates, group: int, fault: tuple[str, str]) -> dict[str, Any]:
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


def _texts(found: _Candidates) -> tuple[np.ndarray, np.ndarray]:
    """int64[n], the number of each candidate's text within its group; int64[d], where each such text comes first."""
    codes = found.rows["text"].dictionary_encode()
    keys = found.group * max(1, len(codes.dictionary)) + codes.indices.to_numpy()
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    # In the order of the candidates, not of the keys.
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[number], first[order]


def _chosen_by(found: _Candidates, columns: EvaluatedColumns, stats: Stats) -> dict[str, pa.Array]:
    """What the choice of each method is worth. Equal texts are one candidate, with the first score that any of them
    has."""
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
        correct = np.flatnonzero(value == 1)[::-1]  # of several the first one stays
        right[group[correct]] = found.rows["text"].take(pa.array(first[correct])).to_pylist()
    return arrays | {"right": pa.array(right.tolist(), pa.string())}


def _first_known(scores: np.ndarray, texts: np.ndarray, count: int) -> np.ndarray:
    """float64[d]: for each of `count` texts the first score that is not NaN, NaN where there is none."""
    known = np.flatnonzero(~np.isnan(scores))
    number, first = np.unique(texts[known], return_index=True)
    found = np.full(count, np.nan)
    found[number] = scores[known[first]]
    return found


def _choose(
    group: np.ndarray, score: np.ndarray, value: np.ndarray, groups: int
) -> tuple[np.ndarray, list[list[float]]]:
    """float64[groups]: what the best candidate by `score` is worth, NaN where none has one; each group's curve.

    The curve is what the best of 1, 2, 4, ... random candidates is worth on average, as far as there are so many.
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
    """Groups of m members that stand together: m, and the positions of their members, int64[g, m]."""
    starts = np.flatnonzero(ranks(group) == 1) if len(group) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(starts, append=len(group))
    for members in np.unique(sizes).tolist():
        yield members, starts[sizes == members][:, None] + np.arange(members)


def _first_samples(found: _Candidates) -> list[list[dict[str, Any]]]:
    """What the first sample of each language model and decoding is worth, by group: that of the smallest number, then
    the first one."""
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


def _ordered_by(found: _Candidates, columns: EvaluatedColumns, stats: Stats) -> dict[str, pa.Array]:
    """How well each method orders the candidates of each group, as they are: equal texts are not merged."""
    label = found.numbers("value")
    arrays: dict[str, pa.Array] = {"labels": _lists(label, found)}
    constant = _measures(found.group, np.zeros(len(label)), label, found.groups)
    for measure, values in constant.items():
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


def _measures(group: np.ndarray, score: np.ndarray, label: np.ndarray, groups: int) -> Mapping[str, np.ndarray]:
    """Each of `PER_GROUP`, float64[groups]: NaN where the labels are all the same; equal scores are no order: 0."""
    found = {measure: np.full(groups, np.nan) for measure in PER_GROUP}
    for _, rows in _by_size(group):
        here, pairs = group[rows[:, 0]], pair_rows(score[rows], label[rows])
        ordered = {"spearman": spearman_rows(score[rows], label[rows]), "kendall": pairs.kendall}
        for measure, values in ordered.items():
            found[measure][here] = np.where((pairs.label > 0) & (pairs.score == 0), 0.0, values)
        found["pairwise_accuracy"][here] = pairs.accuracy
    return found


def _lists(values: np.ndarray, found: _Candidates) -> pa.Array:
    """The values of each group's candidates as a list; NaN is null."""
    offsets = pa.array([*found.first.tolist(), len(values)], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.float64(), from_pandas=True))


def _count_reliability(stats: Stats, scorer: str, score: np.ndarray, value: np.ndarray) -> None:
    """Counts by bin of scores: candidates, and the sum of what they are worth, in fixed point."""
    known = ~np.isnan(score)
    count_scores(stats, ("reliability", scorer, "candidates"), score[known])
    bins, number = np.unique(score_bins(score[known]), return_inverse=True)
    totals = np.zeros(len(bins), dtype=np.int64)
    np.add.at(totals, number, fixed_point(value[known]))
    for place, total in zip(bins.tolist(), totals.tolist(), strict=True):
        stats.counts["reliability", scorer, "worth", f"{place:04d}"] += total
