"""The measured processes of the scoring benchmark, as its tables start them."""

import json
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import Usage, measure, median_usage
from benchmarks.scoring_inputs import MAX_LENGTH
from benchmarks.scoring_runs import Timing


@dataclass(frozen=True)
class Bench:
    """Where the processes leave what they found (`folder`), the model that they score with, and on which device."""

    folder: Path
    model: Path
    device: str

    def save(self, name: str, pairs: pa.Table) -> Path:
        """Pairs as a Parquet file for the processes."""
        path = self.folder / f"{name}.parquet"
        pq.write_table(pairs, path)
        return path

    def child(self, module: str, name: str, pairs: Path, *flags: object) -> tuple[Usage, Any]:
        """Runs a module of this benchmark; its usage as seen from outside, and the JSON that it left."""
        stem = self.folder / name
        given = ("--model", self.model, "--pairs", pairs, "--device", self.device, "--output", stem, *flags)
        usage = measure(["-m", f"benchmarks.{module}", *map(str, given)], self.folder / f"{name}.log")
        return usage, json.loads(Path(f"{stem}.json").read_text())

    def timing(self, name: str, pairs: Path, *flags: object) -> tuple[Usage, Timing]:
        """One way of scoring."""
        usage, found = self.child("scoring_runs", name, pairs, *flags)
        return usage, Timing(**found)

    def scores(self, name: str) -> np.ndarray:
        """The scores that the last process of that name gave: float32[n]."""
        found: np.ndarray = np.load(self.folder / f"{name}.npy")
        return found

    def job(self, pairs: Path, *flags: str) -> tuple[Usage, dict[str, Any]]:
        """The command `cappy score`, from a Parquet file into a new folder; its usage and its manifest."""
        output = self.folder / "scored"
        shutil.rmtree(output, ignore_errors=True)
        given = ("--input", pairs, "--output", output, "--model", self.model, "--device", self.device)
        command = ["-m", "beam_pipelines.program", "score", *map(str, given), "--max-length", str(MAX_LENGTH), *flags]
        usage = measure(command, self.folder / "job.log")
        return usage, json.loads((output / "manifest.json").read_text())


@dataclass(frozen=True)
class JobRates:
    """The job's usage (medians), the seconds of a run over a single row, and the tokens of its rows."""

    rows: int
    tokens: int
    usage: Usage
    start_up: float

    @property
    def work(self) -> float:
        """Seconds after start-up."""
        # A tiny input can take less than the median start-up; its rate says nothing, but must not fail.
        return max(self.usage.seconds - self.start_up, 0.1)


def job_rates(bench: Bench, pairs: pa.Table, *flags: str, repeat: int) -> JobRates:
    """Measures the job over `pairs` and over the first of them alone, in turns."""
    whole, single = bench.save("job", pairs), bench.save("single", pairs.slice(0, 1))
    usages, start_ups = [], []
    for _ in range(repeat):
        start_ups.append(bench.job(single, *flags)[0].seconds)
        usage, manifest = bench.job(whole, *flags)
        usages.append(usage)
    totals = manifest["totals"]
    if totals["scored"] != pairs.num_rows:
        raise SystemExit(f"the job scored {totals['scored']:,} of {pairs.num_rows:,} rows")
    tokens = manifest["tokens"]["this_launch"]
    return JobRates(pairs.num_rows, tokens, median_usage(usages), statistics.median(start_ups))
