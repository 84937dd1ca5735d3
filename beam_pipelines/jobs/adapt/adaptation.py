"""Candidates with references -> the pairs that adapt a scorer to their task (the paper's adaptation set)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.build_corpus.candidates import NEEDED, ORIGIN, PLACED_CANDIDATE, place_candidates
from beam_pipelines.jobs.build_corpus.labelling import (
    ground_truth_and_wrong,
    join_pairs,
    label_candidates,
    labelled_pairs,
)
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION, Mismatcher
from beam_pipelines.transforms.rejects import reject_at
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import from_rows
from schemas.stats import Stats

TEMPLATE = "adaptation"
"""The template_id of these pairs, whose instructions come as they are."""

UNNAMED = "unnamed"
"""The dataset of candidates that name none."""

_WORD_FOR_WORD = 1.0
"""The Rouge-L of a response that is right."""


def adaptation_instructions(
    candidates: Iterable[Mapping[str, Any]], rouge: RougeL, *, seed: int, stats: Stats
) -> pa.RecordBatch:
    """LABELLED_INSTRUCTION rows for CANDIDATE rows that have references, one for each instruction_id, ordered by it.

    Its references are those of all its candidates, in order. `wrong` are as many responses as there are references,
    each a reference of another instruction of the same dataset, drawn by seed and drawn again where it is right here,
    too. What is missing after five draws is counted.
    """
    first: dict[str, Mapping[str, Any]] = {}
    texts_of: dict[str, dict[str, None]] = {}
    for row in candidates:
        if row["instruction_id"] is not None and row["instruction"] is not None:
            example = first.setdefault(row["instruction_id"], row)
            if row["instruction"] == example["instruction"]:
                texts_of.setdefault(row["instruction_id"], {}).update(dict.fromkeys(references_of(row)))
    rows = [first[known] for known in sorted(first)]
    references = [list(texts_of[row["instruction_id"]]) for row in rows]
    datasets = [row.get("dataset") or UNNAMED for row in rows]
    members: dict[str, list[int]] = {}
    for index, dataset in enumerate(datasets):
        members.setdefault(dataset, []).append(index)
    mismatcher = Mismatcher(references, rouge, overlap_limit=_WORD_FOR_WORD, seed=seed)
    made = []
    for index, (row, texts, dataset) in enumerate(zip(rows, references, datasets, strict=True)):
        known = row["instruction_id"]
        wrong = mismatcher.draw(index, members[dataset], instruction_id=known, count=len(texts))
        stats.counts["notes", "mismatch_skipped"] += len(texts) - len(wrong)
        made.append(
            {
                "instruction_id": known,
                "instruction": row["instruction"],
                "dataset": dataset,
                "subset": None,
                "split": None,
                "template_id": TEMPLATE,
                "references": texts,
                "wrong": wrong,
                "has_choices": False,
            }
        )
    return from_rows(made, LABELLED_INSTRUCTION)


def usable(unit: Unit) -> tuple[list[dict[str, Any]], pa.RecordBatch, list[dict[str, Any]]]:
    """The rows of a unit of candidates that have references, as they are and as PLACED_CANDIDATE; and REJECT rows."""
    found = unit.rows.to_pylist()
    has_references = np.array([bool(references_of(row)) for row in found], dtype=bool)
    rejects = [
        reject_at(
            *(unit, int(unit.positions[index])),
            origin=ORIGIN,
            stage="label",
            reason="no_references",
            detail="the candidate has no reference that it could be compared with",
            excerpt=found[index]["response"],
        )
        for index in np.flatnonzero(~has_references).tolist()
    ]
    kept = np.flatnonzero(has_references)
    rows = unit.rows.select(list(NEEDED)).take(pa.array(kept))
    placed = place_candidates(unit._replace(rows=rows, positions=unit.positions[kept]))
    return [found[index] for index in kept.tolist()], placed.chunk, [*rejects, *placed.rejects]


def references_of(candidate: Mapping[str, Any]) -> list[str]:
    """The distinct references of a candidate, stripped, without empty ones."""
    return list(dict.fromkeys(filter(None, map(str.strip, filter(None, candidate["references"] or ())))))


def adaptation_pairs(
    instructions: pa.RecordBatch, candidates: Sequence[pa.RecordBatch], rouge: RougeL, stats: Stats
) -> tuple[pa.RecordBatch, Sequence[dict[str, Any]]]:
    """LABELLED_PAIR rows, and REJECT rows: references 1, wrong responses 0, PLACED_CANDIDATE rows by their Rouge-L.

    Equal pairs are one, ground truth before generated before wrong.
    """
    together = pa.Table.from_batches(candidates, PLACED_CANDIDATE).combine_chunks().to_batches()
    chunk = together[0] if together else pa.RecordBatch.from_pylist([], PLACED_CANDIDATE)
    generated, rejects = label_candidates(chunk, instructions, rouge, stats)
    pairs = join_pairs([*ground_truth_and_wrong(instructions), generated])
    return labelled_pairs(instructions, pairs, stats), rejects
