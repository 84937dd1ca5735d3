"""The scores of a scorer's own run, found by the positions of their rows, one part at a time."""

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.storage import StorageOptions, join, open_file, read_bytes
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.score.scoring import POSITION, ScoreColumns
from beam_pipelines.runs.data import data_entries
from beam_pipelines.runs.folder import load_manifest
from schemas.errors import CappyError
from schemas.ids import digest_of

_PART = re.compile(r".*part-(\d+)-(\d+)-(\d+)\.parquet")
_RUNS_AT_HAND = 64
_AGAIN = "run the same command again, which makes it again"


@dataclass(frozen=True)
class ScoredColumn:
    """The finished run of one scorer, as a worker finds its scores.

    Args:
      folder: the output folder of the run.
      columns: the columns of its scores.
      digest: digest of its manifest.
      storage: options for fsspec, as JSON.
    """

    folder: str
    columns: ScoreColumns
    digest: str
    storage: str

    def scores_of(self, unit: Unit) -> list[pa.Array]:
        """Return the new columns for the n rows of a unit, each of length n.

        Raises CappyError for a row that the run does not have, and for a file that is missing or damaged.
        """
        fields, wanted = self.columns.new_fields(lists=self.columns.lists(unit.rows.schema)), unit.positions
        if not len(wanted):
            return [pa.array([], each.type) for each in fields]
        found = _scored_run(self).between(unit.file.name, int(wanted[0]), int(wanted[-1]))
        positions = found[POSITION.name].to_numpy()
        places = np.searchsorted(positions, wanted)
        there = places < len(positions)
        there[there] = positions[places[there]] == wanted[there]
        if not there.all():
            row = unit.position(int(np.flatnonzero(~there)[0]))
            raise CappyError(
                f"{self.folder}: has no score of {unit.file.name}{row}: the input has changed since it was scored; "
                "run the same command again"
            )
        rows = found.take(pa.array(places))
        return [rows[each.name].combine_chunks().cast(each.type) for each in fields]


class _ScoredRun:
    """The files of a scorer's run by the input file that they are of, and the first position in each, once known."""

    def __init__(self, folder: str, storage: StorageOptions) -> None:
        self._folder, self._storage = folder, storage
        manifest = load_manifest(folder, storage)
        self._parts = _parts_by_file(manifest)
        self._digests = {entry["path"]: entry["digest"] for entry in manifest["files"]}
        self._firsts: dict[str, int] = {}

    def between(self, name: str, first: int, last: int) -> pa.Table:
        """Return the rows of the input file `name` in the parts that reach from position `first` to `last`.

        Its parts are found by binary search, over statistics in their footers; only these parts are read.
        """
        parts = self._parts.get(name, ())
        start = max(bisect_right(parts, first, key=self._first_position) - 1, 0)
        stop = max(bisect_right(parts, last, key=self._first_position), start + 1)
        tables = [self._read(path) for path in parts[start:stop]]
        return pa.concat_tables(tables) if tables else pa.schema([POSITION]).empty_table()

    def _first_position(self, path: str) -> int:
        if path not in self._firsts:
            url = join(self._folder, path)
            try:
                with open_file(url, self._storage) as file:
                    column = pq.read_metadata(file).row_group(0).column(0)
            except (OSError, pa.ArrowException) as error:
                raise CappyError(f"{url}: cannot be read: {error}; {_AGAIN}") from error
            self._firsts[path] = int(column.statistics.min)
        return self._firsts[path]

    def _read(self, path: str) -> pa.Table:
        url = join(self._folder, path)
        data = read_bytes(url, self._storage)
        if data is None or digest_of(data) != self._digests[path]:
            raise CappyError(f"{url}: is {'missing' if data is None else 'damaged'}; {_AGAIN}")
        return pq.read_table(pa.BufferReader(data))


@lru_cache(_RUNS_AT_HAND)
def _scored_run(scored: ScoredColumn) -> _ScoredRun:
    return _ScoredRun(scored.folder, json.loads(scored.storage))


def _parts_by_file(manifest: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the paths of the files with rows by the name of the input file, in the order of its positions."""
    names = [entry["name"] for entry in manifest["inputs"]]
    found: dict[str, list[tuple[int, int, str]]] = {}
    for entry in data_entries(manifest):
        place = _PART.fullmatch(entry["path"])
        if place and entry["rows"]:
            number, read, unit = map(int, place.groups())
            found.setdefault(names[number], []).append((read, unit, entry["path"]))
    return {name: [path for *_, path in sorted(parts)] for name, parts in found.items()}
