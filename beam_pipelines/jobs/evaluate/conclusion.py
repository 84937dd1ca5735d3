"""The results of an evaluation, over the examples of all shards: means, intervals, differences and curves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.jobs.evaluate.baselines import first_samples, majority
from beam_pipelines.jobs.evaluate.columns import EvaluatedColumns
from beam_pipelines.jobs.evaluate.config import CLASSIFICATION, GENERATION, RANKING
from beam_pipelines.jobs.evaluate.examples import choosers, curve_of, evaluate_examples, example_schema, scores_of
from beam_pipelines.jobs.evaluate.measure import measured_schema
from beam_pipelines.transforms.results import write_rejects
from beam_pipelines.transforms.shuffle import shard_result
from cappy_model.metrics.evaluation import (
    MAJORITY,
    ORACLE,
    RANDOM,
    Estimate,
    describe,
    describe_all,
    estimate_means,
    estimate_orders,
)
from cappy_model.metrics.measures import WITHIN
from cappy_model.metrics.ranking import LEVEL, REPLICATES, draws
from schemas.chunks import CHUNK_ROWS, from_ipc, to_ipc
from schemas.ids import seed_for
from schemas.stats import Stats

EXAMPLES = "metrics.parquet"
"""The file with a row for each example."""
RESULTS = "results"
"""The key of the sample in the statistics that holds the results; each run has one."""

MEAN_OF = {GENERATION: "rouge_l", CLASSIFICATION: "accuracy"}
"""The measure that is averaged over examples, by task."""


def conclude(examples: pa.Table, columns: EvaluatedColumns, seed: int) -> tuple[pa.Table, dict[str, Any]]:
    """Return the table of metrics.parquet, a row for each example by (dataset, group), and the results for JSON.

    `examples` are rows of `example_schema`, of all shards. Raises CappyError for more than 64 decodings or language
    models.
    """
    examples = examples.sort_by([("dataset", "ascending"), ("group", "ascending")]).combine_chunks()
    values = _values(examples, columns)
    optional = {"example": columns.example, "template": columns.template}
    names = [name for name in ("dataset", "group", "example", "template", "candidates") if optional.get(name, name)]
    kept = examples.select(names)
    for name, column in values.items():
        kept = kept.append_column(name, pa.array(column, pa.float64(), from_pandas=True))
    datasets = [_Dataset.of(name, examples, rows, seed) for name, rows in _rows_by(examples["dataset"])]
    results: dict[str, Any] = {"bootstrap": {"replicates": REPLICATES, "level": LEVEL}}
    if columns.task == RANKING:
        return kept, results | {"measures": _measures_of_orders(datasets, values, columns)}
    methods = list(values)
    means = {each.name: each.means(values, methods) for each in datasets}
    results["measures"] = {MEAN_OF[columns.task]: describe_all(means, methods)}
    if columns.task == GENERATION:
        results["curves"] = _curves(datasets, examples, columns)
    if columns.template is not None:
        results["templates"] = {each.name: each.by_template(values, methods) for each in datasets}
    return kept, results


def _rows_by(names: pa.ChunkedArray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each name with its rows; rows of one name are adjacent."""
    codes = pc.run_end_encode(names.combine_chunks()) if len(names) else None
    if codes is None:
        return
    start = 0
    for name, end in zip(codes.values.to_pylist(), codes.run_ends.to_pylist(), strict=True):
        yield name, np.arange(start, end)
        start = end


@dataclass(frozen=True)
class _Dataset:
    """The n examples of one dataset: their `rows` in the table of all examples, and `examples`, a part of it.

    `members` int64[n]: rows with equal numbers are resampled together.
    """

    name: str
    rows: np.ndarray
    members: np.ndarray
    examples: pa.Table
    seed: int

    @classmethod
    def of(cls, name: str, examples: pa.Table, rows: np.ndarray, seed: int) -> "_Dataset":
        own = examples.slice(int(rows[0]), len(rows))
        return cls(name, rows, _codes(own["example"]), own, seed_for(seed, "bootstrap", name))

    def means(self, values: Mapping[str, np.ndarray], methods: Sequence[str]) -> Estimate:
        """Estimate the mean of each method's values."""
        return estimate_means(np.stack([values[m][self.rows] for m in methods], axis=1), self.members, self.seed)

    def by_template(self, values: Mapping[str, np.ndarray], methods: Sequence[str]) -> dict[str, Any]:
        """Describe the means over the examples of each template."""
        templates = np.array(self.examples["template"].fill_null("").to_pylist(), dtype=object)
        found = {}
        for template in sorted(set(templates)):
            rows = np.flatnonzero(templates == template)
            own = np.stack([values[method][self.rows[rows]] for method in methods], axis=1)
            members = np.unique(self.members[rows], return_inverse=True)[1]
            found[template] = describe(estimate_means(own, members, self.seed), methods)
        return found

    def orders(self, columns: EvaluatedColumns) -> dict[str, Estimate]:
        """Estimate the measures over all candidates."""
        lists = self.examples["labels"].combine_chunks()
        members = np.repeat(self.members, pc.list_value_length(lists).to_numpy())
        scores = [
            self.examples[scores_of(method)].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for method in columns.methods
        ]
        return estimate_orders(np.stack(scores, axis=1), lists.flatten().to_numpy(), members, self.seed)


def _codes(names: pa.ChunkedArray) -> np.ndarray:
    """Return the number of each name, int64[n], from 0 on in the order of appearance."""
    found: np.ndarray = names.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return found


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as float64[n], NaN for null."""
    found: np.ndarray = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def _values(examples: pa.Table, columns: EvaluatedColumns) -> dict[str, np.ndarray]:
    """Return the values of each method, float64[n], NaN for an example without a choice; omit methods without any."""
    if columns.task == RANKING:
        names = [f"{method} {measure}" for method in (*columns.methods, RANDOM) for measure in WITHIN]
        return {name: _numbers(examples[name]) for name in names}
    found = {method: _numbers(examples[method]) for method in columns.methods}
    found |= first_samples(examples)
    if columns.task == CLASSIFICATION:
        found[MAJORITY] = majority(examples)
    found |= {method: _numbers(examples[method]) for method in (RANDOM, ORACLE)}
    return {method: values for method, values in found.items() if not np.isnan(values).all() or method == RANDOM}


def _measures_of_orders(
    datasets: Sequence[_Dataset], values: Mapping[str, np.ndarray], columns: EvaluatedColumns
) -> dict[str, Any]:
    """Describe every measure of ranking, within groups and over all candidates of a dataset."""
    methods = [*columns.methods, RANDOM]
    within: dict[str, dict[str, Estimate]] = {measure: {} for measure in WITHIN}
    over_all: dict[str, dict[str, Estimate]] = {}
    for each in datasets:
        for measure in WITHIN:
            found = each.means(values, [f"{method} {measure}" for method in methods])
            within[measure][each.name] = found
        for measure, estimate in each.orders(columns).items():
            over_all.setdefault(measure, {})[each.name] = estimate
    # A measure that some dataset lacks (AUC, unless all its labels are 0 or 1) has no macro average.
    whole = {name: found for name, found in over_all.items() if len(found) == len(datasets)}
    shown = {name: describe_all(found, methods) for name, found in within.items()}
    return shown | {name: describe_all(found, methods, of="candidates") for name, found in whole.items()}


def _curves(datasets: Sequence[_Dataset], examples: pa.Table, columns: EvaluatedColumns) -> dict[str, Any]:
    """Return the mean value of the choice among n random candidates, by dataset and method, and the macro average."""
    if not datasets:
        return {"drawn": [], "datasets": {}, "macro": {}}
    drawn = draws(max(examples["candidates"].to_pylist()))
    found: dict[str, dict[str, list[float]]] = {}
    for each in datasets:
        found[each.name] = {method: _curve(each.examples, method, drawn) for method in choosers(columns)}
        found[each.name][RANDOM] = [float(_numbers(each.examples[RANDOM]).mean())] * len(drawn)
        found[each.name] = {method: curve for method, curve in found[each.name].items() if curve}
    shared = [method for method in (*choosers(columns), RANDOM) if all(method in curves for curves in found.values())]
    macro = {method: np.mean([curves[method] for curves in found.values()], axis=0).tolist() for method in shared}
    return {"drawn": drawn, "datasets": found, "macro": macro}


def _curve(examples: pa.Table, method: str, drawn: Sequence[int]) -> list[float]:
    """Return the mean curve of a method over the examples where it has a choice; empty where it has none.

    An example with fewer candidates than are drawn counts with its choice among all of them.
    """
    lists, chosen = examples[curve_of(method)].combine_chunks(), _numbers(examples[method])
    lengths = pc.list_value_length(lists).to_numpy()
    if not lengths.any():
        return []
    starts, flat = np.cumsum(lengths) - lengths, lists.flatten().to_numpy()
    known = lengths > 0
    curve = []
    for count in drawn:
        place = count.bit_length() - 1
        whole = count.bit_count() > 1
        inside = known & (lengths > place) & (not whole)
        at = np.where(inside, starts + place, 0)
        curve.append(float(np.where(inside, flat[at], chosen)[known].mean()))
    return curve


@dataclass
class EvaluateShards(beam.PTransform):
    """Evaluate shards: (shard, slices) -> (the examples of a shard as Arrow IPC; all_stats). Writes rejects."""

    output: OutputDir
    columns: EvaluatedColumns
    shards: int

    def expand(self, shards: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        evaluate = partial(evaluate_examples, columns=self.columns)
        evaluated = shards | "Evaluate" >> beam.Map(
            shard_result, evaluate, [measured_schema(self.columns)], self.shards
        )
        examples = evaluated | "Examples" >> beam.Map(lambda result: to_ipc(result.rows[0]))
        return examples, evaluated | "Rejects" >> beam.Map(write_rejects, self.output)


@dataclass
class Conclude(beam.PTransform):
    """Compute the results over the examples of all shards on one worker, and write metrics.parquet: all_stats."""

    output: OutputDir
    columns: EvaluatedColumns
    seed: int

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        keyed = examples | "OneKey" >> beam.Map(lambda data: (0, data)).with_output_types(tuple[int, bytes])
        return keyed | "AllExamples" >> beam.GroupByKey() | "Conclude" >> beam.Map(self._conclude)

    def _conclude(self, element: tuple[int, Iterable[bytes]]) -> Stats:
        chunks = [from_ipc(data) for data in element[1]]
        examples = pa.Table.from_batches(chunks, example_schema(self.columns))
        kept, results = conclude(examples, self.columns, self.seed)
        stats = Stats()
        stats.files.add(self.output.write_parquet(EXAMPLES, kept.to_batches(CHUNK_ROWS), kept.schema))
        stats.sample(RESULTS, 0, results)
        return stats
