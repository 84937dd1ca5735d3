"""The split of a corpus: which pairs are used for training, which for evaluation, and which are dropped.

One pass over the files assigns each row, in one byte. Two instructions are the same if their texts in lower case with
collapsed white space are equal, so all pairs of an instruction are on one side of the split.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cappy_model.train.corpus import COLUMNS, CorpusError, RowRange, instruction_key, scan
from schemas.ids import seed_for

DROPPED, TRAINING, EVALUATION = range(3)
"""The assignments of a row."""

_HASHES = 2**64
_ASSIGNMENTS_FILE, _SUMMARY_FILE = "rows.npy", "rows.json"


@dataclass(frozen=True)
class Policy:
    """Rules that assign rows.

    `held_out`: keys of instructions (see `instruction_key`) that are dropped. `evaluation_share`: share of the
    instructions, in [0, 1), kept for evaluation. `rates`: by column (`dataset`, `label_source`) and value, the share
    in [0, 1] of the pairs that is kept; rates of both columns multiply. The limits are the maximum pairs of training
    and of evaluation, sampled evenly; None is no limit.
    """

    seed: int
    held_out: frozenset[int] = frozenset()
    evaluation_share: float = 0.0
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    max_pairs: int | None = None
    max_evaluation_pairs: int | None = None


@dataclass(frozen=True)
class Selection:
    """The assignment of each row of a corpus.

    `ranges`: the rows of the corpus in order. `assignments` uint8[rows]. `counts`: rows `read`, `held_out`,
    `left_out` (by a rate), `not_drawn` (beyond a limit), for `training` and for `evaluation`, and the distinct
    `held_out_instructions`. `made_of`: pairs by `training` or `evaluation`, dataset and label source.
    """

    ranges: Sequence[RowRange]
    assignments: np.ndarray
    counts: Mapping[str, int]
    made_of: Mapping[str, Mapping[str, Mapping[str, int]]]

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64[ranges + 1]: the positions in `assignments` where ranges start."""
        return np.concatenate([[0], np.cumsum([part.rows for part in self.ranges], dtype=np.int64)])

    def rows_of(self, number: int, assignment: int) -> np.ndarray:
        """Return the rows of range `number` with this assignment: int64[m], ascending, counted within the range."""
        return np.flatnonzero(self.assignments[self._starts[number] : self._starts[number + 1]] == assignment)

    @cached_property
    def training_rows(self) -> np.ndarray:
        """int64[ranges]: training rows of each range."""
        rows: np.ndarray = np.add.reduceat(self.assignments == TRAINING, self._starts[:-1], dtype=np.int64)
        return rows

    def save(self, folder: Path, urls: Sequence[str]) -> None:
        """Write the selection of the files at `urls` into a folder; the file that `load` looks for comes last.

        Files are recorded by their index in `urls`, so that a corpus may move between two launches of a run.
        """
        np.save(folder / _ASSIGNMENTS_FILE, self.assignments)
        numbers = {url: number for number, url in enumerate(urls)}
        ranges = [(numbers[part.url], *part[1:]) for part in self.ranges]
        temporary = folder / f"{_SUMMARY_FILE}.tmp"
        temporary.write_text(json.dumps({"pieces": ranges, "counts": self.counts, "made_of": self.made_of}))
        temporary.replace(folder / _SUMMARY_FILE)

    @classmethod
    def load(cls, folder: Path, urls: Sequence[str]) -> "Selection | None":
        """Load a selection of the same files at `urls`, its assignments memory-mapped; None if none was saved."""
        if not (folder / _SUMMARY_FILE).is_file():
            return None
        summary = json.loads((folder / _SUMMARY_FILE).read_text())
        ranges = [RowRange(urls[number], *rest) for number, *rest in summary["pieces"]]
        assignments = np.load(folder / _ASSIGNMENTS_FILE, mmap_mode="r")
        return cls(ranges, assignments, summary["counts"], summary["made_of"])

    @staticmethod
    def delete(folder: Path) -> None:
        """Delete a saved selection; the file that `load` looks for goes first."""
        for name in (_SUMMARY_FILE, _ASSIGNMENTS_FILE):
            (folder / name).unlink(missing_ok=True)


def select(urls: Sequence[str], policy: Policy, *, storage: Mapping[str, Any], rows_per_range: int) -> Selection:
    """Assign each row of Parquet files; ranges have at most `rows_per_range` rows.

    Raises CorpusError, naming file and row, for a file without the columns and for a label outside [0, 1]; also for a
    rate whose name does not occur in the corpus, and if no pair is left for training or, with a share, for evaluation.
    """
    splitter = _Splitter(policy)
    ranges: list[RowRange] = []
    for url in urls:
        for opened, batch in scan(url, storage=storage, rows_per_range=rows_per_range):
            ranges += opened
            splitter.add(batch)
    return splitter.selection(ranges)


class _Splitter:
    """Assigns rows batch by batch, and counts them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._assignments: list[np.ndarray] = []
        self._counts: Counter[str] = Counter()
        self._groups: dict[tuple[str, str], int] = {}
        self._held_out: set[int] = set()
        self._samples = {TRAINING: _Sample(policy.max_pairs), EVALUATION: _Sample(policy.max_evaluation_pairs)}
        self._evaluated = int(policy.evaluation_share * _HASHES)

    def add(self, batch: pa.RecordBatch) -> None:
        """Assign the next rows."""
        rows = {name: batch.column(name).to_pylist() for name in COLUMNS if name not in ("response", "label")}
        assignments = self._by_instruction(rows["instruction"])
        groups = list(zip(rows["dataset"], rows["label_source"], strict=True))
        codes = np.array([self._groups.setdefault(group, len(self._groups)) for group in groups], dtype=np.int64)
        for index in np.flatnonzero(assignments != DROPPED).tolist():
            if not self._keeps(groups[index], rows["pair_id"][index]):
                assignments[index] = DROPPED
                self._counts["left_out"] += 1
        start = self._counts["read"]
        for assignment, sample in self._samples.items():
            places = np.flatnonzero(assignments == assignment)
            ids = (rows["pair_id"][index] for index in places.tolist()) if sample.limit is not None else ()
            keys = np.fromiter((seed_for(self._policy.seed, "draw", each) for each in ids), np.uint64)
            sample.add(places + start, codes[places], keys)
        self._assignments.append(assignments)
        self._counts["read"] += batch.num_rows

    def _by_instruction(self, instructions: list[str]) -> np.ndarray:
        by_text = {text: self._assignment_of(instruction_key(text)) for text in dict.fromkeys(instructions)}
        assignments = np.array([by_text[text] for text in instructions], dtype=np.uint8)
        self._counts["held_out"] += int((assignments == DROPPED).sum())
        return assignments

    def _assignment_of(self, key: int) -> int:
        if key in self._policy.held_out:
            self._held_out.add(key)
            return DROPPED
        return EVALUATION if seed_for(self._policy.seed, "split", str(key)) < self._evaluated else TRAINING

    def _keeps(self, group: tuple[str, str], pair_id: str) -> bool:
        dataset, label_source = group
        rates = self._policy.rates
        rate = rates.get("dataset", {}).get(dataset, 1.0) * rates.get("label_source", {}).get(label_source, 1.0)
        return rate == 1.0 or seed_for(self._policy.seed, "rate", pair_id) < int(rate * _HASHES)

    def selection(self, ranges: Sequence[RowRange]) -> Selection:
        """Return the selection of all rows added, which are those of `ranges`."""
        assignments = np.concatenate(self._assignments) if self._assignments else np.zeros(0, np.uint8)
        self._check_rates()
        made_of = {}
        for name, assignment in (("training", TRAINING), ("evaluation", EVALUATION)):
            kept, groups, dropped = self._samples[assignment].result()
            assignments[dropped] = DROPPED
            self._counts["not_drawn"] += len(dropped)
            self._counts[name] = kept
            made_of[name] = self._made_of(groups)
        self._counts["held_out_instructions"] = len(self._held_out)
        self._check_not_empty()
        names = (*("read", "held_out", "held_out_instructions", "left_out", "not_drawn"), "training", "evaluation")
        return Selection(ranges, assignments, {name: self._counts[name] for name in names}, made_of)

    def _made_of(self, groups: Mapping[int, int]) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for (dataset, label_source), code in sorted(self._groups.items()):
            if groups.get(code):
                counts.setdefault(dataset, {})[label_source] = groups[code]
        return counts

    def _check_rates(self) -> None:
        for index, column in enumerate(("dataset", "label_source")):
            existing = sorted({group[index] for group in self._groups})
            unknown = [name for name in self._policy.rates.get(column, {}) if name not in existing]
            if unknown:
                raise CorpusError(
                    f"the weights name the {column} {unknown[0]!r}, which does not occur in the corpus; "
                    f"choose from {', '.join(existing) or 'none'}"
                )

    def _check_not_empty(self) -> None:
        counts = self._counts
        if not counts["training"]:
            raise CorpusError(
                f"no pair is left for training: of {counts['read']:,} read, {counts['held_out']:,} have a held-out "
                f"instruction, {counts['left_out']:,} were left out by their weights, and {counts['evaluation']:,} are "
                "for evaluation; give another corpus, or other weights"
            )
        if self._policy.evaluation_share and not counts["evaluation"]:
            raise CorpusError(
                f"a share of {self._policy.evaluation_share:g} of the instructions leaves none for evaluation; give a "
                "larger --eval-fraction, or 0 for no evaluation"
            )


class _Sample:
    """The `limit` rows with the smallest keys, with their groups; holds at most twice the limit."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._groups: Counter[int] = Counter()
        self._rows, self._codes, self._keys = (np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint64))
        self._dropped: list[np.ndarray] = []
        self._count = 0

    def add(self, rows: np.ndarray, codes: np.ndarray, keys: np.ndarray) -> None:
        """Add rows (int64[m]) with their groups (int64[m]) and, if there is a limit, their keys (uint64[m])."""
        if self.limit is None:
            self._count += len(rows)
            self._groups.update(codes.tolist())
            return
        self._rows, self._codes = np.concatenate([self._rows, rows]), np.concatenate([self._codes, codes])
        self._keys = np.concatenate([self._keys, keys])
        if len(self._rows) > 2 * self.limit:
            self._cut(self.limit)

    def _cut(self, limit: int) -> None:
        order = np.lexsort((self._rows, self._keys))
        self._dropped.append(self._rows[order[limit:]])
        kept = order[:limit]
        self._rows, self._codes, self._keys = self._rows[kept], self._codes[kept], self._keys[kept]

    def result(self) -> tuple[int, Mapping[int, int], np.ndarray]:
        """Return the number of rows kept, the number kept of each group, and the rows that are dropped."""
        if self.limit is not None:
            self._cut(self.limit)
            self._count, self._groups = len(self._rows), Counter(self._codes.tolist())
        return self._count, self._groups, np.concatenate([np.zeros(0, np.int64), *self._dropped])
