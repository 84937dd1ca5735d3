"""Which pairs of a corpus are learned from, which ones are evaluated on, and which are dropped.

One pass over the files decides the assignment of each row and keeps one byte for it. An instruction is known by its text in
lower case with its white space collapsed, so that pairs of one never stand on both sides of the split.
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

from cappy_model.train.corpus import COLUMNS, CorpusError, Piece, scan
from schemas.ids import seed_for, text_key

DROPPED, TRAINING, EVALUATION = range(3)
"""What becomes of a row."""

_HASHES = 2**64
_ROWS_FILE, _FACTS_FILE = "rows.npy", "rows.json"


@dataclass(frozen=True)
class Policy:
    """What is learned from.

    `held_out`: keys of instructions (see `instruction_key`) that are dropped. `evaluation_share`: of the instructions,
    in [0, 1), kept from training. `rates`: by column (`dataset`, `label_source`) and value, the share in [0, 1] of the
    pairs that is taken; where both columns say one they multiply. The limits draw pairs evenly; None is no limit.
    """

    seed: int
    held_out: frozenset[int] = frozenset()
    evaluation_share: float = 0.0
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    max_pairs: int | None = None
    max_evaluation_pairs: int | None = None


@dataclass(frozen=True)
class Selection:
    """The assignment of each row of a corpus, uint8 in the order of the `pieces`, and how many rows had which.

    `counts`: rows `read`, `held_out`, `left_out` (by a rate), `not_drawn` (beyond a limit), for `training` and for
    `evaluation`, and the distinct `held_out_instructions`. `made_of`: pairs by `training` or `evaluation`, dataset and
    label source.
    """

    pieces: Sequence[Piece]
    assignments: np.ndarray
    counts: Mapping[str, int]
    made_of: Mapping[str, Mapping[str, Mapping[str, int]]]

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64[pieces + 1]: where the rows of each piece begin in `assignments`."""
        return np.concatenate([[0], np.cumsum([piece.rows for piece in self.pieces], dtype=np.int64)])

    def rows_of(self, piece: int, assignment: int) -> np.ndarray:
        """int64[m]: the rows within a piece that have this assignment."""
        return np.flatnonzero(self.assignments[self._starts[piece] : self._starts[piece + 1]] == assignment)

    @cached_property
    def training_rows(self) -> np.ndarray:
        """int64[pieces]: how many rows of each piece are learned from."""
        rows: np.ndarray = np.add.reduceat(self.assignments == TRAINING, self._starts[:-1], dtype=np.int64)
        return rows

    def save(self, folder: Path, urls: Sequence[str]) -> None:
        """Writes the selection from the files at `urls` into a folder, the file that `load` looks for last.

        Files are told by their place in `urls`, so that a corpus may move between two launches of a run.
        """
        np.save(folder / _ROWS_FILE, self.assignments)
        numbers = {url: number for number, url in enumerate(urls)}
        pieces = [(numbers[piece.url], *piece[1:]) for piece in self.pieces]
        facts = {"pieces": pieces, "counts": self.counts, "made_of": self.made_of}
        temporary = folder / f"{_FACTS_FILE}.tmp"
        temporary.write_text(json.dumps(facts))
        temporary.replace(folder / _FACTS_FILE)

    @classmethod
    def load(cls, folder: Path, urls: Sequence[str]) -> "Selection | None":
        """What `save` has written, of the same files at `urls`, its assignments mapped into memory; None where nothing is."""
        if not (folder / _FACTS_FILE).is_file():
            return None
        facts = json.loads((folder / _FACTS_FILE).read_text())
        facts["pieces"] = [Piece(urls[number], *place) for number, *place in facts["pieces"]]
        return cls(assignments=np.load(folder / _ROWS_FILE, mmap_mode="r"), **facts)

    @staticmethod
    def delete(folder: Path) -> None:
        """Deletes what `save` has written, the file that `load` looks for first."""
        for name in (_FACTS_FILE, _ROWS_FILE):
            (folder / name).unlink(missing_ok=True)


def instruction_key(instruction: str) -> int:
    """A 64-bit hash of an instruction's text in lower case, its white space collapsed."""
    return text_key(" ".join(instruction.lower().split()))


def select(urls: Sequence[str], policy: Policy, *, storage: Mapping[str, Any], piece_rows: int) -> Selection:
    """Decides for each row of Parquet files what becomes of it; pieces have at most `piece_rows` rows.

    Raises CorpusError for a file without the columns, a label that is none, naming file and row, a rate for a name that
    does not occur, and where no pair is left to learn from or, with a share, to evaluate.
    """
    sorter = _Sorter(policy)
    pieces: list[Piece] = []
    for url in urls:
        for begun, batch in scan(url, storage=storage, piece_rows=piece_rows):
            pieces += begun
            sorter.add(batch)
    return sorter.selection(pieces)


class _Sorter:
    """Decides the assignment of rows, chunk by chunk, and counts."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._fates: list[np.ndarray] = []
        self._counts: Counter[str] = Counter()
        self._groups: dict[tuple[str, str], int] = {}
        self._held_out: set[int] = set()
        self._drawn = {TRAINING: _Drawn(policy.max_pairs), EVALUATION: _Drawn(policy.max_evaluation_pairs)}
        self._evaluated = int(policy.evaluation_share * _HASHES)

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes the next rows."""
        rows = {name: batch.column(name).to_pylist() for name in COLUMNS if name not in ("response", "label")}
        assignments = self._by_instruction(rows["instruction"])
        groups = list(zip(rows["dataset"], rows["label_source"], strict=True))
        codes = np.array([self._groups.setdefault(group, len(self._groups)) for group in groups], dtype=np.int64)
        for index in np.flatnonzero(assignments != DROPPED).tolist():
            if not self._taken(groups[index], rows["pair_id"][index]):
                assignments[index] = DROPPED
                self._counts["left_out"] += 1
        start = self._counts["read"]
        for assignment, drawn in self._drawn.items():
            places = np.flatnonzero(assignments == assignment)
            ids = (rows["pair_id"][index] for index in places.tolist()) if drawn.limit is not None else ()
            keys = np.fromiter((seed_for(self._policy.seed, "draw", each) for each in ids), np.uint64)
            drawn.add(places + start, codes[places], keys)
        self._fates.append(assignments)
        self._counts["read"] += batch.num_rows

    def _by_instruction(self, instructions: list[str]) -> np.ndarray:
        known: dict[str, int] = {}
        for text in instructions:
            if text not in known:
                known[text] = self._fate_of(instruction_key(text))
        assignments = np.array([known[text] for text in instructions], dtype=np.uint8)
        self._counts["held_out"] += int((assignments == DROPPED).sum())
        return assignments

    def _fate_of(self, key: int) -> int:
        if key in self._policy.held_out:
            self._held_out.add(key)
            return DROPPED
        return EVALUATION if seed_for(self._policy.seed, "split", str(key)) < self._evaluated else TRAINING

    def _taken(self, group: tuple[str, str], pair_id: str) -> bool:
        dataset, label_source = group
        rates = self._policy.rates
        rate = rates.get("dataset", {}).get(dataset, 1.0) * rates.get("label_source", {}).get(label_source, 1.0)
        return rate == 1.0 or seed_for(self._policy.seed, "rate", pair_id) < int(rate * _HASHES)

    def selection(self, pieces: Sequence[Piece]) -> Selection:
        """What was decided."""
        assignments = np.concatenate(self._fates) if self._fates else np.zeros(0, np.uint8)
        self._check_rates()
        made_of = {}
        for name, assignment in (("training", TRAINING), ("evaluation", EVALUATION)):
            kept, groups, lost = self._drawn[assignment].result()
            assignments[lost] = DROPPED
            self._counts["not_drawn"] += len(lost)
            self._counts[name] = kept
            made_of[name] = self._made_of(groups)
        self._counts["held_out_instructions"] = len(self._held_out)
        self._check_left()
        names = (*("read", "held_out", "held_out_instructions", "left_out", "not_drawn"), "training", "evaluation")
        return Selection(pieces, assignments, {name: self._counts[name] for name in names}, made_of)

    def _made_of(self, groups: Mapping[int, int]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (dataset, label_source), code in sorted(self._groups.items()):
            if groups.get(code):
                found.setdefault(dataset, {})[label_source] = groups[code]
        return found

    def _check_rates(self) -> None:
        for index, column in enumerate(("dataset", "label_source")):
            there = sorted({group[index] for group in self._groups})
            unknown = [name for name in self._policy.rates.get(column, {}) if name not in there]
            if unknown:
                raise CorpusError(
                    f"the weights name the {column} {unknown[0]!r}, which does not occur in the corpus; "
                    f"there are {', '.join(there) or 'none'}"
                )

    def _check_left(self) -> None:
        counts = self._counts
        if not counts["training"]:
            raise CorpusError(
                f"no pair is left to learn from: of {counts['read']:,} read, {counts['held_out']:,} have a held-out "
                f"instruction, {counts['left_out']:,} were left out by their weights, and {counts['evaluation']:,} are "
                "for evaluation; give another corpus, or other weights"
            )
        if self._policy.evaluation_share and not counts["evaluation"]:
            raise CorpusError(
                f"a share of {self._policy.evaluation_share:g} of the instructions gives none to evaluate on; give a "
                "larger --eval-fraction, or 0 for no evaluation"
            )


class _Drawn:
    """Rows with their groups, the `limit` of them that have the smallest keys; never more than twice the limit held."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._groups: Counter[int] = Counter()
        self._rows, self._codes, self._keys = (np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint64))
        self._lost: list[np.ndarray] = []
        self._count = 0

    def add(self, rows: np.ndarray, codes: np.ndarray, keys: np.ndarray) -> None:
        """Takes rows with their groups and, where there is a limit, their keys."""
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
        self._lost.append(self._rows[order[limit:]])
        kept = order[:limit]
        self._rows, self._codes, self._keys = self._rows[kept], self._codes[kept], self._keys[kept]

    def result(self) -> tuple[int, Mapping[int, int], np.ndarray]:
        """How many are kept, how many of each group, and the rows that are not kept."""
        if self.limit is not None:
            self._cut(self.limit)
            self._count, self._groups = len(self._rows), Counter(self._codes.tolist())
        return self._count, self._groups, np.concatenate([np.zeros(0, np.int64), *self._lost])
