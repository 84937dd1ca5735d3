"""What units of about a minute cost `cappy score`, what a kill costs, and what a hundred thousand of them weigh.

    python -m benchmarks.units --cost            # today's units against units of 16,384 rows: MiniLM, real rows
    python -m benchmarks.units --cost --gpu      # the same with RoBERTa-large's shape
    python -m benchmarks.units --kills 20        # seconds and rows lost by each of 20 kills at random moments
    python -m benchmarks.units --many 100000     # messages, memory and seconds of a run of so many units
    python -m benchmarks.units --cost --tiny     # the first three with a tiny model, to test the script

Each run is a process of its own. --cost alternates the two, and compares the time after start-up, which is that of the
same command over one row.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.machine import (
    ROOT,
    Usage,
    describe,
    exiting_on_failure,
    make_parser,
    markdown_table,
    measure,
    work_seconds,
)
from benchmarks.many_units import many_units_table
from benchmarks.scoring_inputs import LARGE, MAX_LENGTH, TINY, real_pairs, repeated, save_minilm, save_random

PACKAGES = ("torch", "transformers", "apache-beam")
SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
"""Shape of the model of --many, whose units are one short pair each."""

LEAST = 0.97
"""Least rate of today's units, as a share of that of units of 16,384 rows."""

BY_WORK, WHOLE = "units by work", "units of 16,384 rows"
MOST_LOST = 120.0
"""Most seconds of work that an interruption may lose."""

KILLED_WITHIN = 90.0
"""Seconds after its first unit has begun within which a launch is killed."""

# `{seconds}` is the size of a unit in seconds of work by the table; a file gets the name and time of each unit begun.
_CHILD = """
import os, sys, time
from beam_pipelines.models.inference import UnitHandler
from beam_pipelines.program import main
from cappy_model import work

work.UNIT_SECONDS = {seconds}
run, log = UnitHandler.run_inference, os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def logged(self, batch, *arguments, **options):
    os.write(log, "".join(f"{{unit.name}} {{time.time()}}\\n" for unit in batch).encode())
    return run(self, batch, *arguments, **options)

UnitHandler.run_inference = logged
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Bench:
    """Runs of `cappy score` with one model, with units of some `seconds` by the table of the work of models."""

    folder: Path
    model: Path
    device: str
    seconds: Mapping[str, float]

    def words(self, units: str, pairs: Path, output: Path) -> list[str]:
        """Return the arguments of Python for a run."""
        code = _CHILD.format(seconds=self.seconds[units], log=str(self.log))
        files = ("--input", pairs, "--output", output, "--model", self.model, "--device", self.device)
        return ["-c", code, "score", *map(str, files), "--max-length", str(MAX_LENGTH), "--check-pairs", "0"]

    @property
    def log(self) -> Path:
        """The file of the units that were begun."""
        return self.folder / "begun"

    def run(self, units: str, pairs: Path) -> Usage:
        """Measure a run into a new folder."""
        output = self.folder / "scored"
        shutil.rmtree(output, ignore_errors=True)
        return measure(self.words(units, pairs, output), self.folder / "job.log")

    def units(self) -> int:
        """Return the number of units of the last measured run."""
        return len(list((self.folder / "scored" / "rows").glob("part-*.parquet")))


def measure_cost(bench: Bench, pairs: pa.Table, repeat: int) -> dict[str, Any]:
    """Print the table of both kinds of units; return seconds and CPU seconds after start-up of each pair of runs."""
    path, one_row = bench.folder / "pairs.parquet", bench.folder / "one.parquet"
    pq.write_table(pairs, path)
    pq.write_table(pairs.slice(0, 1), one_row)
    start = [bench.run(BY_WORK, one_row) for _ in range(repeat)]
    start_up = Usage(statistics.median(u.seconds for u in start), statistics.median(u.cpu for u in start))
    found: dict[str, list[dict[str, float]]] = {BY_WORK: [], WHOLE: []}
    counts: dict[str, int] = {}
    for turn in range(repeat):
        for units in (BY_WORK, WHOLE) if turn % 2 == 0 else (WHOLE, BY_WORK):
            usage = bench.run(units, path)
            seconds, cpu = work_seconds(usage.seconds, start_up.seconds), work_seconds(usage.cpu, start_up.cpu)
            found[units].append({"seconds": seconds, "cpu": cpu})
            counts[units] = bench.units()
            print(f"repeat {turn + 1}, {units}: {seconds:.1f} s, {cpu:.1f} CPU s", file=sys.stderr)
    ratios = {
        name: statistics.median(w[name] / b[name] for b, w in zip(found[BY_WORK], found[WHOLE], strict=True))
        for name in ("seconds", "cpu")
    }
    rows = [
        {
            "": units,
            "files": counts[units],
            "pairs/s": f"{pairs.num_rows / statistics.median(run['seconds'] for run in runs):.1f}",
            "CPU s": f"{statistics.median(run['cpu'] for run in runs):.1f}",
        }
        for units, runs in found.items()
    ]
    print(markdown_table(rows))
    print(
        f"\nRate of {BY_WORK} as a share of that of {WHOLE}, median of {repeat} pairs of runs: "
        f"{ratios['seconds']:.3f}; by CPU seconds {ratios['cpu']:.3f}. At least {LEAST} is required."
    )
    return {"runs": found, "ratios": ratios, "files": counts, "start_up": start_up.seconds}


def measure_kills(bench: Bench, pairs: pa.Table, kills: int, seed: int) -> list[dict[str, Any]]:
    """Kill a run again and again; print and return what each kill has lost.

    Lost are the seconds since the first of the unfinished units was begun, and at most the rows of these units.
    """
    path, output, rng = bench.folder / "pairs.parquet", bench.folder / "killed", random.Random(seed)
    lost: list[dict[str, Any]] = []
    pq.write_table(pairs, path)
    words, rows = bench.words(BY_WORK, path, output), Units(output / "rows")
    for number in range(kills):
        bench.log.write_text("")
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.DEVNULL)
        _wait(lambda: bool(bench.log.read_text()), process)
        time.sleep(rng.uniform(0, KILLED_WITHIN if bench.seconds[BY_WORK] > 1 else 1))
        if process.poll() is not None:
            raise SystemExit(f"the run ended before kill {number + 1}; give more --pairs")
        process.send_signal(signal.SIGKILL)
        now = time.time()
        process.wait()
        unfinished = {name: begun for name, begun in _begun(bench.log) if name not in rows.names()}
        lost.append({"seconds": now - min(unfinished.values(), default=now), "units": [*unfinished]})
        print(f"kill {number + 1}: {lost[-1]['seconds']:.0f} s", file=sys.stderr)
    measure(words, bench.folder / "job.log")
    for kill in lost:
        kill["rows"] = sum(rows.count(name) for name in kill["units"])
    found = [{"kill": n, "seconds": f"{k['seconds']:.0f}", "rows": k["rows"]} for n, k in enumerate(lost, 1)]
    print(markdown_table(found))
    most = max(kill["seconds"] for kill in lost)
    print(f"\nMost seconds lost by a kill: {most:.0f}; at most {MOST_LOST:.0f} are allowed.")
    return lost


@dataclass(frozen=True)
class Units:
    """The finished units of a run, by their names."""

    folder: Path

    def names(self) -> set[str]:
        """Return the names of those that are there."""
        return {path.stem.removeprefix("part-") for path in self.folder.glob("part-*.parquet")}

    def count(self, name: str) -> int:
        """Return the rows of one."""
        return int(pq.read_metadata(self.folder / f"part-{name}.parquet").num_rows)


def _begun(log: Path) -> list[tuple[str, float]]:
    return [(name, float(begun)) for name, begun in map(str.split, log.read_text().splitlines())]


def _wait(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and not condition():
        time.sleep(0.01)


def make_bench(folder: Path, arguments: argparse.Namespace) -> Bench:
    """Save the model; a tiny one has units of some 50 pairs."""
    from cappy_model.work import UNIT_SECONDS

    tokenizer, model = arguments.shared / "models" / "roberta_tokenizer", folder / "model"
    if arguments.tiny:
        return Bench(folder, save_random(model, tokenizer, TINY), "cpu", {BY_WORK: 0.1, WHOLE: 1e9})
    seconds = {BY_WORK: UNIT_SECONDS, WHOLE: 1e9}
    if arguments.gpu:
        return Bench(folder, save_random(model, tokenizer, LARGE), "cuda:0", seconds)
    return Bench(folder, save_minilm(model), "cpu", seconds)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, repeat=3, shared=True)
    part = parser.add_mutually_exclusive_group(required=True)
    part.add_argument("--cost", action="store_true", help="measure the cost of units of about a minute")
    part.add_argument("--kills", type=int, metavar="N", help="measure what N kills lose")
    part.add_argument("--many", type=int, metavar="N", help="measure a run of N units")
    parser.add_argument("--gpu", action="store_true", help="RoBERTa-large's shape on a GPU, with --cost")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few pairs, on the CPU")
    parser.add_argument("--pairs", type=int, metavar="N", help="(4,096; 16,384 with --kills, 262,144 on a GPU)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    arguments = parser.parse_args(argv)
    if not (arguments.shared / "data").is_dir():
        parser.error(f"{arguments.shared}: has no folder `data`; give --shared")
    if arguments.gpu and not arguments.tiny and not torch.cuda.is_available():
        parser.error("--gpu: torch finds no GPU; --gpu --tiny tests the script on the CPU")
    usual = 400 if arguments.tiny else 262_144 if arguments.gpu else 16_384 if arguments.kills else 4_096
    arguments.pairs = arguments.pairs or usual
    return arguments


def read_pairs(arguments: argparse.Namespace) -> pa.Table:
    """Return real pairs; beyond those that there are, they are repeated with numbers."""
    path = arguments.shared / "data" / "candidates" / "alpaca_eval.parquet"
    real = real_pairs(path, min(arguments.pairs, 16_384), seed=arguments.seed)
    return real if real.num_rows == arguments.pairs else repeated(real, arguments.pairs)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = parse_arguments(argv)
    os.environ["TQDM_DISABLE"] = "1"
    print(describe(*PACKAGES))
    with tempfile.TemporaryDirectory(prefix="units-") as name, exiting_on_failure():
        folder = Path(name)
        found: Any
        if arguments.many:
            model = save_random(folder / "model", arguments.shared / "models" / "roberta_tokenizer", SMALL)
            found = many_units_table(folder, model, arguments.many)
        elif arguments.kills:
            found = measure_kills(make_bench(folder, arguments), read_pairs(arguments), arguments.kills, arguments.seed)
        else:
            found = measure_cost(make_bench(folder, arguments), read_pairs(arguments), arguments.repeat)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
