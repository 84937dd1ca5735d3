"""Small corpora of labelled pairs, written where a test needs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.chunks import from_rows
from schemas.ids import pair_ids
from schemas.records import GROUND_TRUTH, LABELLED_PAIR, WRONG_CHOICE
from tests.conftest import WORDS, sentence


def some_rows(count: int, *, first: int = 0, responses: int = 2) -> list[dict[str, Any]]:
    """Pairs of instructions with `responses` each, the first of them right: a word of it."""
    rows = []
    for number in range(first, first + count):
        question, answer = divmod(number, responses)
        instruction = f"{sentence(question, 1 + question % 4)} {question}"
        response = instruction.split()[0] if answer == 0 else f"{WORDS[(question + answer) % len(WORDS)]} {answer}"
        rows.append(
            {
                "pair_id": pair_ids(instruction)(response),
                "instruction_id": f"i{question}",
                "dataset": ("things", "quiz", "notes")[question % 3],
                "subset": None,
                "split": "train",
                "template_id": "t",
                "instruction": instruction,
                "response": response,
                "label": float(answer == 0),
                "label_source": GROUND_TRUTH if answer == 0 else WRONG_CHOICE,
                "generator": None,
            }
        )
    return rows


def write_pairs(path: Path, rows: list[dict[str, Any]], *, group: int = 50) -> Path:
    """The rows as a file with row groups of `group`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_batches([from_rows(rows, LABELLED_PAIR)], LABELLED_PAIR)
    pq.write_table(table, path, row_group_size=group)
    return path


def write_corpus(folder: Path, count: int = 400, *, files: int = 3, group: int = 50) -> list[str]:
    """Pairs in several files; their paths."""
    parts = np.array_split(np.arange(count), files)
    return [
        str(write_pairs(folder / f"shard-{i:05d}.parquet", some_rows(len(part), first=int(part[0])), group=group))
        for i, part in enumerate(parts)
    ]


def write_columns(path: Path, columns: dict[str, Any], *, group: int = 50) -> str:
    """Columns of any names and types as a file with row groups of `group`; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return str(path)


def write_groups(folder: Path, instructions: Sequence[str], *, files: int = 1, group: int = 50) -> list[str]:
    """A pair of each instruction, in order, whose response is its number in the corpus; the paths of the files."""
    parts = np.array_split(np.arange(len(instructions)), files)
    return [
        write_columns(
            folder / f"part-{number}.parquet",
            {
                "instruction": pa.array([instructions[row] for row in part], pa.string()),
                "response": pa.array([str(row) for row in part], pa.string()),
                "label": pa.array([row % 2 for row in part], pa.float32()),
            },
            group=group,
        )
        for number, part in enumerate(parts)
    ]
