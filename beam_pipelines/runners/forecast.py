"""Throughput extrapolation: from the cost of some measured rows to the duration of a job, here and on a cluster.

Used by `--dry-run`, which measures a few rows, and by `tools/capacity.py`, which reads the measurements of whole runs.
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
from beam_pipelines.runs.start_up import describe_start_up, end_start_up
from cappy_model.host import usable_cores

Worker = Literal["core", "machine"]
"""Kind of worker: a process on one core, or a model with all cores or the device of a machine."""


@dataclass(frozen=True)
class Cost:
    """Cost of some rows: `seconds` of one worker, and the `bytes` of the files written."""

    seconds: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)


@dataclass(frozen=True)
class Timing:
    """The measured cost of some rows."""

    rows: int
    cost: Cost

    def scaled_to(self, rows: int) -> Cost:
        """Return the cost of `rows` rows at the same rate; `self.rows` must not be 0."""
        factor = rows / self.rows
        return Cost(self.cost.seconds * factor, self.cost.bytes * factor)


def measure_first_rows(source: Input, spec: ReadSpec, rows: int, process: Callable[[Unit], int]) -> Timing:
    """Time `process`, which returns bytes, on at most the first `rows` of an input, fewer where its units are small."""
    few = spec._replace(unit_rows=rows, work=None)
    for file in source.files:
        for read in list_reads(replace(file, rows=min(rows, file.rows), limit=rows), few):
            for unit in read_units(read, few):
                end_start_up()
                started = time.perf_counter()
                size = process(unit)
                return Timing(unit.rows.num_rows, Cost(time.perf_counter() - started, size))
    return Timing(0, Cost())


def forecast(cost: Cost, options: PipelineOptions, worker: Worker) -> str:
    """Describe the duration of a job on the workers that `options` name, and the size of its files.

    Names the start-up that was measured, too, unless the runner is remote: its own takes other time. Without a number
    of workers for a remote runner, the text names the flags that set it.
    """
    spread = f"; {_UNKNOWN_WORKERS}"
    workers = workers_of(options, worker)
    if workers is not None:
        count, named = workers
        spread = f", {duration(cost.seconds / count)} on {plural(count, worker)}{named}" if count > 1 else ""
    spread += describe_start_up() if is_local(options) else ""
    whose = "one core's" if worker == "core" else "this machine's"
    return f"about {duration(cost.seconds)} of {whose} work{spread}; about {size(round(cost.bytes))} of files"


_UNKNOWN_WORKERS = "--max_num_workers or --parallelism sets the number of workers"


def workers_of(options: PipelineOptions, worker: Worker) -> tuple[int, str] | None:
    """Return the number of workers and the flag that sets it, in words; None if no flag does for a remote runner."""
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
