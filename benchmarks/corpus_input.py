"""Inputs of the corpus benchmarks: real rows, repeated with numbers to any size, and synthetic candidates."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from beam_pipelines.templates.mixture import Dataset, load_mixture
from benchmarks.machine import measure
from schemas.chunks import from_rows
from schemas.records import CANDIDATE

FILE_ROWS = 50_000
GROUP_ROWS = 10_000
CANDIDATES_PER_INSTRUCTION = 4
_WRITTEN_ROWS = 20_000

# Columns that get a number, so that the instructions of repeated rows are distinct. Answers are unchanged, as they must
# be among the choices.
NUMBERED = {
    "ag_news": ("text",),
    "dream": ("question", "dialogue"),
    "cos_e": ("question",),
    "cosmos_qa": ("context", "question"),
    "rotten_tomatoes": ("text",),
}


@dataclass(frozen=True)
class Input:
    """A mixture file, a description, and a pattern of candidate files, if any."""

    mixture: Path
    description: str
    candidates: str | None = None


def make_input(mixture: Path, rows: int | None, folder: Path) -> Input:
    """Return a mixture of the first `rows` rows of each file of `mixture` (None: all rows)."""
    loaded = load_mixture(str(mixture), {})
    if rows is None:
        return Input(mixture, f"{mixture.name}, whole.")
    paths = []
    for number, dataset in enumerate(loaded.datasets):
        tables = [table.slice(0, rows) for table in _tables(dataset)]
        paths.append([_write(table, folder / f"{number}-{index}.parquet") for index, table in enumerate(tables)])
    return Input(_write_mixture(mixture, paths, folder), f"{mixture.name}, {rows:,} rows of each file.")


def make_sized_input(mixture: Path, instructions: int, folder: Path) -> Input:
    """Return a mixture that renders about `instructions` instructions: rows of `mixture`, repeated in proportion.

    Raises SystemExit for a dataset whose columns to number are unknown.
    """
    loaded = load_mixture(str(mixture), {})
    tables = [pa.concat_tables(_tables(dataset)) for dataset in loaded.datasets]
    whole = sum(len(d.templates) * table.num_rows for d, table in zip(loaded.datasets, tables, strict=True))
    paths = []
    for number, (dataset, table) in enumerate(zip(loaded.datasets, tables, strict=True)):
        rows, numbered = math.ceil(table.num_rows * instructions / whole), _numbered_columns(dataset, table)
        parts = {
            start: _repeated(table, start, min(start + FILE_ROWS, rows), numbered)
            for start in range(0, rows, FILE_ROWS)
        }
        paths.append([_write(part, folder / f"{number}-{start:08d}.parquet") for start, part in parts.items()])
    return Input(_write_mixture(mixture, paths, folder), f"{mixture.name}, repeated.")


def _tables(dataset: Dataset) -> list[pa.Table]:
    return [pq.read_table(path) for path in dataset.paths]


def _numbered_columns(dataset: Dataset, table: pa.Table) -> tuple[str, ...]:
    columns = NUMBERED.get(dataset.entry.name)
    if columns is None or not set(columns) <= set(table.column_names):
        raise SystemExit(
            f"{dataset.label}: add its columns to number to NUMBERED of {__file__}, or use another mixture"
        )
    return columns


def _repeated(table: pa.Table, start: int, stop: int, numbered: tuple[str, ...]) -> pa.Table:
    """Return rows `start` to `stop` of the repeated `table`, with their number appended to the `numbered` columns."""
    part = table.take(pa.array([row % table.num_rows for row in range(start, stop)]))
    for name in numbered:
        index = part.schema.get_field_index(name)
        values = part[name].to_pylist()
        added = [_with_number(value, number) for number, value in enumerate(values, start)]
        part = part.set_column(index, part.schema.field(index), pa.array(added, part.schema.field(index).type))
    return part


def _with_number(value: str | list[str], number: int) -> str | list[str]:
    return f"{value} {number}" if isinstance(value, str) else [f"{item} {number}" for item in value]


def _write(table: pa.Table, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=GROUP_ROWS, compression="zstd")
    return str(path)


def _write_mixture(original: Path, paths: list[list[str]], folder: Path) -> Path:
    content = yaml.safe_load(original.read_text())
    content["templates"] = str((original.parent / content["templates"]).resolve())
    for entry, files in zip(content["datasets"], paths, strict=True):
        entry["paths"] = files
        entry["max_examples"] = None
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make_candidates(source: Input, folder: Path, *, seed: int) -> Input:
    """Return `source` with four responses to each instruction, made from the reference by seeded edits of words.

    Instructions whose text occurs twice get none: a row pipeline has no row numbers and joins by the text.
    """
    folder.mkdir(parents=True)
    arguments = ["-m", "beam_pipelines.program", "build-corpus", "--mixture", str(source.mixture)]
    arguments += ["--instructions-only", "--output", str(folder / "instructions")]
    measure(arguments, folder / "instructions.log")
    files = sorted((folder / "instructions" / "instructions").glob("*.parquet"))
    counts = Counter(
        text for file in files for text in pq.read_table(file, columns=["instruction"])["instruction"].to_pylist()
    )
    rows: list[dict[str, object]] = []
    total = 0
    with pq.ParquetWriter(folder / "candidates.parquet", CANDIDATE, compression="zstd") as writer:
        for file in files:
            for instruction in pq.read_table(file).to_pylist():
                if counts[instruction["instruction"]] == 1:
                    rows += _candidates(instruction, seed)
                if len(rows) >= _WRITTEN_ROWS:
                    writer.write_batch(from_rows(rows, CANDIDATE))
                    total, rows = total + len(rows), []
        writer.write_batch(from_rows(rows, CANDIDATE))
    description = f"{source.description} {total + len(rows):,} candidates."
    return replace(source, candidates=str(folder / "candidates.parquet"), description=description)


def _candidates(instruction: dict[str, object], seed: int) -> Iterator[dict[str, object]]:
    """Yield the CANDIDATE rows of one INSTRUCTION row."""
    draws = random.Random(f"{seed} {instruction['instruction_id']}")
    words = str(instruction["references"][0]).split()  # type: ignore[index]
    others = str(instruction["instruction"]).split()
    for index in range(CANDIDATES_PER_INSTRUCTION):
        row = dict.fromkeys(CANDIDATE.names)
        row.update({name: instruction[name] for name in ("instruction_id", "dataset", "instruction")})
        response = " ".join(_edited(words, others, draws))
        yield {**row, "response": response, "generator": "edits", "decoding": "sample", "sample_index": index}


def _edited(words: list[str], others: list[str], draws: random.Random) -> Iterator[str]:
    """Keep each word (60%), drop it, replace it by one of the instruction, or append one; append one at the end."""
    for word in words:
        draw = draws.random()
        if draw < 0.6 or draw >= 0.9:
            yield word
        if draw >= 0.75:
            yield draws.choice(others)
    yield draws.choice(others)
