"""Planning: what some rows, measured, say of any number of them, here and on a cluster.

Used by `--dry-run`, which measures some rows, and by `tools/capacity.py`, which takes what whole runs have measured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from apache_beam.options.pipeline_options import DirectOptions, FlinkRunnerOptions, PipelineOptions, WorkerOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.units import Unit, list_reads, read_units
from beam_pipelines.report.text import duration, plural, size
from beam_pipelines.runners.options import is_local
from cappy_model.host import usable_cores

Worker = Literal["core", "machine"]
"""What does the work: a process on one core, or a model with all cores or the device of a machine."""


@dataclass(frozen=True)
class Work:
    """What is to be done: `seconds` of one worker, and the `bytes` of the files that come of it."""

    seconds: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.seconds + other.seconds, self.bytes + other.bytes)


@dataclass(frozen=True)
class Measured:
    """The work that some rows have been."""

    rows: int
    work: Work

    def scaled_to(self, rows: int) -> Work:
        """The work of so many rows at the same rate; `self.rows` must not be 0."""
        factor = rows / self.rows
        return Work(self.work.seconds * factor, self.work.bytes * factor)


def measure_first_rows(source: Input, wanted: ReadSpec, rows: int, do: Callable[[Unit], int]) -> Measured:
    """Times `do`, which returns bytes, with at most the first `rows` of an input, fewer where its units are small."""
    for file in source.files:
        for read in list_reads(replace(file, rows=min(rows, file.rows), limit=rows), rows):
            for unit in read_units(read, wanted._replace(unit_rows=rows)):
                started = time.perf_counter()
                made = do(unit)
                return Measured(unit.rows.num_rows, Work(time.perf_counter() - started, made))
    return Measured(0, Work())


def forecast(work: Work, options: PipelineOptions, worker: Worker) -> str:
    """How long `work` takes where the `options` let it run, and how much it writes, in words. Start-up is not counted.

    A remote runner that is not told how many workers it may have has none here either.
    """
    spread = f"; {_UNTOLD}"
    workers = workers_of(options, worker)
    if workers is not None:
        count, named = workers
        spread = f", {duration(work.seconds / count)} on {plural(count, worker)}{named}" if count > 1 else ""
    whose = "one core's" if worker == "core" else "this machine's"
    return f"about {duration(work.seconds)} of {whose} work{spread}; about {size(round(work.bytes))} of files"


_UNTOLD = "--max_num_workers or --parallelism says how many may share it"


def workers_of(options: PipelineOptions, worker: Worker) -> tuple[int, str] | None:
    """How many workers a job has, and the flag that says so in words; None where no flag tells a remote runner."""
    if is_local(options):
        return (
            (options.view_as(DirectOptions).direct_num_workers or usable_cores(), "") if worker == "core" else (1, "")
        )
    dataflow, flink = options.view_as(WorkerOptions), options.view_as(FlinkRunnerOptions)
    flags = {
        "--max_num_workers": dataflow.max_num_workers,
        "--num_workers": dataflow.num_workers,
        "--parallelism": flink.parallelism,
    }
    return next(((count, f" ({flag})") for flag, count in flags.items() if count and count > 0), None)
