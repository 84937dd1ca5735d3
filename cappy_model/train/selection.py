"""The selection of a corpus: which of its pairs are used for training and which for evaluation, and their groups."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cappy_model.train.arrange import delete_arranged
from cappy_model.train.corpus import Columns, LabelledPairs, RowRange, join_pairs, read_range

DROPPED, TRAINING, EVALUATION = range(3)
"""The assignments of a row."""

ARRANGED = "arranged"
"""The folder of the rows that were copied to stand with their group, below the folder of a selection."""

_ASSIGNMENTS_FILE, _GROUPS_FILE, _SUMMARY_FILE = "rows.npy", "groups.npy", "rows.json"


class Groups(NamedTuple):
    """The training pairs of each instruction, in the order of the corpus.

    `sizes` int32[n], in pairs; `lengths` int32[n], in characters of the longest pair of the group, dropped ones
    included.
    """

    sizes: np.ndarray
    lengths: np.ndarray


class GroupStarts:
    """Where the groups of a corpus start, row by row in order, and their lengths; 12 bytes a group."""

    def __init__(self) -> None:
        self._starts: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._rows = 0
        self._last: np.uint64 | None = None

    def add(self, keys: np.ndarray, lengths: np.ndarray) -> None:
        """Add the next rows: the keys of their instructions, uint64[n], and their lengths, int32[n]."""
        first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
        longest = np.maximum.reduceat(lengths, first)
        if self._last == keys[0]:  # a group goes on
            self._lengths[-1][-1] = max(self._lengths[-1][-1], longest[0])
            first, longest = first[1:], longest[1:]
        if len(first):
            self._starts.append(first + self._rows)
            self._lengths.append(longest)
        self._rows, self._last = self._rows + len(keys), keys[-1]

    def of_training(self, training: np.ndarray) -> Groups:
        """Return the groups with training rows, given by a mask over all rows added (bool[rows])."""
        starts, lengths = np.concatenate(self._starts), np.concatenate(self._lengths)
        sizes = np.add.reduceat(training, starts, dtype=np.int32)
        return Groups(sizes[sizes > 0], lengths[sizes > 0])


@dataclass(frozen=True)
class Selection:
    """The assignment of each row of a corpus.

    `ranges`: the rows of the corpus in order; the first `in_place` of them lie in its files and have its `columns`, the
    others in files that were arranged. `assignments` uint8[rows]. `counts`: rows `read`, `held_out`, `left_out` (by a
    rate), `not_drawn` (beyond a limit), for `training` and for `evaluation`, and distinct `held_out_instructions`; with
    groups also the `instructions` for training and those of `single_responses`; with preferences `equal_preferences`.
    `made_of`: pairs by `training` or `evaluation`, dataset and label source. `groups`: None if rows are drawn one by
    one, as for random batches.
    """

    ranges: Sequence[RowRange]
    in_place: int
    columns: Columns
    assignments: np.ndarray
    groups: Groups | None
    counts: Mapping[str, int]
    made_of: Mapping[str, Mapping[str, Mapping[str, int]]]

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64[ranges + 1]: the positions in `assignments` where ranges start."""
        return np.concatenate([[0], np.cumsum([part.rows for part in self.ranges], dtype=np.int64)])

    @cached_property
    def training_rows(self) -> np.ndarray:
        """int64[ranges]: training rows of each range."""
        rows: np.ndarray = np.add.reduceat(self.assignments == TRAINING, self._starts[:-1], dtype=np.int64)
        return rows

    @cached_property
    def _group_starts(self) -> np.ndarray:
        """int64[ranges + 1]: the numbers of the groups with which ranges start; a group lies in one range."""
        assert self.groups is not None
        ends = np.cumsum(self.groups.sizes, dtype=np.int64)
        return np.concatenate([[0], np.searchsorted(ends, np.cumsum(self.training_rows), side="right")])

    def groups_of(self, numbers: Sequence[int]) -> Groups:
        """Return the groups of the ranges with these numbers, in order; only where rows are drawn by instruction."""
        assert self.groups is not None
        starts = self._group_starts
        parts = [slice(starts[number], starts[number + 1]) for number in numbers]
        sizes, lengths = (np.concatenate([column[part] for part in parts]) for column in self.groups)
        return Groups(sizes, lengths)

    def read(self, numbers: Sequence[int], assignment: int, storage: Mapping[str, Any]) -> LabelledPairs:
        """Read the pairs with an assignment from the ranges with these numbers, in order. Raises CorpusError."""
        parts = []
        for number in numbers:
            start, stop = self._starts[number : number + 2]
            rows = np.flatnonzero(self.assignments[start:stop] == assignment)
            if len(rows):
                columns = self.columns if number < self.in_place else self.columns.arranged
                parts.append(read_range(self.ranges[number], rows, columns, storage=storage))
        return join_pairs(parts)

    def save(self, folder: Path, urls: Sequence[str]) -> None:
        """Write the selection of the files at `urls` into a folder; the file that `load` looks for comes last.

        Files are recorded by their index in `urls`, so that a corpus may move between two launches of a run, and
        arranged files by their name.
        """
        np.save(folder / _ASSIGNMENTS_FILE, self.assignments)
        if self.groups is not None:
            np.save(folder / _GROUPS_FILE, np.stack(self.groups))
        numbers = {url: number for number, url in enumerate(urls)}
        ranges = [(numbers.get(part.url, Path(part.url).name), *part[1:]) for part in self.ranges]
        summary = {
            "pieces": ranges,
            "in_place": self.in_place,
            "counts": self.counts,
            "made_of": self.made_of,
            "arranged": _sizes_of(folder),
        }
        temporary = folder / f"{_SUMMARY_FILE}.tmp"
        temporary.write_text(json.dumps(summary))
        temporary.replace(folder / _SUMMARY_FILE)

    @classmethod
    def load(cls, folder: Path, urls: Sequence[str], columns: Columns) -> "Selection | None":
        """Load a selection of the same files at `urls`, its arrays memory-mapped.

        Returns None if none was saved, or if arranged files have been lost since.
        """
        if not (folder / _SUMMARY_FILE).is_file():
            return None
        summary = json.loads((folder / _SUMMARY_FILE).read_text())
        if summary.get("arranged", {}) != _sizes_of(folder):
            return None
        ranges = [
            RowRange(urls[file] if isinstance(file, int) else str(folder / ARRANGED / file), *rest)
            for file, *rest in summary["pieces"]
        ]
        assignments = np.load(folder / _ASSIGNMENTS_FILE, mmap_mode="r")
        grouped = (folder / _GROUPS_FILE).is_file()
        groups = Groups(*np.load(folder / _GROUPS_FILE, mmap_mode="r")) if grouped else None
        in_place = summary.get("in_place", len(ranges))  # selections of random batches were once without it
        return cls(ranges, in_place, columns, assignments, groups, summary["counts"], summary["made_of"])

    @staticmethod
    def delete(folder: Path) -> None:
        """Delete a saved selection; the file that `load` looks for goes first."""
        for name in (_SUMMARY_FILE, _ASSIGNMENTS_FILE, _GROUPS_FILE):
            (folder / name).unlink(missing_ok=True)
        delete_arranged(folder / ARRANGED)
        if (folder / ARRANGED).is_dir():
            (folder / ARRANGED).rmdir()


def _sizes_of(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of the arranged files of the selection in a folder, by name."""
    return {path.name: path.stat().st_size for path in sorted((folder / ARRANGED).glob("*"))}
