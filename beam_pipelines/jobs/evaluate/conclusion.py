"""The examples of all shards -> metrics.parquet, and the results: means, intervals, differences, curves."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.jobs.evaluate.columns import CLASSIFICATION, GENERATION, RANKING, EvaluatedColumns
from beam_pipelines.jobs.evaluate.examples import (
    PER_GROUP,
    choosers,
    curve_of,
    evaluate_examples,
    example_schema,
    scores_of,
)
from beam_pipelines.jobs.evaluate.measure import measured_schema
from beam_pipelines.transforms.rejects import write_rejects
from beam_pipelines.transforms.shuffle import gather
from cappy_model.metrics.evaluation import (
    FIRST,
    MAJORITY,
    ORACLE,
    RANDOM,
    Estimate,
    describe,
    describe_all,
    estimate_means,
    estimate_orders,
)
from cappy_model.metrics.ranking import LEVEL, REPLICATES, draws
from schemas.chunks import CHUNK_ROWS, from_ipc, to_ipc
from schemas.errors import CappyError
from schemas.ids import seed_for
from schemas.stats import Stats

METRICS = "metrics.parquet"
RESULTS = "results"
"""The sample of a stats that holds the results: there is one for each run."""

MEASURES = {GENERATION: "rouge_l", CLASSIFICATION: "accuracy"}
"""What the mean over examples is of, by task."""
OVER_ALL = {"spearman": "spearman_over_all", "kendall": "kendall_over_all", "auc": "auc_over_all"}
"""The measures of an order of all candidates of a dataset, by what they are called beside those within groups."""

_MOST_DECODINGS = 64


def conclude(examples: pa.Table, columns: EvaluatedColumns, seed: int) -> tuple[pa.Table, dict[str, Any]]:
    """What metrics.parquet holds, a row for each example ordered by (dataset, group), and the results for JSON.

    `examples` are rows of `example_schema`, of all shards. Raises CappyError for more than 64
    decodings or language models.
    """
    examples = examples.sort_by([("dataset", "ascending"), ("group", "ascending")]).combine_chunks()
    values = _values(examples, columns)
    told = {"example": columns.example, "template": columns.template}
    names = [name for name in ("dataset", "group", "example", "template", "candidates") if told.get(name, name)]
    kept = examples.select(names)
    for name, column in values.items():
        kept = kept.append_column(name, pa.array(column, pa.float64(), from_pandas=True))
    datasets = [_Dataset.of(name, examples, rows, seed) for name, rows in _rows_by(examples["dataset"])]
    results: dict[str, Any] = {"bootstrap": {"replicates": REPLICATES, "level": LEVEL}}
    if columns.task == RANKING:
        return kept, results | {"measures": _measures_of_orders(datasets, values, columns)}
    methods = list(values)
    means = {each.name: each.means(values, methods) for each in datasets}
    results["measures"] = {MEASURES[columns.task]: describe_all(means, methods)}
    if columns.task == GENERATION:
        results["curves"] = _curves(datasets, examples, columns)
    if columns.template is not None:
        results["templates"] = {each.name: each.by_template(values, methods) for each in datasets}
    return kept, results


def _rows_by(names: pa.ChunkedArray) -> Iterator[tuple[str, np.ndarray]]:
    """Each name in order, with the rows that have it; equal ones stand together."""
    codes = pc.run_end_encode(names.combine_chunks()) if len(names) else None
    if codes is None:
        return
    start = 0
    for name, end in zip(codes.values.to_pylist(), codes.run_ends.to_pylist(), strict=True):
        yield name, np.arange(start, end)
        start = end


@dataclass(frozen=True)
class _Dataset:
    """The rows of one dataset in the table of examples; `members` int64[n] says which of them are drawn together."""

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
        """The mean of each method's values."""
        return estimate_means(np.stack([values[m][self.rows] for m in methods], axis=1), self.members, self.seed)

    def by_template(self, values: Mapping[str, np.ndarray], methods: Sequence[str]) -> dict[str, Any]:
        """The means of the examples of each template."""
        templates = np.array(self.examples["template"].fill_null("").to_pylist(), dtype=object)
        found = {}
        for template in sorted(set(templates)):
            rows = np.flatnonzero(templates == template)
            own = np.stack([values[method][self.rows[rows]] for method in methods], axis=1)
            members = np.unique(self.members[rows], return_inverse=True)[1]
            found[template] = describe(estimate_means(own, members, self.seed), methods)
        return found

    def orders(self, columns: EvaluatedColumns) -> dict[str, Estimate]:
        """The measures over all candidates."""
        lists = self.examples["labels"].combine_chunks()
        members = np.repeat(self.members, pc.list_value_length(lists).to_numpy())
        scores = [
            self.examples[scores_of(method)].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for method in columns.methods
        ]
        return estimate_orders(np.stack(scores, axis=1), lists.flatten().to_numpy(), members, self.seed)


def _codes(names: pa.ChunkedArray) -> np.ndarray:
    """int64[n]: the number of each name, from 0 on."""
    found: np.ndarray = names.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return found


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """float64[n], NaN for null."""
    found: np.ndarray = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def _values(examples: pa.Table, columns: EvaluatedColumns) -> dict[str, np.ndarray]:
    """float64[n] for each method, NaN where it has no choice; those that are nowhere defined are left out."""
    if columns.task == RANKING:
        names = [f"{method} {measure}" for method in (*columns.methods, RANDOM) for measure in PER_GROUP]
        return {name: _numbers(examples[name]) for name in names}
    found = {method: _numbers(examples[method]) for method in columns.methods}
    found |= _first_samples(examples)
    if columns.task == CLASSIFICATION:
        found[MAJORITY] = _majority(examples)
    found |= {method: _numbers(examples[method]) for method in (RANDOM, ORACLE)}
    return {method: values for method, values in found.items() if not np.isnan(values).all() or method == RANDOM}


def _first_samples(examples: pa.Table) -> dict[str, np.ndarray]:
    """What the first sample of each decoding is worth, by method; of each language model where an example has several.

    Raises CappyError for more than 64 decodings, or language models.
    """
    lists = examples["first"].combine_chunks()
    parents, firsts = pc.list_parent_indices(lists).to_pylist(), lists.flatten()
    drawn = {name: firsts.field(name).to_pylist() for name in ("generator", "decoding")}
    for column, what in (("decoding", "the way of drawing a response"), ("generator", "a language model")):
        known = sorted(set(drawn[column]) - {None})
        if len(known) > _MOST_DECODINGS:
            raise CappyError(
                f"the column {column!r} has {len(known):,} values, such as {known[0]!r} and {known[1]!r}; it names "
                f"{what}, of which there are at most {_MOST_DECODINGS}: rename that column"
            )
    pairs = list(zip(drawn["generator"], drawn["decoding"], strict=True))
    several = len(set(zip(parents, drawn["generator"], strict=True))) > len(set(parents))
    names = [f"{FIRST}{model} {name}" if several and model is not None else f"{FIRST}{name}" for model, name in pairs]
    found = {name: np.full(examples.num_rows, np.nan) for name in sorted(set(names))}
    for parent, name, value in zip(parents, names, firsts.field("value").to_pylist(), strict=True):
        found[name][parent] = value
    return found


def _majority(examples: pa.Table) -> np.ndarray:
    """float64[n]: 1 where the right choice is the commonest right one of the example's dataset and template, else 0."""
    places = list(zip(*(examples[name].to_pylist() for name in ("dataset", "template")), strict=True))
    right = examples["right"].to_pylist()
    counts: dict[tuple[str, str | None], Counter[str]] = {}
    for place, text in zip(places, right, strict=True):
        counts.setdefault(place, Counter()).update([text] if text is not None else [])
    commonest = {
        place: min(found, key=lambda text, found=found: (-found[text], text), default=None)  # type: ignore[misc]
        for place, found in counts.items()
    }
    return np.array(
        [text is not None and text == commonest[place] for place, text in zip(places, right, strict=True)],
        dtype=np.float64,
    )


def _measures_of_orders(
    datasets: Sequence[_Dataset], values: Mapping[str, np.ndarray], columns: EvaluatedColumns
) -> dict[str, Any]:
    """Every measure of ranking, within groups and over all candidates of a dataset."""
    methods = [*columns.methods, RANDOM]
    within: dict[str, dict[str, Estimate]] = {measure: {} for measure in PER_GROUP}
    over_all: dict[str, dict[str, Estimate]] = {}
    for each in datasets:
        for measure in PER_GROUP:
            found = each.means(values, [f"{method} {measure}" for method in methods])
            within[measure][each.name] = found
        for measure, estimate in each.orders(columns).items():
            over_all.setdefault(OVER_ALL[measure], {})[each.name] = estimate
    # A measure that some dataset lacks (AUC, where its labels are no 0 and 1) has no macro average.
    whole = {name: found for name, found in over_all.items() if len(found) == len(datasets)}
    shown = {name: describe_all(found, methods) for name, found in within.items()}
    return shown | {name: describe_all(found, methods, of="candidates") for name, found in whole.items()}


def _curves(datasets: Sequence[_Dataset], examples: pa.Table, columns: EvaluatedColumns) -> dict[str, Any]:
    """What the choice among n random candidates is worth on average, by dataset and method, and the macro average."""
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
    """The mean curve of a method over the examples where it has a choice; empty where it has none.

    An example of fewer candidates than are drawn counts with its choice among all of them.
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
    """(shard, slices) -> its examples as an Arrow IPC stream under one key, and its stats. Writes rejects."""

    folder: OutputDir
    columns: EvaluatedColumns
    shards: int

    def expand(self, shards: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        found = shards | "Evaluate" >> beam.Map(self._evaluate)
        examples = found | "Examples" >> beam.Map(lambda pair: (0, pair[0])).with_output_types(tuple[int, bytes])
        return examples, found | "Stats" >> beam.Map(lambda pair: pair[1])

    def _evaluate(self, element: tuple[int, Iterable[bytes]]) -> tuple[bytes, Stats]:
        shard, slices = element
        (measured,) = gather(slices, measured_schema(self.columns))
        found = evaluate_examples(measured, self.columns)
        name = f"shard-{shard:05d}-of-{self.shards:05d}"
        return to_ipc(found.rows), found.stats.add(write_rejects(self.folder, name, found.rejects))


@dataclass
class Conclude(beam.PTransform):
    """The examples of all shards, in one place -> metrics.parquet, and a stats with the results."""

    folder: OutputDir
    columns: EvaluatedColumns
    seed: int

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        return examples | "AllExamples" >> beam.GroupByKey() | "Conclude" >> beam.Map(self._conclude)

    def _conclude(self, element: tuple[int, Iterable[bytes]]) -> Stats:
        chunks = [from_ipc(data) for data in element[1]]
        kept, results = conclude(pa.Table.from_batches(chunks, example_schema(self.columns)), self.columns, self.seed)
        stats = Stats()
        stats.files.add(self.folder.write_parquet(METRICS, kept.to_batches(CHUNK_ROWS), kept.schema))
        stats.sample(RESULTS, 0, results)
        return stats
