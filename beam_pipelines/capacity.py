"""Planning: what some rows of a job, timed here, say of the whole of it, here and on a cluster."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from apache_beam.options.pipeline_options import DirectOptions, FlinkRunnerOptions, PipelineOptions, WorkerOptions

from beam_pipelines.options import is_local
from beam_pipelines.reads import Input, Unit, Wanted, list_reads, read_units
from beam_pipelines.report.words import duration, plural, size
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

    def __mul__(self, factor: float) -> "Work":
        return Work(self.seconds * factor, self.bytes * factor)


def time_first_rows(source: Input, wanted: Wanted, rows: int, do: Callable[[Unit], int]) -> tuple[int, Work]:
    """How many of the first `rows` of an input `do` was given, which returns bytes, and the work that was."""
    for file in source.files:
        for read in list_reads(replace(file, rows=min(rows, file.rows), limit=rows), rows):
            for unit in read_units(read, wanted._replace(unit_rows=rows)):
                started = time.perf_counter()
                made = do(unit)
                return unit.rows.num_rows, Work(time.perf_counter() - started, made)
    return 0, Work()


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
    return f"about {duration(work.seconds)} of {whose} work{spread}; at most about {size(round(work.bytes))} of files"


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
