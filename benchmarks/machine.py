"""Shared by the benchmarks: command line, machine description, tables, and commands measured in processes."""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import psutil

from cappy_model.host import usable_cores

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
_SAMPLE_SECONDS = 0.1
_LOG_LINES = 30


def make_parser(doc: str | None, *, repeat: int | None = None, shared: bool = False) -> argparse.ArgumentParser:
    """Return a parser whose help is `doc`, with `--repeat` (default `repeat`) and `--shared` where requested."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if shared:
        parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="real data (default ../shared)")
    if repeat is not None:
        parser.add_argument(
            "--repeat", type=int, default=repeat, metavar="N", help=f"runs of each contender (default {repeat})"
        )
    return parser


def cpu_model() -> str:
    """Return the name of the CPU as reported by the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe(*packages: str) -> str:
    """Describe the machine in one sentence: cores, CPU, memory, system, versions of Python and of `packages`."""
    memory = psutil.virtual_memory().total / 2**30
    libraries = "".join(f", {name} {_version(name)}" for name in packages)
    return (
        f"{usable_cores()} cores of {cpu_model()}, {memory:.0f} GB, {platform.system()}; "
        f"Python {platform.python_version()}{libraries}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a Markdown table of rows (column -> cell), the first column left-aligned, the others right-aligned."""
    columns = list(rows[0]) if rows else [""]
    rules = [":---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (columns, rules, *(row.values() for row in rows)))


def ratio(peer: float, ours: float) -> str:
    """Return `peer / ours` with its significant digits: x1.84, x12.3, x104."""
    value = peer / ours
    return f"x{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def megabytes(count: float) -> str:
    """Format bytes as whole megabytes of 10**6, with separators."""
    return f"{count / 1e6:,.0f}"


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Call `work`; return the elapsed seconds and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@dataclass
class Usage:
    """Resources used by a command: elapsed seconds, CPU seconds, and peaks of resident memory in bytes.

    `cpu` counts the command's process and the descendants that it waited for. `runner` is that process, `worker` the
    largest of its descendants or those of a pool (0 if there are none), `tree` all of them at one time; `tree` counts
    shared pages more than once.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    runner: int = 0
    worker: int = 0
    tree: int = 0


def median_usage(usages: Sequence[Usage]) -> Usage:
    """Return the median of each field."""
    return Usage(*map(statistics.median, zip(*map(astuple, usages), strict=True)))


def work_seconds(whole: float, start_up: float) -> float:
    """Return the seconds after start-up; at least 0.1, as a tiny input can take less than the median start-up."""
    return max(whole - start_up, 0.1)


def take_turns(
    runs: Mapping[str, Callable[[], Usage]],
    repeat: int,
    *,
    reduce: Callable[[Sequence[Usage]], Usage] = median_usage,
) -> dict[str, Usage]:
    """Run each contender `repeat` times, in turns, so that all see the same state of the machine; return medians.

    `reduce` replaces the median of the usages of one contender.
    """
    usages: dict[str, list[Usage]] = {name: [] for name in runs}
    for turn in range(repeat):
        for name, run in runs.items():
            usages[name].append(run())
            print(f"repeat {turn + 1}, {name}: {usages[name][-1].seconds:.1f} s", file=sys.stderr)
    return {name: reduce(found) for name, found in usages.items()}


class CommandFailed(RuntimeError):
    """A measured command exited with an unexpected status; the message has the end of its output."""


@contextmanager
def exiting_on_failure() -> Iterator[None]:
    """Turn CommandFailed into SystemExit with its message."""
    try:
        yield
    except CommandFailed as error:
        raise SystemExit(str(error)) from error


def measure(arguments: Sequence[str], log: Path, *, pool: psutil.Process | None = None, status: int = 0) -> Usage:
    """Run `python ARGUMENTS` in a new interpreter and return its usage; its output goes to the file `log`.

    `pool` is the ancestor of workers that the command uses but does not start. Raises CommandFailed if the exit status
    is not `status`.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("wb") as output:
        started, cpu = time.perf_counter(), _cpu_of_children()
        process = psutil.Popen(
            [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        with _sampled(process, pool) as usage:
            found = process.wait()
            usage.seconds = time.perf_counter() - started
            usage.cpu = _cpu_of_children() - cpu
    if found != status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise CommandFailed(f"python {' '.join(arguments)} exited with status {found}:\n{tail}")
    return usage


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _sampled(process: psutil.Process, pool: psutil.Process | None) -> Iterator[Usage]:
    sampler = _Sampler(process, pool)
    thread = threading.Thread(target=sampler.run, daemon=True)
    thread.start()
    try:
        yield sampler.usage
    finally:
        sampler.done.set()
        thread.join()


@dataclass
class _Sampler:
    process: psutil.Process
    pool: psutil.Process | None
    usage: Usage = field(default_factory=Usage)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.done.wait(_SAMPLE_SECONDS):
            runner = _resident([self.process])
            workers = [size for root in (self.process, self.pool) if root for size in _resident(_descendants(root))]
            self.usage.runner = max([self.usage.runner, *runner])
            self.usage.worker = max([self.usage.worker, *workers])
            self.usage.tree = max(self.usage.tree, sum(runner) + sum(workers))


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _resident(processes: Sequence[psutil.Process]) -> list[int]:
    found = []
    for process in processes:
        try:
            found.append(process.memory_info().rss)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
