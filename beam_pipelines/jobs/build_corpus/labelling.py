"""Label the instructions and candidates of one shard: one row per distinct pair, in a total order."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.jobs.build_corpus.candidates import PLACED_CANDIDATE
from beam_pipelines.transforms.results import Result
from beam_pipelines.transforms.shuffle import text_keys
from beam_pipelines.transforms.wordless import count_wordless
from cappy_model.metrics.rouge import RougeL
from schemas.ids import pair_ids
from schemas.records import (
    EXCERPT_CHARACTERS,
    GENERATED,
    GROUND_TRUTH,
    LABEL_SOURCES,
    LABELLED_PAIR,
    MISMATCH,
    WRONG_CHOICE,
    reject,
)
from schemas.stats import SAMPLES_PER_KEY, Stats, count_labels, count_lengths

_RANK = {source: rank for rank, source in enumerate(LABEL_SOURCES)}
_GENERATION = ("generator", "decoding", "sample_index")
_GENERATION_TYPE = pa.struct([PLACED_CANDIDATE.field(name) for name in _GENERATION])


class UnmergedPairs(NamedTuple):
    """Pairs before equal ones are merged, as columns of equal length n.

    Args:
        parent: int64[n], the row of the instruction.
        response: string[n].
        label: float32[n] in [0, 1].
        rank: int8[n], the index of the label source in LABEL_SOURCES.
        generation: struct[n] of generator, decoding and sample_index; null for responses that no model generated.
    """

    parent: np.ndarray
    response: pa.Array
    label: np.ndarray
    rank: np.ndarray
    generation: pa.Array


def ground_truth_and_wrong(instructions: pa.RecordBatch) -> Iterator[UnmergedPairs]:
    """Yield the pairs of LABELLED_INSTRUCTION rows: references with the label 1, then wrong responses with 0."""
    has_choices = instructions["has_choices"].to_numpy(zero_copy_only=False)
    for column, label in (("references", 1.0), ("wrong", 0.0)):
        parent = pc.list_parent_indices(instructions[column]).to_numpy().astype(np.int64)
        response = pc.list_flatten(instructions[column])
        if label:
            rank = np.full(len(parent), _RANK[GROUND_TRUTH], dtype=np.int8)
        else:
            rank = np.where(has_choices[parent], _RANK[WRONG_CHOICE], _RANK[MISMATCH]).astype(np.int8)
        labels = np.full(len(parent), label, dtype=np.float32)
        yield UnmergedPairs(parent, response, labels, rank, pa.nulls(len(parent), _GENERATION_TYPE))


def label_candidates(
    candidates: pa.RecordBatch, instructions: pa.RecordBatch, rouge: RougeL, stats: Stats
) -> tuple[UnmergedPairs, list[dict[str, Any]]]:
    """Return the candidates labelled by Rouge-L, the largest over the references of the instruction, and reject rows.

    A candidate whose instruction_id is not among the instructions, or whose instruction has another text there, is
    rejected. Responses are stripped; empty ones are dropped and counted, those without a Rouge token are counted.

    Args:
        candidates: PLACED_CANDIDATE rows.
        instructions: LABELLED_INSTRUCTION rows.
        rouge: computes Rouge-L.
        stats: takes the counts.
    """
    rows = {instruction_id: row for row, instruction_id in enumerate(instructions["instruction_id"].to_pylist())}
    texts, references = instructions["instruction"], instructions["references"]
    tokens: dict[int, list[Any]] = {}
    parent, response, label, kept, rejects = [], [], [], [], []
    for index, candidate in enumerate(candidates.to_pylist()):
        row = rows.get(candidate["instruction_id"])
        if row is None or texts[row].as_py() != candidate["instruction"]:
            rejects.append(_unknown(candidate))
            continue
        text = candidate["response"].strip()
        if not text:
            stats.counts["notes", "empty_generations"] += 1
            continue
        if row not in tokens:
            tokens[row] = [rouge.tokens(reference) for reference in references[row].as_py()]
        response_tokens = rouge.tokens(text)
        stats.counts["notes", "no_rouge_tokens"] += not response_tokens
        parent.append(row)
        response.append(text)
        label.append(max(rouge.f_measure(reference, response_tokens) for reference in tokens[row]))
        if not label[-1]:
            count_wordless(stats, rouge, text, references[row].as_py())
        kept.append(index)
    labelled = candidates.take(pa.array(kept, pa.int64()))
    generation = pa.StructArray.from_arrays([labelled[name] for name in _GENERATION], fields=list(_GENERATION_TYPE))
    rank = np.full(len(parent), _RANK[GENERATED], dtype=np.int8)
    pairs = UnmergedPairs(
        np.array(parent, dtype=np.int64),
        pa.array(response, pa.string()),
        np.array(label, dtype=np.float32),
        rank,
        generation,
    )
    return pairs, rejects


def _unknown(candidate: dict[str, Any]) -> dict[str, Any]:
    detail = f"no instruction of the corpus has the id {candidate['instruction_id']} and this text"
    return reject(
        stage="label",
        reason="unknown_instruction",
        source=candidate["source"],
        position=candidate["position"],
        detail=detail,
        excerpt=f"{candidate['instruction'][: EXCERPT_CHARACTERS // 2]} => {candidate['response']}",
    )


def join_pairs(parts: Sequence[UnmergedPairs]) -> UnmergedPairs:
    """Concatenate pairs."""
    return UnmergedPairs(
        np.concatenate([part.parent for part in parts]),
        pa.concat_arrays([part.response for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.rank for part in parts]),
        pa.concat_arrays([part.generation for part in parts]),
    )


class MergedPairs(NamedTuple):
    """The pairs kept, one of each group of equal ones, and the generators that they take over from the others.

    Args:
        kept: int64, ascending indices of the pairs kept.
        generators: index of a pair -> generator.
    """

    kept: np.ndarray
    generators: dict[int, str]


def merge_equal(ids: Sequence[str], pairs: UnmergedPairs, instructions: pa.RecordBatch) -> MergedPairs:
    """Keep one pair for each id, with the generator of the smallest generated pair among the equal ones.

    The pair kept is the smallest by rank, -label, dataset, subset, split, template_id, instruction_id, generator,
    decoding and sample_index, nulls first.
    """
    first: dict[str, int] = {}
    equal: dict[str, list[int]] = {}
    for index, pair_id in enumerate(ids):
        if first.setdefault(pair_id, index) != index:
            equal.setdefault(pair_id, [first[pair_id]]).append(index)
    kept = np.ones(len(ids), dtype=bool)
    generators: dict[int, str] = {}
    for group in equal.values():
        ordered = sorted(group, key=lambda index: _order(index, pairs, instructions))
        kept[ordered[1:]] = False
        generated = [index for index in ordered if pairs.rank[index] == _RANK[GENERATED]]
        if generated:
            generators[ordered[0]] = pairs.generation[generated[0]]["generator"].as_py()
    return MergedPairs(np.flatnonzero(kept), generators)


def _order(index: int, pairs: UnmergedPairs, instructions: pa.RecordBatch) -> tuple[Any, ...]:
    row = int(pairs.parent[index])
    names = ("dataset", "subset", "split", "template_id", "instruction_id")
    generation = pairs.generation[index].as_py() or dict.fromkeys(_GENERATION)
    values = [instructions[name][row].as_py() for name in names] + list(generation.values())
    # A null is smaller than any value.
    return (int(pairs.rank[index]), -float(pairs.label[index]), *((value is not None, value) for value in values))


def labelled_pairs(instructions: pa.RecordBatch, pairs: UnmergedPairs, stats: Stats) -> pa.RecordBatch:
    """Return LABELLED_PAIR rows, one for each pair_id, ordered by the hash of the instruction, then by pair_id.

    Counts, by label source, the pairs made, merged into others, and written.
    """
    id_of = [pair_ids(text) for text in instructions["instruction"].to_pylist()]
    texts = zip(pairs.parent.tolist(), pairs.response.to_pylist(), strict=True)
    ids = [id_of[parent](response) for parent, response in texts]
    merged = merge_equal(ids, pairs, instructions)
    keys = text_keys(instructions["instruction"])[pairs.parent[merged.kept]]
    kept = merged.kept[np.lexsort((np.array(ids, dtype="S32")[merged.kept], keys))]
    for rank, source in enumerate(LABEL_SOURCES):
        made, written = int((pairs.rank == rank).sum()), int((pairs.rank[kept] == rank).sum())
        if made:
            stats.counts["pairs", source, "made"] += made
            stats.counts["pairs", source, "merged"] += made - written
            stats.counts["pairs", source, "written"] += written
    generators = pc.struct_field(pairs.generation, "generator").to_pylist()
    parents = instructions.take(pa.array(pairs.parent[kept]))
    columns = {name: parents[name] for name in parents.schema.names}
    columns["pair_id"] = pa.array([ids[index] for index in kept], pa.string())
    columns["response"] = pairs.response.take(pa.array(kept))
    columns["label"] = pa.array(pairs.label[kept])
    columns["label_source"] = pa.array(np.array(LABEL_SOURCES)[pairs.rank[kept]], pa.string())
    columns["generator"] = pa.array([merged.generators.get(i) or generators[i] for i in kept.tolist()], pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in LABELLED_PAIR.names], schema=LABELLED_PAIR)


def count_pairs(rows: pa.RecordBatch, stats: Stats) -> None:
    """Count written pairs by dataset, template and label source, by generator, by label and by length; keep samples."""
    keys = ["dataset", "subset", "split", "template_id", "label_source"]
    counts = pa.table([rows[name] for name in keys], keys).group_by(keys).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        place = (row["dataset"], row["subset"] or "", row["split"] or "", row["template_id"])
        stats.counts["pairs_of", *place, row["label_source"]] += row["count_all"]
    for generator in pc.value_counts(rows["generator"].drop_null()).to_pylist():
        stats.counts["generators", generator["values"]] += generator["counts"]
    labels, lengths = rows["label"].to_numpy(), pc.utf8_length(rows["response"]).to_numpy()
    source = rows["label_source"].to_numpy(zero_copy_only=False)
    hashes = rows["pair_id"].to_numpy(zero_copy_only=False)
    for name in LABEL_SOURCES:
        of_source = np.flatnonzero(source == name)
        count_labels(stats, ("labels", name), labels[of_source])
        count_lengths(stats, ("lengths", "response", name), lengths[of_source])
        for index in of_source[np.argsort(hashes[of_source])[:SAMPLES_PER_KEY]]:
            stats.sample(name, int(hashes[index], 16), rows.slice(int(index), 1).to_pylist()[0])


def finish_shard(name: str, instructions: pa.RecordBatch, candidates: pa.RecordBatch, *, rouge: RougeL) -> Result:
    """Label, merge and order the pairs of a shard, whose rows may be in any order.

    Args:
        name: name of the shard's file.
        instructions: LABELLED_INSTRUCTION rows.
        candidates: PLACED_CANDIDATE rows.
        rouge: computes Rouge-L.
    """
    stats = Stats()
    generated, rejects = label_candidates(candidates, instructions, rouge, stats)
    pairs = join_pairs([*ground_truth_and_wrong(instructions), generated])
    stats.counts["candidates", "rejected"] += len(rejects)
    rows = labelled_pairs(instructions, pairs, stats)
    count_pairs(rows, stats)
    return Result(name, [rows], LABELLED_PAIR, rejects, stats)
