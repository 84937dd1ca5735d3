"""The scores of a scorer's own run, looked up by the positions of their rows, one output file at a time."""

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.storage import StorageOptions, join, open_file, read_bytes
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.score.scoring import POSITION, ScoreColumns
from beam_pipelines.runs.data import data_entries, table_folder
from beam_pipelines.runs.folder import load_manifest
from schemas.errors import CappyError
from schemas.ids import digest_of

_PART = re.compile(r".*part-(\d+)-(\d+)-(\d+)\.parquet")
_RUNS_AT_HAND = 64
_UNKNOWN = -1
_AGAIN = "run the same command again to rebuild it"


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
    """The files of a scorer's run, by the input file that they are of."""

    def __init__(self, folder: str, storage: StorageOptions) -> None:
        manifest = load_manifest(folder, storage)
        parts: dict[int, list[tuple[int, int, str]]] = {}
        for entry in data_entries(manifest):
            place = _PART.fullmatch(entry["path"])
            if place and entry["rows"]:
                number, read, unit = map(int, place.groups())
                parts.setdefault(number, []).append((read, unit, entry["digest"]))
        folder = join(folder, table_folder(manifest["job"]))
        names = [entry["name"] for entry in manifest["inputs"]]
        self._parts = {names[number]: _Parts(folder, number, found, storage) for number, found in parts.items()}

    def between(self, name: str, first: int, last: int) -> pa.Table:
        """Return the rows of the input file `name` in the parts that reach from position `first` to `last`."""
        parts = self._parts.get(name)
        return pa.schema([POSITION]).empty_table() if parts is None else parts.between(first, last)


class _Parts:
    """The output files of one scorer for one input file, in order of position (48 bytes each)."""

    def __init__(
        self, folder: str, number: int, parts: Sequence[tuple[int, int, str]], storage: StorageOptions
    ) -> None:
        self._folder, self._number, self._storage = folder, number, storage
        self._parts = np.array(sorted(parts), dtype=[("read", "i4"), ("unit", "i4"), ("digest", "S32")])
        self._firsts = np.full(len(parts), _UNKNOWN, np.int64)

    def between(self, first: int, last: int) -> pa.Table:
        """Return the rows of the parts that reach from position `first` to `last`.

        They are found by binary search, over statistics in their footers, and only they are read.
        """
        places = range(len(self._parts))
        start = max(bisect_right(places, first, key=self._first_position) - 1, 0)
        stop = max(bisect_right(places, last, key=self._first_position), start + 1)
        return pa.concat_tables([self._read(place) for place in range(start, stop)])

    def _first_position(self, place: int) -> int:
        if self._firsts[place] == _UNKNOWN:
            url = self._url(place)
            try:
                with open_file(url, self._storage) as file:
                    column = pq.read_metadata(file).row_group(0).column(0)
            except (OSError, pa.ArrowException) as error:
                raise CappyError(f"{url}: cannot be read: {error}; {_AGAIN}") from error
            self._firsts[place] = column.statistics.min
        return int(self._firsts[place])

    def _read(self, place: int) -> pa.Table:
        url = self._url(place)
        data = read_bytes(url, self._storage)
        if data is None or digest_of(data) != self._parts["digest"][place].decode():
            raise CappyError(f"{url}: is {'missing' if data is None else 'damaged'}; {_AGAIN}")
        return pq.read_table(pa.BufferReader(data))

    def _url(self, place: int) -> str:
        read, unit = self._parts["read"][place], self._parts["unit"][place]
        return join(self._folder, f"part-{self._number:05d}-{read:05d}-{unit:05d}.parquet")


@lru_cache(_RUNS_AT_HAND)
def _scored_run(scored: ScoredColumn) -> _ScoredRun:
    return _ScoredRun(scored.folder, json.loads(scored.storage))
