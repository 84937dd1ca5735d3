"""Data of the claims: real rows, split into training rows and held-out rows."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from schemas.ids import pair_ids
from schemas.records import GENERATED, LABELLED_PAIR

TRAIN, HELD_OUT = "train", "held_out"
KNOWN = ("ag_news", "cos_e", "cosmos_qa", "dream")
"""Generation tasks of the corpus, which has candidates for some of their training rows."""

UNSEEN = ("date_understanding", "object_counting", "sports_understanding")
"""Generation tasks of BIG-Bench Hard, which are not in the corpus."""

TASKS = (*KNOWN, *UNSEEN)
CLASSIFIED = ("ag_news", "rotten_tomatoes", "dream", "cos_e")
_SEED = 0


class _Files(NamedTuple):
    """A dataset, its training file, and its held-out file; None: the last rows of the training file."""

    name: str
    folder: str
    train: str
    held_out: str | None
    subset: str | None = None


_DATASETS = (
    _Files("ag_news", "ag_news", "test", None),
    _Files("rotten_tomatoes", "rotten_tomatoes", "train", "test"),
    _Files("dream", "dream", "train", "test"),
    _Files("cos_e", "cos_e_v1.0", "train", "validation", "v1.0"),
    _Files("cosmos_qa", "cosmos_qa", "validation", None),
)


def write_mixtures(shared: Path, folder: Path, rows: int) -> dict[str, Path]:
    """Write the mixtures of training rows and of `rows` held-out rows of each dataset; return their paths by split."""
    listed: dict[str, list[dict[str, Any]]] = {TRAIN: [], HELD_OUT: []}
    for source in _DATASETS:
        files = shared / "data" / "sources" / source.folder
        table = pq.read_table(files / f"{source.train}.parquet")
        other = pq.read_table(files / f"{source.held_out}.parquet") if source.held_out else table
        kept = table if source.held_out else table.slice(0, table.num_rows - rows)
        for split, part in ((TRAIN, kept), (HELD_OUT, other.slice(other.num_rows - rows))):
            path = folder / split / f"{source.name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, path)
            listed[split].append({"name": source.name, "subset": source.subset, "split": split, "paths": str(path)})
    found = {}
    for split, datasets in listed.items():
        found[split] = folder / f"{split}.yaml"
        templates = str((shared / "promptsource" / "templates").resolve())
        found[split].write_text(yaml.safe_dump({"templates": templates, "datasets": datasets}))
    return found


def pick_prompts(shared: Path, instructions: Path, split: str, task: str, counts: Mapping[str, int]) -> pa.Table:
    """Return about `counts[split]` instructions of a generation task.

    `instructions` is the folder of the split written by build-corpus. Each template of the task contributes equally
    many: those with the smallest ids, which are hashes. The tasks of BIG-Bench Hard have no splits: the first
    instructions in a random order are held out, and those that follow are for training.
    """
    if task not in UNSEEN:
        return _rendered(instructions, task, counts[split])
    lines = (shared / "data" / "sources" / "bbh" / f"{task}.jsonl").read_text().splitlines()
    random.Random(_SEED).shuffle(lines)
    start = 0 if split == HELD_OUT else counts[HELD_OUT]
    return _unseen(task, lines[start : start + counts[split]])


def _rendered(instructions: Path, task: str, count: int) -> pa.Table:
    columns = ["instruction_id", "dataset", "template_id", "instruction", "references"]
    rows = ds.dataset(instructions).to_table(columns=columns, filter=pc.field("dataset") == task)
    rows = rows.sort_by("instruction_id")
    templates = rows["template_id"].to_pylist()
    each, taken, seen = -(-count // len(set(templates))), [], dict.fromkeys(templates, 0)
    for row, template in enumerate(templates):
        seen[template] += 1
        if seen[template] <= each:
            taken.append(row)
    return rows.take(taken).drop_columns("template_id")


def _unseen(task: str, lines: Sequence[str]) -> pa.Table:
    read = [json.loads(line) for line in lines]
    return pa.table(
        {
            "instruction_id": [f"{task} {row['example_idx']}" for row in read],
            "dataset": [task] * len(read),
            "instruction": [row["instruction"] for row in read],
            "references": [row["references"] for row in read],
        }
    )


def pick_pairs(corpus: Path, target: Path, pairs: int, shares: Mapping[str, float], sampled: float) -> None:
    """Write at most `pairs` pairs of a corpus, whole instructions only.

    `shares` has the relative number of pairs of each dataset. Up to the share `sampled` of a dataset's pairs is of
    instructions with candidates of the language model. Instructions are taken in the order of their ids, which are
    hashes.
    """
    table = ds.dataset(corpus).to_table().sort_by("instruction_id")
    frame = table.select(["dataset", "instruction_id", "label_source"]).to_pandas()
    frame["sampled"] = frame["label_source"] == GENERATED
    groups = frame.groupby(["dataset", "instruction_id"]).agg(pairs=("sampled", "size"), sampled=("sampled", "any"))
    chosen: list[str] = []
    for name, share in shares.items():
        quota = int(pairs * share / sum(shares.values()))
        of, left = groups.loc[name], quota
        for kind, limit in ((of[of["sampled"]], int(quota * sampled)), (of[~of["sampled"]], quota)):
            taken = kind[kind["pairs"].cumsum() <= min(limit, left)]
            left -= int(taken["pairs"].sum())
            chosen += taken.index.tolist()
    pq.write_table(table.filter(pc.is_in(table["instruction_id"], pa.array(chosen))), target)


def pick_choices(instructions: Path, target: Path, templates: int) -> None:
    """Write held-out instructions with answer choices: those of at most `templates` templates for each row."""
    with_choices = pc.field("dataset").isin(CLASSIFIED) & pc.field("choices").is_valid()
    table = ds.dataset(instructions).to_table(filter=with_choices).sort_by("instruction_id")
    rows = table.select(["dataset", "example_id"]).to_pandas()
    place = rows.groupby(["dataset", "example_id"]).cumcount()
    pq.write_table(table.filter(pa.array(place < templates)), target)


def write_solutions(shared: Path, folder: Path, counts: Mapping[str, int]) -> None:
    """Write solutions of GSM8K: `counts[TRAIN]` problems as pairs, `train.parquet`, and others, `held_out.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(shared / "data" / "candidates" / "gsm8k_solutions.parquet")
    names = sorted(set(table["instruction_id"].to_pylist()))
    random.Random(_SEED).shuffle(names)
    held_out, train = (
        table.filter(pc.is_in(table["instruction_id"], pa.array(part)))
        for part in (names[: counts[HELD_OUT]], names[counts[HELD_OUT] :][: counts[TRAIN]])
    )
    rows = [
        {
            "pair_id": pair_ids(row["instruction"])(row["response"]),
            "instruction_id": row["instruction_id"],
            "dataset": "gsm8k",
            "template_id": "none",
            "instruction": row["instruction"],
            "response": row["response"],
            "label": float(row["is_correct"]),
            "label_source": GENERATED,
            "generator": row["generator"],
        }
        for row in train.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=LABELLED_PAIR), folder / "train.parquet")
    pq.write_table(held_out, folder / "held_out.parquet")
