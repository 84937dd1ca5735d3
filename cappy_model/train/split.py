"""The split of a corpus: which pairs are used for training, which for evaluation, and which are dropped.

One pass over the files assigns each row, in one byte. Two instructions are the same if their texts in lower case with
collapsed white space are equal, so all pairs of an instruction are on one side of the split.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cappy_model.train.arrange import among, arrange
from cappy_model.train.corpus import Columns, CorpusError, RowRange, instruction_keys, scan
from cappy_model.train.sample import Sample
from cappy_model.train.selection import DROPPED, EVALUATION, TRAINING, GroupStarts, Selection
from schemas.ids import seed_for

_HASHES = 2**64
_ELSEWHERE = 255  # an assignment while rows are added: the row comes again, in an arranged file
_COUNTED = ("read", "held_out", "held_out_instructions", "left_out", "not_drawn", "training", "evaluation")


@dataclass(frozen=True)
class Policy:
    """Rules that assign rows.

    `grouped`: draw instructions for training, whole, and keep their pairs together; otherwise draw pairs.
    `grouped_evaluation`: draw instructions for evaluation, as runs did not before there were groups. `held_out`: keys
    of instructions (see `instruction_key`) that are dropped. `evaluation_share`: share of the instructions, in [0, 1),
    kept for evaluation. `rates`: by column (`dataset`, `label_source`) and value, the share in [0, 1] that is kept;
    rates of both columns multiply. The limits are the maximum pairs of training and of evaluation, sampled evenly;
    None is no limit.
    """

    seed: int
    grouped: bool = True
    grouped_evaluation: bool = True
    held_out: frozenset[int] = frozenset()
    evaluation_share: float = 0.0
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    max_pairs: int | None = None
    max_evaluation_pairs: int | None = None


def select(
    urls: Sequence[str],
    policy: Policy,
    columns: Columns,
    folder: Path,
    *,
    storage: Mapping[str, Any],
    rows_per_range: int,
) -> Selection:
    """Assign each row of Parquet files; ranges have at most `rows_per_range` rows, or one group.

    Rows that do not stand with their group are copied to `folder`, sorted. Raises CorpusError, naming file and row,
    for a file without the columns and for a label out of range; also for a rate whose name does not occur in the
    corpus, for labels that are all equal, and if no pair is left for training or, with a share, for evaluation.
    """
    splitter = _Splitter(policy, columns)
    if not policy.grouped and not columns.preferences:
        ranges: list[RowRange] = []
        for url in urls:
            for opened, batch in scan(url, columns, storage=storage, rows_per_range=rows_per_range):
                ranges += opened
                splitter.add(batch)
        return splitter.selection(ranges, len(ranges), {})
    arranged = arrange(urls, columns, folder, storage=storage, rows_per_range=rows_per_range)
    here, elsewhere = arranged.ranges[: arranged.in_place], arranged.ranges[arranged.in_place :]
    for url in dict.fromkeys(part.url for part in here):
        for _, batch in scan(url, columns, storage=storage, rows_per_range=rows_per_range):
            splitter.add(batch, arranged.moved)
    for url in dict.fromkeys(part.url for part in elsewhere):
        for _, batch in scan(url, columns.arranged, storage=storage, rows_per_range=rows_per_range):
            splitter.add(batch)
    return splitter.selection(arranged.ranges, arranged.in_place, arranged.notes)


class _Splitter:
    """Assigns rows batch by batch, and counts them."""

    def __init__(self, policy: Policy, columns: Columns) -> None:
        self._policy, self._columns = policy, columns
        self._assignments: list[np.ndarray] = []
        self._counts: Counter[str] = Counter()
        self._sources: dict[tuple[str, str], int] = {}
        self._held_out: set[int] = set()
        self._samples = {
            TRAINING: Sample(policy.max_pairs, together=policy.grouped),
            EVALUATION: Sample(policy.max_evaluation_pairs, together=policy.grouped_evaluation),
        }
        self._groups = GroupStarts()
        self._rows = 0
        self._drawn_away = False  # whether a limit has dropped training rows
        self._lowest, self._highest = np.inf, -np.inf  # of the labels for training
        self._evaluated = int(policy.evaluation_share * _HASHES)

    def add(self, batch: pa.RecordBatch, moved: np.ndarray | None = None) -> None:
        """Assign the next rows. Rows of the instructions `moved` (uint64, sorted) are left out: they come again."""
        keys = instruction_keys(batch.column("instruction"))
        assignments = self._by_instruction(keys)
        if moved is not None:
            assignments[among(keys, moved)] = _ELSEWHERE
        self._counts["read"] += int((assignments != _ELSEWHERE).sum())
        self._counts["held_out"] += int((assignments == DROPPED).sum())
        assignments[assignments == _ELSEWHERE] = DROPPED
        pairs = list(zip(batch.column("dataset").to_pylist(), batch.column("label_source").to_pylist(), strict=True))
        codes = np.array([self._sources.setdefault(pair, len(self._sources)) for pair in pairs], dtype=np.int64)
        ids = {True: list(map(str, keys.tolist())), False: batch.column("pair_id").to_pylist()}
        drawn = ids[self._policy.grouped]
        for index in np.flatnonzero(assignments != DROPPED).tolist() if self._policy.rates else ():
            if not self._keeps(*pairs[index], ids[False][index], drawn[index]):
                assignments[index] = DROPPED
                self._counts["left_out"] += 1
        self._sample(TRAINING, assignments, codes, drawn)
        self._sample(EVALUATION, assignments, codes, ids[self._policy.grouped_evaluation])
        self._note_labels(batch.column("label").to_numpy()[assignments == TRAINING])
        if self._policy.grouped:
            self._groups.add(keys, _lengths(batch))
        self._assignments.append(assignments)
        self._rows += batch.num_rows

    def _by_instruction(self, keys: np.ndarray) -> np.ndarray:
        distinct, rows = np.unique(keys, return_inverse=True)
        assigned: np.ndarray = np.fromiter(map(self._assignment_of, distinct.tolist()), np.uint8)[rows]
        return assigned

    def _assignment_of(self, key: int) -> int:
        if key in self._policy.held_out:
            self._held_out.add(key)
            return DROPPED
        return EVALUATION if seed_for(self._policy.seed, "split", str(key)) < self._evaluated else TRAINING

    def _keeps(self, dataset: str, label_source: str, pair_id: str, draw_id: str) -> bool:
        rates, seed = self._policy.rates, self._policy.seed
        of_dataset = rates.get("dataset", {}).get(dataset, 1.0)
        of_source = rates.get("label_source", {}).get(label_source, 1.0)
        if not self._policy.grouped:
            of_dataset, of_source = 1.0, of_dataset * of_source
        return (of_dataset == 1.0 or seed_for(seed, "rate", draw_id) < int(of_dataset * _HASHES)) and (
            of_source == 1.0 or seed_for(seed, "rate", pair_id) < int(of_source * _HASHES)
        )

    def _sample(self, assignment: int, assignments: np.ndarray, codes: np.ndarray, drawn: list[str]) -> None:
        """Add the rows of an assignment to its sample; rows that are equal in `drawn` have equal keys."""
        sample, places = self._samples[assignment], np.flatnonzero(assignments == assignment)
        ids = (drawn[index] for index in places.tolist()) if sample.limit is not None else ()
        keys = np.fromiter((seed_for(self._policy.seed, "draw", each) for each in ids), np.uint64)
        sample.add(places + self._rows, codes[places], keys)

    def _note_labels(self, labels: np.ndarray) -> None:
        if len(labels):
            self._lowest, self._highest = min(self._lowest, labels.min()), max(self._highest, labels.max())

    def selection(self, ranges: Sequence[RowRange], in_place: int, notes: Mapping[str, int]) -> Selection:
        """Return the selection of all rows added, which are those of `ranges`."""
        assignments = np.concatenate(self._assignments) if self._assignments else np.zeros(0, np.uint8)
        self._check_rates()
        made_of = {}
        for name, assignment in (("training", TRAINING), ("evaluation", EVALUATION)):
            kept, sources, dropped = self._samples[assignment].result()
            assignments[dropped] = DROPPED
            self._counts["not_drawn"] += len(dropped)
            self._drawn_away |= assignment == TRAINING and len(dropped) > 0
            self._counts[name] = kept
            made_of[name] = self._made_of(sources)
        self._counts["held_out_instructions"] = len(self._held_out)
        self._check_not_empty(notes)
        groups = self._groups.of_training(assignments == TRAINING) if self._policy.grouped else None
        counts = {name: self._counts[name] for name in _COUNTED} | dict(notes)
        if groups is not None:
            counts |= {"instructions": len(groups.sizes), "single_responses": int((groups.sizes == 1).sum())}
        return Selection(ranges, in_place, self._columns, assignments, groups, counts, made_of)

    def _made_of(self, sources: Mapping[int, int]) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for (dataset, label_source), code in sorted(self._sources.items()):
            if sources.get(code):
                counts.setdefault(dataset, {})[label_source] = sources[code]
        return counts

    def _check_rates(self) -> None:
        for index, column in enumerate(("dataset", "label_source")):
            existing = sorted({source[index] for source in self._sources})
            unknown = [name for name in self._policy.rates.get(column, {}) if name not in existing]
            if unknown:
                raise CorpusError(
                    f"the weights name the {column} {unknown[0]!r}, which does not occur in the corpus; "
                    f"choose from {', '.join(existing) or 'none'}"
                )

    def _check_not_empty(self, notes: Mapping[str, int]) -> None:
        counts, policy = self._counts, self._policy
        if not counts["training"]:
            remedy = "give another corpus, or other weights, or a smaller --eval-fraction"
            if self._drawn_away:
                remedy = f"the first instruction drawn has more than --max-pairs {policy.max_pairs}: give more"
            if notes.get("equal_preferences"):
                remedy = f"{notes['equal_preferences']:,} preferences have two equal responses: check the two columns"
            raise CorpusError(
                f"no pair is left for training: of {counts['read']:,} read, {counts['held_out']:,} have a held-out "
                f"instruction, {counts['left_out']:,} were left out by their weights, and {counts['evaluation']:,} are "
                f"for evaluation; {remedy}"
            )
        if policy.evaluation_share and not counts["evaluation"]:
            raise CorpusError(
                f"a share of {policy.evaluation_share:g} of the instructions leaves none for evaluation; give a "
                "larger --eval-fraction or --max-eval-pairs, or --eval-fraction 0 for no evaluation"
            )
        if self._lowest == self._highest:
            raise CorpusError(
                f"all labels of the instructions for training are {self._lowest:g}: nothing tells right responses from "
                "wrong ones; give a corpus with both"
            )


def _lengths(pairs: pa.RecordBatch) -> np.ndarray:
    """Return the characters of each pair, int32[n]."""
    instructions, responses = (pc.utf8_length(pairs.column(name)) for name in ("instruction", "response"))
    lengths: np.ndarray = pc.add(instructions, responses).to_numpy().astype(np.int32)
    return lengths
