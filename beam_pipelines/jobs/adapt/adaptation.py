"""Candidates with references -> labelled pairs that adapt a scorer to their task (the paper's adaptation set)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.build_corpus.candidates import ORIGIN, PLACED_CANDIDATE, place_candidates
from beam_pipelines.jobs.build_corpus.config import CANDIDATE_COLUMNS
from beam_pipelines.jobs.build_corpus.labelling import (
    ground_truth_and_wrong,
    join_pairs,
    label_candidates,
    labelled_pairs,
)
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION, Mismatcher
from beam_pipelines.transforms.candidates import group_texts
from beam_pipelines.transforms.results import reject_row
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import from_rows
from schemas.stats import Stats

TEMPLATE = "adaptation"
"""The template_id of these pairs, whose instructions come from no template."""

UNNAMED = "unnamed"
"""The dataset of candidates without one."""

_CORRECT = 1.0
"""The Rouge-L of a correct response."""


def adaptation_instructions(
    candidates: Iterable[Mapping[str, Any]], rouge: RougeL, *, seed: int, stats: Stats
) -> pa.RecordBatch:
    """Return LABELLED_INSTRUCTION rows for CANDIDATE rows with references, one per instruction_id, ordered by it.

    `references` are those of all candidates of the instruction, in order. `wrong` holds as many responses: each is a
    reference of another instruction of the same dataset, drawn by seed, and redrawn up to five times if it is correct
    here, too. The responses that are still missing are counted in `stats` as `notes`, `mismatch_skipped`.
    """
    first: dict[str, Mapping[str, Any]] = {}
    texts_of: dict[str, dict[str, None]] = {}
    for row in candidates:
        if row["instruction_id"] is not None and row["instruction"] is not None:
            example = first.setdefault(row["instruction_id"], row)
            if row["instruction"] == example["instruction"]:
                texts_of.setdefault(row["instruction_id"], {}).update(dict.fromkeys(references_of(row)))
    rows = [first[instruction_id] for instruction_id in sorted(first)]
    references = [list(texts_of[row["instruction_id"]]) for row in rows]
    datasets = [row.get("dataset") or UNNAMED for row in rows]
    members: dict[str, list[int]] = {}
    for index, dataset in enumerate(datasets):
        members.setdefault(dataset, []).append(index)
    mismatcher = Mismatcher(references, rouge, overlap_limit=_CORRECT, seed=seed)
    labelled = []
    for index, (row, texts, dataset) in enumerate(zip(rows, references, datasets, strict=True)):
        instruction_id = row["instruction_id"]
        wrong = mismatcher.draw(index, members[dataset], instruction_id=instruction_id, count=len(texts))
        stats.counts["notes", "mismatch_skipped"] += len(texts) - len(wrong)
        labelled.append(
            {
                "instruction_id": instruction_id,
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
    return from_rows(labelled, LABELLED_INSTRUCTION)


class UsableCandidates(NamedTuple):
    """The candidates of a unit that have references: `rows` as they are, `placed` as PLACED_CANDIDATE; and the rejects.

    `placed` lacks candidates with a null value, which are among the REJECT rows, too.
    """

    rows: list[dict[str, Any]]
    placed: pa.RecordBatch
    rejects: list[dict[str, Any]]


def usable_candidates(unit: Unit) -> UsableCandidates:
    """Return the candidates of a unit that have references; the others are rejected."""
    rows = _with_text_datasets(unit.rows).to_pylist()
    has_references = np.array([bool(references_of(row)) for row in rows], dtype=bool)
    rejects = [
        reject_row(
            unit,
            int(unit.positions[index]),
            stage="label",
            reason="no_references",
            detail="the candidate has no reference that it could be compared with",
            excerpt=rows[index]["response"],
            origin=ORIGIN,
        )
        for index in np.flatnonzero(~has_references).tolist()
    ]
    kept = np.flatnonzero(has_references)
    chunk = unit.rows.select(list(CANDIDATE_COLUMNS)).take(pa.array(kept))
    placed = place_candidates(unit._replace(rows=chunk, positions=unit.positions[kept]))
    return UsableCandidates([rows[index] for index in kept.tolist()], placed.rows[0], [*rejects, *placed.rejects])


def _with_text_datasets(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with their `dataset`, if they have one, as text."""
    index = rows.schema.get_field_index("dataset")
    return rows if index < 0 else rows.set_column(index, "dataset", group_texts(rows, "dataset"))


def references_of(candidate: Mapping[str, Any]) -> list[str]:
    """Return the distinct references of a candidate, stripped, without empty ones. A text is a list of one."""
    found = candidate["references"] or ()
    texts = [found] if isinstance(found, str) else found
    return list(dict.fromkeys(filter(None, map(str.strip, filter(None, texts)))))


def adaptation_pairs(
    instructions: pa.RecordBatch, candidates: Sequence[pa.RecordBatch], rouge: RougeL, stats: Stats
) -> tuple[pa.RecordBatch, Sequence[dict[str, Any]]]:
    """Return LABELLED_PAIR rows and REJECT rows for LABELLED_INSTRUCTION and PLACED_CANDIDATE rows.

    References have the label 1, wrong responses 0, and candidates their Rouge-L. Of equal pairs one is kept: ground
    truth before generated before wrong.
    """
    together = pa.Table.from_batches(candidates, PLACED_CANDIDATE).combine_chunks().to_batches()
    chunk = together[0] if together else pa.RecordBatch.from_pylist([], PLACED_CANDIDATE)
    generated, rejects = label_candidates(chunk, instructions, rouge, stats)
    pairs = join_pairs([*ground_truth_and_wrong(instructions), generated])
    return labelled_pairs(instructions, pairs, stats), rejects
