"""The instructions and candidates of one shard -> labelled pairs: one row per pair, in a total order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.output import OutputDir
from beam_pipelines.jobs.build_corpus.candidates import PLACED_CANDIDATE
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION
from beam_pipelines.transforms.rejects import write_rejects
from beam_pipelines.transforms.shuffle import gather, text_keys
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


class Pairs(NamedTuple):
    """Pairs before they are merged, as columns of equal length n.

    `parent` int64[n] is the row of the instruction, `rank` int8[n] the place of the source in LABEL_SOURCES, and
    `generation` a struct of generator, decoding and sample_index, null where no model was asked.
    """

    parent: np.ndarray
    response: pa.Array
    label: np.ndarray
    rank: np.ndarray
    generation: pa.Array


_GENERATION_TYPE = pa.struct([PLACED_CANDIDATE.field(name) for name in _GENERATION])


def ground_truth_and_wrong(instructions: pa.RecordBatch) -> Iterator[Pairs]:
    """The pairs that LABELLED_INSTRUCTION rows hold: references are right (1.0), wrong responses are not (0.0)."""
    has_choices = instructions["has_choices"].to_numpy(zero_copy_only=False)
    for column, label in (("references", 1.0), ("wrong", 0.0)):
        parent = pc.list_parent_indices(instructions[column]).to_numpy().astype(np.int64)
        response = pc.list_flatten(instructions[column])
        if label:
            rank = np.full(len(parent), _RANK[GROUND_TRUTH], dtype=np.int8)
        else:
            rank = np.where(has_choices[parent], _RANK[WRONG_CHOICE], _RANK[MISMATCH]).astype(np.int8)
        labels = np.full(len(parent), label, dtype=np.float32)
        yield Pairs(parent, response, labels, rank, pa.nulls(len(parent), _GENERATION_TYPE))


def label_candidates(
    candidates: pa.RecordBatch, instructions: pa.RecordBatch, rouge: RougeL, stats: Stats
) -> tuple[Pairs, list[dict[str, Any]]]:
    """Each candidate with its Rouge-L against the references of its instruction (the best of several).

    A candidate whose instruction_id is not among the instructions, or whose instruction has another text there, is a
    reject. Responses are stripped; empty ones are dropped and counted, those without a Rouge token are counted.
    """
    rows = {known: row for row, known in enumerate(instructions["instruction_id"].to_pylist())}
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
        found = rouge.tokens(text)
        stats.counts["notes", "no_rouge_tokens"] += not found
        parent.append(row)
        response.append(text)
        label.append(max(rouge.f_measure(reference, found) for reference in tokens[row]))
        kept.append(index)
    taken = candidates.take(pa.array(kept, pa.int64()))
    generation = pa.StructArray.from_arrays([taken[name] for name in _GENERATION], fields=list(_GENERATION_TYPE))
    rank = np.full(len(parent), _RANK[GENERATED], dtype=np.int8)
    pairs = Pairs(
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


def join_pairs(parts: Sequence[Pairs]) -> Pairs:
    """One after the other."""
    return Pairs(
        np.concatenate([part.parent for part in parts]),
        pa.concat_arrays([part.response for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.rank for part in parts]),
        pa.concat_arrays([part.generation for part in parts]),
    )


class Merged(NamedTuple):
    """The pairs that stand for all equal ones (ascending positions), and the generators they take over."""

    kept: np.ndarray
    generators: dict[int, str]


def merge_equal(ids: Sequence[str], pairs: Pairs, instructions: pa.RecordBatch) -> Merged:
    """One pair for each id: the smallest by source rank, -label, dataset, subset, split, template_id, instruction_id,
    generator, decoding, sample_index (nulls first). Its generator is that of its smallest generated duplicate."""
    first: dict[str, int] = {}
    equal: dict[str, list[int]] = {}
    for index, known in enumerate(ids):
        if first.setdefault(known, index) != index:
            equal.setdefault(known, [first[known]]).append(index)
    kept = np.ones(len(ids), dtype=bool)
    generators: dict[int, str] = {}
    for group in equal.values():
        ordered = sorted(group, key=lambda index: _order(index, pairs, instructions))
        kept[ordered[1:]] = False
        generated = [index for index in ordered if pairs.rank[index] == _RANK[GENERATED]]
        if generated:
            generators[ordered[0]] = pairs.generation[generated[0]]["generator"].as_py()
    return Merged(np.flatnonzero(kept), generators)


def _order(index: int, pairs: Pairs, instructions: pa.RecordBatch) -> tuple[Any, ...]:
    row = int(pairs.parent[index])
    names = ("dataset", "subset", "split", "template_id", "instruction_id")
    generation = pairs.generation[index].as_py() or dict.fromkeys(_GENERATION)
    values = [instructions[name][row].as_py() for name in names] + list(generation.values())
    # A null is smaller than any value.
    return (int(pairs.rank[index]), -float(pairs.label[index]), *((value is not None, value) for value in values))


def labelled_pairs(instructions: pa.RecordBatch, pairs: Pairs, stats: Stats) -> pa.RecordBatch:
    """LABELLED_PAIR rows, one for each id, ordered by the hash of the instruction, then by pair_id.

    Counts the pairs made, merged and written by source.
    """
    id_of = [pair_ids(text) for text in instructions["instruction"].to_pylist()]
    found = zip(pairs.parent.tolist(), pairs.response.to_pylist(), strict=True)
    ids = [id_of[parent](response) for parent, response in found]
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
    """Counts written pairs by dataset, template and source, and by generator, labels and lengths; keeps samples."""
    keys = ["dataset", "subset", "split", "template_id", "label_source"]
    counts = pa.table([rows[name] for name in keys], keys).group_by(keys).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        place = (row["dataset"], row["subset"] or "", row["split"] or "", row["template_id"])
        stats.counts["pairs_of", *place, row["label_source"]] += row["count_all"]
    for found in pc.value_counts(rows["generator"].drop_null()).to_pylist():
        stats.counts["generators", found["values"]] += found["counts"]
    labels, lengths = rows["label"].to_numpy(), pc.utf8_length(rows["response"]).to_numpy()
    source = rows["label_source"].to_numpy(zero_copy_only=False)
    hashes = rows["pair_id"].to_numpy(zero_copy_only=False)
    for name in LABEL_SOURCES:
        mine = np.flatnonzero(source == name)
        count_labels(stats, ("labels", name), labels[mine])
        count_lengths(stats, ("lengths", "response", name), lengths[mine])
        for index in mine[np.argsort(hashes[mine])[:SAMPLES_PER_KEY]]:
            stats.sample(name, int(hashes[index], 16), rows.slice(int(index), 1).to_pylist()[0])


def finish_shard(shard: int, slices: Iterable[bytes], *, folder: OutputDir, shards: int, rouge: RougeL) -> Stats:
    """Labels, merges and orders what the `slices` of a shard hold, in any order, and writes it; what was counted."""
    stats = Stats()
    instructions, candidates = gather(slices, LABELLED_INSTRUCTION, PLACED_CANDIDATE)
    generated, rejects = label_candidates(candidates, instructions, rouge, stats)
    pairs = join_pairs([*ground_truth_and_wrong(instructions), generated])
    stats.counts["candidates", "rejected"] += len(rejects)
    rows = labelled_pairs(instructions, pairs, stats)
    count_pairs(rows, stats)
    name = f"shard-{shard:05d}-of-{shards:05d}"
    stats.files.add(folder.write_parquet(f"pairs/{name}.parquet", [rows], LABELLED_PAIR))
    return stats.add(write_rejects(folder, name, rejects))


@dataclass
class LabelAndWrite(beam.PTransform):
    """(shard, slices) -> `pairs/shard-SSSSS-of-NNNNN.parquet`, the rejects of its candidates, and its stats."""

    folder: OutputDir
    shards: int
    rouge: str

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return shards | "Finish" >> beam.ParDo(_LabelAndWrite(self.folder, self.shards, self.rouge))


class _LabelAndWrite(beam.DoFn):
    def __init__(self, folder: OutputDir, shards: int, rouge: str) -> None:
        self._folder, self._shards, self._tokenizer = folder, shards, rouge

    def setup(self) -> None:
        self._rouge = RougeL(self._tokenizer)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Stats]:
        shard, slices = element
        yield finish_shard(shard, slices, folder=self._folder, shards=self._shards, rouge=self._rouge)
