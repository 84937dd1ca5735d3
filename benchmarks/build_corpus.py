"""build-corpus whole, against the row pipelines of `row_pipelines.py` on the same input, runner and workers.

    python -m benchmarks.build_corpus --rows 500                    # the first 500 rows of each dataset
    python -m benchmarks.build_corpus --contenders cappy cached     # all rows, without the slow peer
    python -m benchmarks.build_corpus --rows 500 --candidates yes   # and four generated responses per instruction
    python -m benchmarks.build_corpus --scale                       # 10 thousand, 100 thousand, 1 million instructions
    python -m benchmarks.build_corpus --scale --flink               # on the cluster of `make flink-up`

Each run is a fresh interpreter whose process tree is sampled for memory. The contenders take turns, repeat by repeat;
the tables have medians. Start-up (imports, and an empty pipeline on the same runner) is measured apart; work is the
rest. Before a table is printed, the outputs are compared: the same ground-truth, wrong-choice and generated pairs with
the same labels. (Mismatched responses are drawn differently.) build-corpus does more in its time than its peers: it
also writes the instructions, the rejects, the manifest and the report.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from benchmarks.corpus_input import Input, make_candidates, make_input, make_sized_input
from benchmarks.machine import (
    CommandFailed,
    Usage,
    cores,
    describe,
    markdown_table,
    measure,
    median_usage,
    megabytes,
    ratio,
)
from schemas.ids import digest
from schemas.records import GROUND_TRUTH, MISMATCH
from tools import flink

OURS = "cappy"
CONTENDERS = {
    OURS: "build-corpus",
    "cached": "row pipeline, cached templates and our Rouge-L",
    "compile": "row pipeline, a template compiled per row, rouge_score",
}
SIZES = (10_000, 100_000, 1_000_000)
PACKAGES = ("apache-beam", "pyarrow", "jinja2", "rouge_score")

_EMPTY_PIPELINE = """
import sys
import {module}
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
with beam.Pipeline(options=PipelineOptions(sys.argv[1:])) as pipeline:
    pipeline | beam.Create([0]) | beam.Reshuffle() | beam.Map(str)
"""


@dataclass(frozen=True)
class Bench:
    """Where and how the contenders run: `folder` holds inputs, outputs and logs, `flags` are Beam's.

    Workers that the command does not start are those of `pool`.
    """

    folder: Path
    flags: tuple[str, ...]
    repeat: int
    pool: psutil.Process | None

    def output(self, name: str) -> Path:
        """The output folder of a contender."""
        return self.folder / f"output-{name}"

    def run(self, name: str, source: Input) -> Usage:
        """One run of a contender, into an empty output folder."""
        shutil.rmtree(self.output(name), ignore_errors=True)
        arguments = ["--mixture", str(source.mixture), "--output", str(self.output(name)), *self.flags]
        if source.candidates:
            arguments += ["--candidates", source.candidates]
        return measure([*_program(name), *arguments], self.folder / f"{name}.log", pool=self.pool)

    def start_up(self, name: str) -> Usage:
        """Imports and an empty pipeline on the same runner."""
        module = "beam_pipelines.cli" if name == OURS else "benchmarks.row_pipelines"
        arguments = ["-c", _EMPTY_PIPELINE.format(module=module), *self.flags]
        log = self.folder / f"{name}-empty.log"
        return median_usage([measure(arguments, log, pool=self.pool) for _ in range(self.repeat)])


def _program(name: str) -> list[str]:
    if name == OURS:
        return ["-m", "beam_pipelines.program", "build-corpus"]
    return ["-m", "benchmarks.row_pipelines", "--mode", name]


@dataclass(frozen=True)
class Contents:
    """What a contender wrote: rows by label source, and a hash of each pair with its label, but for mismatched ones."""

    rows: dict[str, int]
    pairs: frozenset[str]


def contents(folder: Path) -> Contents:
    """Reads `folder`/pairs."""
    rows: dict[str, int] = {}
    pairs = set()
    for path in sorted((folder / "pairs").glob("*.parquet")):
        columns = ["instruction", "response", "label", "label_source"]
        for batch in pq.ParquetFile(path).iter_batches(columns=columns):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                rows[values[3]] = rows.get(values[3], 0) + 1
                if values[3] != MISMATCH:
                    pairs.add(digest(*map(str, values)))
    return Contents(rows, frozenset(pairs))


def check_agreement(found: dict[str, Contents]) -> str:
    """A sentence that says what the contenders agree on. Raises SystemExit where they do not."""
    first, *others = found.items()
    for name, other in others:
        lacking, added = len(first[1].pairs - other.pairs), len(other.pairs - first[1].pairs)
        same_truth = first[1].rows.get(GROUND_TRUTH) == other.rows.get(GROUND_TRUTH)
        if lacking or added or not same_truth:
            raise SystemExit(
                f"{name} and {first[0]} differ: {lacking:,} pairs only in {first[0]}, {added:,} only in {name}; "
                f"rows by source {first[1].rows} and {other.rows}"
            )
    rows = ", ".join(f"{count:,} {source}" for source, count in sorted(first[1].rows.items()))
    return f"All agree on pairs and labels ({OURS if OURS in found else first[0]}: {rows})."


def compare(bench: Bench, source: Input, names: Sequence[str]) -> None:
    """Prints the table of the contenders on one input."""
    usages: dict[str, list[Usage]] = {name: [] for name in names}
    for turn in range(bench.repeat):
        for name in names:
            usages[name].append(bench.run(name, source))
            print(f"repeat {turn + 1}, {name}: {usages[name][-1].seconds:.1f} s", file=sys.stderr)
    found = {name: contents(bench.output(name)) for name in names}
    agreement = check_agreement(found)
    start_ups = {name: bench.start_up(name) for name in names}
    medians = {name: median_usage(usages[name]) for name in names}
    ours = names[0]
    rows = []
    for name in names:
        usage, start_up = medians[name], start_ups[name]
        work = _work(usage, start_up)
        rows.append(
            [
                CONTENDERS[name],
                f"{start_up.seconds:.1f}",
                f"{usage.seconds:.1f}",
                ratio(usage.seconds, medians[ours].seconds),
                f"{work:.1f}",
                ratio(work, _work(medians[ours], start_ups[ours])),
                f"{sum(found[name].rows.values()) / work:,.0f}",
                f"{usage.cpu:.1f}",
                *map(megabytes, (usage.runner, usage.worker, usage.tree)),
            ]
        )
    header = ["", "start-up, s", "total, s", "ratio", "work, s", "ratio", "pairs/s of work", "CPU, s"]
    header += ["peak MB, runner", "largest worker", "all processes"]
    print(f"\n{source.description} {agreement}\n\n{markdown_table(header, rows)}")


def _work(usage: Usage, start_up: Usage) -> float:
    # A tiny input can take less than the median start-up; its ratio says nothing, but must not fail.
    return max(usage.seconds - start_up.seconds, 0.1)


def scale(bench: Bench, make: Callable[[int], Input], sizes: Sequence[int]) -> None:
    """Prints build-corpus alone at several sizes."""
    start_up = bench.start_up(OURS)
    rows = []
    for size in sizes:
        source = make(size)
        usage = median_usage([bench.run(OURS, source) for _ in range(bench.repeat)])
        written = bench.output(OURS)
        instructions, pairs = (_rows(written / name) for name in ("instructions", "pairs"))
        work = _work(usage, start_up)
        rows.append(
            [
                f"{instructions:,}",
                f"{pairs:,}",
                f"{usage.seconds:.1f}",
                f"{instructions / usage.seconds:,.0f}",
                f"{instructions / work:,.0f}",
                f"{pairs / work:,.0f}",
                megabytes(usage.runner),
                f"{(usage.runner - start_up.runner) / 1e9 / (instructions / 1e6):.2f}",
                megabytes(usage.worker),
            ]
        )
        print(f"{instructions:,} instructions: {usage.seconds:.1f} s", file=sys.stderr)
    header = ["instructions", "pairs", "total, s", "instructions/s", "instructions/s of work", "pairs/s of work"]
    header += ["peak MB, runner", "GB per million instructions above idle", "peak MB, largest worker"]
    idle = f"Start-up {start_up.seconds:.1f} s; idle, the runner holds {megabytes(start_up.runner)} MB"
    idle += f" and a worker {megabytes(start_up.worker)} MB." if start_up.worker else "."
    print(f"\n{idle}\n\n{markdown_table(header, rows)}")


def _rows(folder: Path) -> int:
    return sum(pq.ParquetFile(path).metadata.num_rows for path in folder.glob("*.parquet"))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder of real data (default ../shared)"
    )
    parser.add_argument("--mixture", type=Path, help="default: SHARED/mixtures/real.yaml")
    parser.add_argument("--rows", type=int, metavar="N", help="only the first N rows of each file")
    parser.add_argument("--repeat", type=int, default=3, help="how often each contender runs (default 3)")
    parser.add_argument("--workers", type=int, default=cores(), help="worker processes (default: all cores)")
    parser.add_argument("--in-memory", action="store_true", help="one worker inside the runner's process")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--candidates", choices=("yes", "no"), default="no", help="generated responses to label too")
    parser.add_argument("--scale", action="store_true", help="build-corpus alone at several sizes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="instructions, with --scale")
    parser.add_argument("--flink", action="store_true", help="on the cluster that `make flink-up` has started")
    parser.add_argument("--seed", type=int, default=0, help="of the generated responses (default 0)")
    arguments = parser.parse_args(argv)
    arguments.mixture = arguments.mixture or arguments.shared / "mixtures" / "real.yaml"
    if not arguments.mixture.is_file():
        parser.error(f"{arguments.mixture}: no such file; give --shared or --mixture")
    return arguments


def _cluster(parallelism: int) -> tuple[list[str], psutil.Process]:
    """The flags of a job on the cluster of this environment, and its pool of workers."""
    try:
        state = flink.running(flink.HOME)
    except flink.FlinkError as error:
        raise SystemExit(str(error)) from error
    return flink.flags(state, parallelism=parallelism), flink.processes(flink.HOME)["workers"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = parse_arguments(argv)
    mode = "in_memory" if arguments.in_memory else "multi_processing"
    workers, pool = 1 if arguments.in_memory else arguments.workers, None
    flags = ["--runner=FnApiRunner", f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
    where = f"FnApiRunner, {mode}, {workers} worker(s)"
    if arguments.flink:
        flags, pool, where = *_cluster(workers), f"Flink, parallelism {workers}"
    print(f"{describe(*PACKAGES)} {where}; medians of {arguments.repeat}.")
    with tempfile.TemporaryDirectory(prefix="build-corpus-") as name:
        folder = Path(name)
        bench = Bench(folder, tuple(flags), arguments.repeat, pool)
        try:
            if arguments.scale:
                scale(
                    bench, lambda size: make_sized_input(arguments.mixture, size, folder / str(size)), arguments.sizes
                )
                return
            source = make_input(arguments.mixture, arguments.rows, folder / "input")
            if arguments.candidates == "yes":
                source = make_candidates(source, folder / "candidates", seed=arguments.seed)
            compare(bench, source, arguments.contenders)
        except CommandFailed as error:
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
