"""Progress of a job on any runner, read from its output folder: a bar on a terminal, else log lines."""

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

import fsspec
import pyarrow.parquet as pq
from tqdm import tqdm

from beam_pipelines.io.output import stats_in
from beam_pipelines.io.storage import StorageOptions, file_system, is_local, join
from beam_pipelines.report.text import plural
from schemas.stats import REAL_TOKENS

_LOG = logging.getLogger("cappy")
_BAR_SECONDS = 1.0
_REMOTE_SECONDS = 10.0
_LOG_SECONDS = 30.0
_USUAL_COLUMNS, _USUAL_ROWS = 80, 24
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
_FOOTER_THREADS = 8  # on an object store each footer costs a round trip or two


@dataclass(frozen=True)
class Stage:
    """A folder below the output folder that fills up with Parquet files; "" is the output folder itself.

    `files` and `rows` are the expected numbers, None if unknown. A stage that `resumes` keeps the files of an
    interrupted run, so they count as done; one that does not rewrites every file. With `tokens`, the files hold the
    statistics of units, and their `REAL_TOKENS` are shown as a rate.
    """

    folder: str
    rows: int | None
    files: int | None
    _: KW_ONLY
    resumes: bool
    tokens: bool = False

    @property
    def title(self) -> str:
        """The label of the bar."""
        return self.folder or "output"


class _Counts(NamedTuple):
    files: int
    rows: int
    tokens: int

    def plus(self, other: "_Counts") -> "_Counts":
        return _Counts(self.files + other.files, self.rows + other.rows, self.tokens + other.tokens)


_NONE = _Counts(0, 0, 0)


@dataclass
class _State:
    """The counts read so far of a stage. `at_start` are the files that existed at the start, `before` their counts."""

    at_start: Mapping[str, object] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    counts: _Counts = _NONE
    before: _Counts = _NONE
    logged: int = 0


class Progress:
    """Watch the folders of a job's stages while a `with` block runs."""

    def __init__(self, output: str, stages: Sequence[Stage], storage: StorageOptions) -> None:
        self._output, self._storage = output, storage
        self._stages = [(stage, _State()) for stage in stages]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        for stage, seen in self._stages:
            seen.at_start = self._listing(stage)[1]
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        terminal = sys.stderr.isatty()
        period = (_BAR_SECONDS if is_local(self._output) else _REMOTE_SECONDS) if terminal else _LOG_SECONDS
        bars = [self._bar(index) for index in range(len(self._stages))] if terminal else []
        while not self._done.wait(period):
            self._show(bars)
        if bars:
            self._show(bars)
        for bar in bars:
            bar.close()

    def _bar(self, index: int) -> "tqdm[Any]":
        stage = self._stages[index][0]
        counts_rows, columns = stage.rows is not None, _terminal_columns()
        return tqdm(
            total=stage.rows if counts_rows else stage.files,
            desc=stage.title,
            unit=" rows" if counts_rows else " files",
            unit_scale=counts_rows,
            position=index,
            dynamic_ncols=columns > 0,
            ncols=None if columns else _USUAL_COLUMNS,
            nrows=None if columns else _USUAL_ROWS,
            bar_format=_BAR,
            leave=True,
        )

    def _show(self, bars: "Sequence[tqdm[Any]]") -> None:
        for index, (stage, seen) in enumerate(self._stages):
            self._look(stage, seen)
            if bars:
                by_rows, counts = stage.rows is not None, seen.counts
                bars[index].initial = seen.before.rows if by_rows else seen.before.files
                bars[index].n = counts.rows if by_rows else counts.files
                other = plural(counts.files, "file") if by_rows else plural(counts.rows, "row")
                bars[index].set_postfix_str(other + self._tokens(stage, seen))
            elif seen.counts.files > seen.logged:
                seen.logged = seen.counts.files
                _LOG.info(self._line(stage, seen))

    def _line(self, stage: Stage, seen: _State) -> str:
        rate = self._rate(seen.counts.rows - seen.before.rows)
        files = plural(seen.counts.files, "file")
        if stage.files is not None:
            files = f"{seen.counts.files:,} of {plural(stage.files, 'file')}"
        line = f"{stage.title}: {files}, {plural(seen.counts.rows, 'row')}, {rate:,.0f} rows/s"
        line += self._tokens(stage, seen)
        if stage.rows is not None and rate:
            line += f", {max(0.0, stage.rows - seen.counts.rows) / rate:,.0f} s left"
        return line

    def _tokens(self, stage: Stage, seen: _State) -> str:
        return f", {self._rate(seen.counts.tokens - seen.before.tokens):,.0f} tokens/s" if stage.tokens else ""

    def _rate(self, count: int) -> float:
        return count / max(time.monotonic() - self._started, 1e-9)

    def _look(self, stage: Stage, seen: _State) -> None:
        """Add the files that have appeared since the last call. Unreadable ones are tried again by the next."""
        fs, listing = self._listing(stage)
        old = {name for name in listing if listing[name] == seen.at_start.get(name)}
        new = sorted(listing.keys() - seen.names - (set() if stage.resumes else old))
        with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
            for name, counts in zip(new, threads.map(lambda name: _read(fs, name, stage), new), strict=True):
                if counts is not None:
                    seen.names.add(name)
                    seen.counts = seen.counts.plus(counts)
                    seen.before = seen.before.plus(counts) if name in old else seen.before

    def _listing(self, stage: Stage) -> tuple[fsspec.AbstractFileSystem, dict[str, object]]:
        """Return the Parquet files of a stage, each with its file system's details, which change with the file."""
        fs, path = file_system(join(self._output, stage.folder), self._storage)
        try:
            fs.invalidate_cache(path)
            details = fs.find(path, maxdepth=1, detail=True) if fs.exists(path) else {}
        except Exception as error:  # each file system has errors of its own, and none of them may end a run
            _LOG.debug("progress: %s: %s", path, error)
            details = {}
        return fs, {name: detail for name, detail in details.items() if name.endswith(".parquet")}


def _terminal_columns() -> int:
    """Return the width of the terminal; 0 if unknown, as in a container or a script."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 0


def _read(fs: fsspec.AbstractFileSystem, name: str, stage: Stage) -> _Counts | None:
    """Return the counts in the footer of a file; None if it cannot be read."""
    try:
        with fs.open(name, "rb") as file:
            footer = pq.read_metadata(file)
        return _Counts(1, footer.num_rows, stats_in(footer, name).counts[REAL_TOKENS] if stage.tokens else 0)
    except Exception as error:  # as above; and the folder may hold foreign files
        _LOG.debug("progress: %s: %s", name, error)
        return None
