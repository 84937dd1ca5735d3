"""What benchmarks share: the machine's name, tables, and commands measured in processes of their own."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
_SAMPLE_SECONDS = 0.1
_LOG_LINES = 30


def cpu_model() -> str:
    """The name of the CPU, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(*packages: str) -> str:
    """One sentence: cores, CPU, memory, system, and the versions of Python and of `packages`."""
    memory = psutil.virtual_memory().total / 2**30
    libraries = "".join(f", {name} {_version(name)}" for name in packages)
    return (
        f"{cores()} cores of {cpu_model()}, {memory:.0f} GB, {platform.system()}; "
        f"Python {platform.python_version()}{libraries}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    rules = [":---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, rules, *rows))


def ratio(peer: float, ours: float) -> str:
    """How many times `peer` is `ours`, with as many digits as mean something: x1.84, x12.3, x104."""
    value = peer / ours
    return f"x{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def megabytes(count: float) -> str:
    """Bytes as megabytes of 10**6, whole, with separators."""
    return f"{count / 1e6:,.0f}"


@dataclass
class Usage:
    """What a command took: seconds from its start to its end, CPU seconds, and peaks of resident memory in bytes.

    `cpu` counts the process started and the descendants that it waited for. `runner` is the process started, `worker`
    the largest of its descendants, or of those of a pool (0 without any), `tree` all of them together at one time, in
    which pages that they share count more than once.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    runner: int = 0
    worker: int = 0
    tree: int = 0


def median_usage(usages: Sequence[Usage]) -> Usage:
    """Medians of the times, and of the peaks."""
    names = [found.name for found in fields(Usage)]
    return Usage(*(statistics.median(getattr(usage, name) for usage in usages) for name in names))


class CommandFailed(RuntimeError):
    """A measured command ended with a status other than 0; the message has the end of its output."""


def measure(arguments: Sequence[str], log: Path, *, pool: psutil.Process | None = None) -> Usage:
    """Runs `python ARGUMENTS` in a fresh interpreter and measures it; its output goes to the file `log`.

    What works for it without being started by it descends from `pool`, where there is one. Raises CommandFailed when it
    fails.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("wb") as output:
        started, cpu = time.perf_counter(), _cpu_of_children()
        process = psutil.Popen(
            [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        with _sampled(process, pool) as usage:
            status = process.wait()
            usage.seconds = time.perf_counter() - started
            usage.cpu = _cpu_of_children() - cpu
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise CommandFailed(f"python {' '.join(arguments)} ended with status {status}:\n{tail}")
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
