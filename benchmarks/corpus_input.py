"""Inputs of the corpus benchmark: real rows, repeated with a running number to any size, and synthetic candidates."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from beam_pipelines.templates.mixture import Dataset, Mixture, load_mixture
from benchmarks.machine import measure
from schemas.chunks import from_rows
from schemas.records import CANDIDATE

FILE_ROWS = 50_000
GROUP_ROWS = 10_000
CANDIDATES_PER_INSTRUCTION = 4
_WRITTEN_ROWS = 20_000

# The columns that get a running number, so that every instruction made of a repeated row is distinct. Answers stay as
# they are: they must be found among the choices.
NUMBERED = {
    "ag_news": ("text",),
    "dream": ("question", "dialogue"),
    "cos_e": ("question",),
    "cosmos_qa": ("context", "question"),
    "rotten_tomatoes": ("text",),
}


@dataclass(frozen=True)
class Input:
    """What the contenders are given: a mixture file, perhaps a pattern of candidate files, and words for both."""

    mixture: Path
    description: str
    candidates: str | None = None


def make_input(mixture: Path, rows: int | None, folder: Path) -> Input:
    """The first `rows` rows of each file of a mixture (None: the mixture as it is)."""
    loaded = load_mixture(str(mixture), {})
    if rows is None:
        return Input(mixture, f"{mixture.name}, whole.")
    paths = []
    for number, dataset in enumerate(loaded.datasets):
        tables = [table.slice(0, rows) for table in _tables(dataset)]
        paths.append([_write(table, folder / f"{number}-{index}.parquet") for index, table in enumerate(tables)])
    return Input(_write_mixture(mixture, loaded, paths, folder), f"{mixture.name}, {rows:,} rows of each file.")


def make_sized_input(mixture: Path, instructions: int, folder: Path) -> Input:
    """As many rows as render about `instructions` instructions, in the mixture's proportions, repeating its rows.

    Raises SystemExit for a dataset of which it is not known which columns to number.
    """
    loaded = load_mixture(str(mixture), {})
    tables = [pa.concat_tables(_tables(dataset)) for dataset in loaded.datasets]
    whole = sum(len(d.templates) * table.num_rows for d, table in zip(loaded.datasets, tables, strict=True))
    paths = []
    for number, (dataset, table) in enumerate(zip(loaded.datasets, tables, strict=True)):
        wanted = math.ceil(table.num_rows * instructions / whole)
        numbered = _numbered_columns(dataset, table)
        starts = range(0, wanted, FILE_ROWS)
        files = []
        for start in starts:
            part = _repeated(table, start, min(start + FILE_ROWS, wanted), numbered)
            files.append(_write(part, folder / f"{number}-{start:08d}.parquet"))
        paths.append(files)
    return Input(_write_mixture(mixture, loaded, paths, folder), f"{mixture.name}, repeated.")


def _tables(dataset: Dataset) -> list[pa.Table]:
    return [pq.read_table(path) for path in dataset.paths]


def _numbered_columns(dataset: Dataset, table: pa.Table) -> tuple[str, ...]:
    columns = NUMBERED.get(dataset.entry.name)
    if columns is None or not set(columns) <= set(table.column_names):
        raise SystemExit(
            f"{dataset.label}: name its columns to number in NUMBERED of {__file__}, or take another mixture"
        )
    return columns


def _repeated(table: pa.Table, start: int, stop: int, numbered: tuple[str, ...]) -> pa.Table:
    """Rows `start` to `stop` of the endless repetition of `table`, their number added to the `numbered` columns."""
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


def _write_mixture(original: Path, loaded: Mixture, paths: list[list[str]], folder: Path) -> Path:
    content = yaml.safe_load(original.read_text())
    content["templates"] = str((original.parent / content["templates"]).resolve())
    for entry, files in zip(content["datasets"], paths, strict=True):
        entry["paths"] = files
        entry["max_examples"] = None
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make_candidates(source: Input, folder: Path, *, seed: int) -> Input:
    """`source` with four responses to each of its instructions, made from the reference by seeded edits of words.

    Instructions whose text occurs twice get none: a row pipeline, which has no row numbers, joins by the text.
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
    """The CANDIDATE rows of one INSTRUCTION row."""
    draws = random.Random(f"{seed} {instruction['instruction_id']}")
    words = str(instruction["references"][0]).split()  # type: ignore[index]
    others = str(instruction["instruction"]).split()
    for index in range(CANDIDATES_PER_INSTRUCTION):
        row = dict.fromkeys(CANDIDATE.names)
        row.update({name: instruction[name] for name in ("instruction_id", "dataset", "instruction")})
        response = " ".join(_edited(words, others, draws))
        yield {**row, "response": response, "generator": "edits", "decoding": "sample", "sample_index": index}


def _edited(words: list[str], others: list[str], draws: random.Random) -> Iterator[str]:
    """Each word kept (60%), lost, replaced by a word of the instruction, or followed by one; never nothing at all."""
    for word in words:
        assignment = draws.random()
        if assignment < 0.6 or assignment >= 0.9:
            yield word
        if assignment >= 0.75:
            yield draws.choice(others)
    yield draws.choice(others)
