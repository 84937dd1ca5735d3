"""Progress of a job on any runner: a bar on a terminal, else log lines.

It is read from the output folder, and where workers are threads of this process, from their counts (`under_way`).
"""

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
from beam_pipelines.runs.under_way import forget_units, rows_under_way
from schemas.stats import REAL_TOKENS

_LOG = logging.getLogger("cappy")
_LOOK_SECONDS = 1.0
_FIRST_LOG_SECONDS, _LOG_SECONDS = 10.0, 30.0
_LISTING_SECONDS, _REMOTE_LISTING_SECONDS = 1.0, 10.0
_LISTING_SHARE = 0.05  # of the time, at most: a folder of 100,000 files takes a second to list
_READING_SECONDS = 0.5  # at a time; a run that is resumed may have many footers
_FOOTER_THREADS = 8  # on an object store each footer costs a round trip or two
_FOOTERS_AT_ONCE = 256
_USUAL_COLUMNS, _USUAL_ROWS = 80, 24
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
_ROWS_READ = ("rows", "read")


@dataclass(frozen=True)
class Stage:
    """A folder below the output folder that fills up with Parquet files; "" is the output folder itself.

    `files` and `rows` are the expected numbers, None if unknown. A stage that `resumes` keeps the files of an
    interrupted run, so they count as done; one that does not rewrites every file. With `tokens`, the files hold the
    statistics of units: rows are those of the input, rows under way count too, and `REAL_TOKENS` are shown as a rate.
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
    """The counts of a stage so far.

    `at_start`: the files that existed at the start, with what changes if they are written again; `before`: their
    counts; `unread`: files that have been found since; `names` and `counts`: those that have been read; `under_way`:
    rows by the names of files to come; `logged`: the counts of the last log line; `resumed_logged`: whether a line
    has said what was there.
    """

    at_start: Mapping[str, object] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    counts: _Counts = _NONE
    before: _Counts = _NONE
    under_way: dict[str, float] = field(default_factory=dict)
    listed_next: float = 0.0
    logged: _Counts = _NONE
    resumed_logged: bool = False

    @property
    def all(self) -> _Counts:
        """The counts of the files, and the rows under way."""
        return self.counts._replace(rows=self.counts.rows + int(sum(self.under_way.values())))

    @property
    def has_moved(self) -> bool:
        """Whether there are more files or rows than at the start, and than the last log line said."""
        files = max(self.logged.files, self.before.files)
        rows = max(self.logged.rows, self.before.rows)
        return self.all.files > files or self.all.rows > rows


class Progress:
    """Watch the folders of a job's stages, and the rows under way in this process, while a `with` block runs."""

    def __init__(self, output: str, stages: Sequence[Stage], storage: StorageOptions) -> None:
        self._output, self._storage = output, storage
        self._stages = [(stage, _State()) for stage in stages]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        forget_units(self._output)
        for stage, seen in self._stages:
            seen.at_start = self._listing(stage)
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        forget_units(self._output)

    def _watch(self) -> None:
        terminal = sys.stderr.isatty()
        bars = [self._bar(index) for index in range(len(self._stages))] if terminal else []
        logged_next = self._started + _FIRST_LOG_SECONDS
        while not self._done.wait(_LOOK_SECONDS):
            self._look()
            if bars:
                self._draw(bars)
            elif time.monotonic() >= logged_next:
                self._log()
                logged_next = time.monotonic() + _LOG_SECONDS
        if bars:
            self._look(last=True)
            self._draw(bars)
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

    def _look(self, *, last: bool = False) -> None:
        for stage, seen in self._stages:
            self._update(stage, seen, last=last)
            self._log_found(stage, seen)

    def _draw(self, bars: "Sequence[tqdm[Any]]") -> None:
        for bar, (stage, seen) in zip(bars, self._stages, strict=True):
            counts, by_rows = seen.all, stage.rows is not None
            bar.initial = seen.before.rows if by_rows else seen.before.files
            bar.n = counts.rows if by_rows else counts.files
            other = plural(counts.files, "file") if by_rows else plural(counts.rows, "row")
            bar.set_postfix_str(other + self._tokens(stage, seen))

    def _log(self) -> None:
        for stage, seen in self._stages:
            if seen.has_moved:
                seen.logged = seen.all
                _LOG.info(self._line(stage, seen))

    def _log_found(self, stage: Stage, seen: _State) -> None:
        """Log once what an interrupted run has left, as soon as its files have been read."""
        if seen.resumed_logged or not (stage.resumes and seen.before.files) or seen.before.files < len(seen.at_start):
            return
        seen.resumed_logged = True
        there, total, name = seen.before.rows, stage.rows, "row"
        if total is None:
            there, total, name = seen.before.files, stage.files, "file"
        found = plural(there, name) if total is None else f"{there:,} of {plural(total, name)}"
        with tqdm.external_write_mode(file=sys.stderr):
            _LOG.info("%s: %s %s there", stage.title, found, "was" if there == 1 and total is None else "were")

    def _line(self, stage: Stage, seen: _State) -> str:
        counts = seen.all
        rate = self._rate(counts.rows - seen.before.rows)
        digits = 0 if rate >= 10 else 1
        files = plural(counts.files, "file")
        if stage.files is not None:
            files = f"{counts.files:,} of {plural(stage.files, 'file')}"
        rows = plural(counts.rows, "row")
        if stage.rows is not None:
            rows = f"{counts.rows:,} of {plural(stage.rows, 'row')}"
        line = f"{stage.title}: {files}, {rows}, {rate:,.{digits}f} rows/s"
        line += self._tokens(stage, seen)
        if stage.rows is not None and rate:
            line += f", {max(0.0, stage.rows - counts.rows) / rate:,.0f} s left"
        return line

    def _tokens(self, stage: Stage, seen: _State) -> str:
        tokens = seen.counts.tokens - seen.before.tokens
        return f", {self._rate(tokens):,.0f} tokens/s" if stage.tokens and tokens else ""

    def _rate(self, count: int) -> float:
        return count / max(time.monotonic() - self._started, 1e-9)

    def _update(self, stage: Stage, seen: _State, *, last: bool) -> None:
        """Update the counts of a stage. Rows under way are asked for first: a unit that ends meanwhile has its file."""
        rows = rows_under_way(self._output) if stage.tokens else {}
        started = time.monotonic()
        if last or (started >= seen.listed_next and not seen.unread):
            self._find_new(stage, seen)
            least = _LISTING_SECONDS if is_local(self._output) else _REMOTE_LISTING_SECONDS
            seen.listed_next = started + max(least, (time.monotonic() - started) / _LISTING_SHARE)
        self._read_some(stage, seen)
        _, path = self._folder(stage)
        seen.under_way = {
            name: done
            for name, done in {**seen.under_way, **rows}.items()
            if f"{path}/{name}.parquet" not in seen.names
        }

    def _find_new(self, stage: Stage, seen: _State) -> None:
        """List the files that have appeared since the last call. Unreadable ones are tried again by the next."""
        listing = self._listing(stage)
        stale = () if stage.resumes else [name for name in listing if listing[name] == seen.at_start.get(name)]
        seen.unread = sorted(listing.keys() - seen.names - set(stale), reverse=True)

    def _read_some(self, stage: Stage, seen: _State) -> None:
        """Read the footers of files that have been found, for a while."""
        fs, _ = self._folder(stage)
        until = time.monotonic() + _READING_SECONDS
        with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
            while seen.unread:
                part = [seen.unread.pop() for _ in range(min(_FOOTERS_AT_ONCE, len(seen.unread)))]
                for name, counts in zip(part, threads.map(lambda name: _read(fs, name, stage), part), strict=True):
                    if counts is not None:
                        seen.names.add(name)
                        seen.counts = seen.counts.plus(counts)
                        was_there = stage.resumes and name in seen.at_start
                        seen.before = seen.before.plus(counts) if was_there else seen.before
                if time.monotonic() > until:
                    return

    def _folder(self, stage: Stage) -> tuple[fsspec.AbstractFileSystem, str]:
        fs, path = file_system(join(self._output, stage.folder), self._storage)
        return fs, path.rstrip("/")

    def _listing(self, stage: Stage) -> dict[str, object]:
        """Return the Parquet files of a stage; for one that does not resume, with details that change with the file."""
        fs, path = self._folder(stage)
        try:
            fs.invalidate_cache(path)
            if stage.resumes:
                details = dict.fromkeys(fs.ls(path, detail=False)) if fs.exists(path) else {}
            else:
                details = fs.find(path, maxdepth=1, detail=True) if fs.exists(path) else {}
        except Exception as error:  # each file system has errors of its own, and none of them may end a run
            _LOG.debug("progress: %s: %s", path, error)
            details = {}
        return {name: detail for name, detail in details.items() if name.endswith(".parquet")}


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
        if not stage.tokens:
            return _Counts(1, footer.num_rows, 0)
        counts = stats_in(footer, name).counts
        return _Counts(1, counts[_ROWS_READ], counts[REAL_TOKENS])
    except Exception as error:  # as above; and the folder may hold foreign files
        _LOG.debug("progress: %s: %s", name, error)
        return None
