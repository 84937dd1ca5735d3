"""The candidates of a unit, each with its value: the rows that an evaluation shuffles."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.evaluate.columns import DATASET, EvaluatedColumns
from beam_pipelines.jobs.evaluate.config import CLASSIFICATION
from beam_pipelines.transforms.candidates import (
    GROUP,
    LARGEST,
    as_numbers,
    candidate_places,
    candidate_values,
    count_lost,
    group_texts,
    reject_read,
    row_faults,
)
from beam_pipelines.transforms.results import Result, unreadable_rows
from beam_pipelines.transforms.shuffle import text_keys
from beam_pipelines.transforms.wordless import count_wordless
from cappy_model.metrics.rouge import RougeL
from schemas.ids import digest, text_key
from schemas.records import EXCERPT_CHARACTERS
from schemas.stats import Stats
from schemas.values import excerpt_of

_LARGEST_WHOLE = 2.0**53

NO_DATASET = "unnamed dataset"
"""The dataset of rows that name none."""


def measured_schema(columns: EvaluatedColumns) -> pa.Schema:
    """Return the schema of a candidate in the shuffle: its group, its place, its value, and its score by each method.

    `group` is the digest of dataset and group, `name` the group itself. `instruction` and `references` are hashes,
    `text` is the digest of the response. `value` is the Rouge-L in [0, 1], the correctness (0 or 1), or the label.
    """
    texts = {"name": False, "dataset": False, "template": True, "example": False, "source": False, "at": False}
    places = {"file": pa.int64(), "position": pa.int64(), "item": pa.int32()}
    known = {"instruction": pa.uint64(), "references": pa.uint64(), "text": pa.string(), "value": pa.float64()}
    return pa.schema(
        [
            pa.field(GROUP, pa.string(), nullable=False),
            *(pa.field(name, pa.string(), nullable=nullable) for name, nullable in texts.items()),
            *(pa.field(name, kind, nullable=False) for name, kind in (places | known).items()),
            pa.field("generator", pa.string()),
            pa.field("decoding", pa.string()),
            pa.field("sample_index", pa.int64()),
            *(pa.field(method, pa.float64()) for method in columns.methods),
        ]
    )


def measure_unit(unit: Unit, columns: EvaluatedColumns, rouge: RougeL) -> Result:
    """Return the candidates of a unit, each with its value, as a chunk of `measured_schema`.

    A row that cannot be used is one reject, and counts as many candidates as its longest list has, at least 1. A
    candidate without a response, or with an invalid label, is a reject of its own. Raises CappyError for a score that
    is NaN.
    """
    rows = unit.rows
    faults = row_faults(rows, columns) | _without_references(rows, columns)
    rejects = unreadable_rows(unit)
    rejects += [reject_read(unit, row, *fault, _excerpt(rows, row)) for row, fault in faults.items()]
    lost = count_lost(unit, faults, columns.lists)
    good = np.setdiff1d(np.arange(rows.num_rows), list(faults))
    row, item = candidate_places(rows, columns.response, good)
    found = {name: candidate_values(rows, name, good) for name in columns.of_candidates}
    wrong = _candidate_faults(columns, found)
    for index, (reason, detail) in wrong.items():
        where = f"item {item[index]}: " if columns.lists else ""
        rejects.append(reject_read(unit, int(row[index]), reason, where + detail, _excerpt(rows, int(row[index]))))
    usable = np.setdiff1d(np.arange(len(row)), list(wrong))
    row, item = row[usable], item[usable]
    found = {name: values.take(pa.array(usable)) for name, values in found.items()}
    stats = Stats()
    stats.counts["rows",] += rows.num_rows + len(unit.bad)
    stats.counts["candidates", "read"] += len(row) + lost + len(wrong)
    stats.counts["candidates", "rejected"] += lost + len(wrong)
    value = _values(rows, columns, row, found, rouge, stats)
    chunk = _chunk(unit, columns, row, item, found, value)
    return Result(f"part-{unit.name}", [chunk], chunk.schema, rejects, stats)


def _excerpt(rows: pa.RecordBatch, row: int) -> str:
    return excerpt_of(rows, row)[:EXCERPT_CHARACTERS]


def _without_references(rows: pa.RecordBatch, columns: EvaluatedColumns) -> dict[int, tuple[str, str]]:
    if columns.references is None:
        return {}
    texts = _references(rows, columns.references)
    return {row: ("no_references", f"none in {columns.references}") for row, found in enumerate(texts) if not found}


def _references(rows: pa.RecordBatch, column: str) -> list[list[str]]:
    """Return the references of each row, without nulls."""
    found = [[value] if isinstance(value, str) else value or [] for value in rows[column].to_pylist()]
    return [[text for text in texts if text is not None] for texts in found]


def _candidate_faults(columns: EvaluatedColumns, found: Mapping[str, pa.Array]) -> dict[int, tuple[str, str]]:
    """Return the reason and the detail of each candidate that cannot be used."""
    faults: dict[int, tuple[str, str]] = {}
    if columns.label is not None:
        label = _floats(found[columns.label])
        for index in np.flatnonzero(~(np.abs(label) <= LARGEST)).tolist():
            faults[index] = ("label_not_usable", f"{columns.label} is {label[index]}")
        if columns.task == CLASSIFICATION:
            for index in np.flatnonzero(~np.isin(label, (0, 1))).tolist():
                faults[index] = ("label_not_binary", f"{columns.label} is {label[index]}, and neither 0 nor 1")
    if columns.sample_index is not None and pa.types.is_floating(found[columns.sample_index].type):
        number = _floats(found[columns.sample_index])
        whole = np.isnan(number) | ((np.floor(number) == number) & (np.abs(number) <= _LARGEST_WHOLE))  # NaN is null
        for index in np.flatnonzero(~whole).tolist():
            faults[index] = ("does_not_fit", f"{columns.sample_index} is {number[index]}, and no whole number")
    for name in filter(None, (columns.label, columns.response)):
        for index in np.flatnonzero(found[name].is_null()).tolist():
            faults[index] = ("null_value", f"null in {name}")
    return faults


def _floats(values: pa.Array) -> np.ndarray:
    """Return numbers or booleans as float64[n], NaN for null."""
    numbers: np.ndarray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def _values(
    rows: pa.RecordBatch,
    columns: EvaluatedColumns,
    row: np.ndarray,
    found: Mapping[str, pa.Array],
    rouge: RougeL,
    stats: Stats,
) -> np.ndarray:
    """Return the value of each candidate, float64[n]; count texts without Rouge tokens."""
    if columns.references is None:
        assert columns.label is not None
        return _floats(found[columns.label])
    references, responses = _references(rows, columns.references), found[columns.response].to_pylist()
    if columns.task == CLASSIFICATION:
        right = [{text.strip() for text in texts} for texts in references]
        pairs = zip(row.tolist(), responses, strict=True)
        return np.array([response.strip() in right[place] for place, response in pairs], dtype=np.float64)
    tokens = dict[str, Any]()
    values = np.zeros(len(row))
    for index, (place, response) in enumerate(zip(row.tolist(), responses, strict=True)):
        for text in (response, *references[place]):
            if text not in tokens:
                tokens[text] = rouge.tokens(text)
        stats.counts["no_rouge_tokens",] += bool(response.strip()) and not tokens[response]
        values[index] = max(rouge.f_measure(tokens[text], tokens[response]) for text in references[place])
        if not values[index]:
            count_wordless(stats, rouge, response, references[place])
    return values


def _chunk(
    unit: Unit,
    columns: EvaluatedColumns,
    row: np.ndarray,
    item: np.ndarray,
    found: Mapping[str, pa.Array],
    value: np.ndarray,
) -> pa.RecordBatch:
    """Return the candidates at `row` and `item` as rows of `measured_schema`."""
    rows, texts = unit.rows, _row_texts(unit, columns)
    of_rows = {name: array.take(pa.array(row)) for name, array in texts.items()}
    arrays = {
        **of_rows,
        "file": pa.array(np.full(len(row), unit.file.number), pa.int64()),
        "position": pa.array(unit.positions[row], pa.int64()),
        "item": pa.array(item, pa.int32()),
        "text": pa.array([digest(text) for text in found[columns.response].to_pylist()], pa.string()),
        "value": pa.array(value, pa.float64()),
        "generator": _generator(rows, columns, row, found),
        "decoding": found[columns.decoding] if columns.decoding else pa.nulls(len(row), pa.string()),
        "sample_index": pa.nulls(len(row), pa.int64()),
    }
    if columns.sample_index:
        index = found[columns.sample_index]
        if pa.types.is_floating(index.type):
            index = pc.if_else(pc.is_nan(index), None, index)
        arrays["sample_index"] = index.cast(pa.int64())
    for method, name in columns.methods.items():
        arrays[method] = pa.array(as_numbers(unit, name, row, found[name]), pa.float64(), from_pandas=True)
    schema = measured_schema(columns)
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _generator(
    rows: pa.RecordBatch, columns: EvaluatedColumns, row: np.ndarray, found: Mapping[str, pa.Array]
) -> pa.Array:
    """Return the language model that generated each candidate, named for the candidate or for its row."""
    if columns.generator is None:
        return pa.nulls(len(row), pa.string())
    return found[columns.generator] if columns.generator in found else rows[columns.generator].take(pa.array(row))


def _row_texts(unit: Unit, columns: EvaluatedColumns) -> dict[str, pa.Array]:
    """Return the columns of `measured_schema` that the candidates of a row share, one value for each row."""
    rows = unit.rows
    nothing = pa.nulls(rows.num_rows, pa.string())
    instruction = rows[columns.instruction].fill_null("")
    name = group_texts(rows, columns.group).fill_null("").to_pylist()
    if columns.group == columns.instruction:
        name = [digest(text) for text in name]
    dataset = [_dataset(*parts) for parts in zip(*_dataset_parts(rows, columns), strict=True)]
    example = group_texts(rows, columns.example).to_pylist() if columns.example else [None] * rows.num_rows
    references = _references(rows, columns.references) if columns.references else [[]] * rows.num_rows
    return {
        GROUP: pa.array([digest(*pair) for pair in zip(dataset, name, strict=True)], pa.string()),
        "name": pa.array(name, pa.string()),
        "dataset": pa.array(dataset, pa.string()),
        "template": group_texts(rows, columns.template) if columns.template else nothing,
        "example": pa.array([e or n for e, n in zip(example, name, strict=True)], pa.string()),
        "source": pa.array([unit.file.name] * rows.num_rows, pa.string()),
        "at": pa.array([unit.position(row) for row in range(rows.num_rows)], pa.string()),
        "instruction": pa.array(text_keys(instruction), pa.uint64()),
        "references": pa.array([text_key(digest(*texts)) for texts in references], pa.uint64()),
    }


def _dataset_parts(rows: pa.RecordBatch, columns: EvaluatedColumns) -> list[list[str | None]]:
    """Return the name, subset and split of the dataset of each row."""
    return [
        group_texts(rows, part).to_pylist() if part in columns.dataset else [None] * rows.num_rows for part in DATASET
    ]


def _dataset(name: str | None, subset: str | None, split: str | None) -> str:
    """Return `name[/subset][:split]`, the name of a dataset in reports."""
    if not name:
        return NO_DATASET
    return name + (f"/{subset}" if subset else "") + (f":{split}" if split else "")
