"""build-corpus whole, against the row pipelines of `row_pipelines.py` on the same input, runner and workers.

    python -m benchmarks.build_corpus --rows 500                    # the first 500 rows of each dataset
    python -m benchmarks.build_corpus --contenders cappy cached     # all rows, without the slow peer
    python -m benchmarks.build_corpus --rows 500 --candidates yes   # and four generated responses per instruction
    python -m benchmarks.build_corpus --scale                       # 10 thousand, 100 thousand, 1 million instructions
    python -m benchmarks.build_corpus --scale --flink               # on the cluster of `make flink-up`

Each run is a new interpreter whose process tree is sampled for memory. The contenders take turns; the tables show
medians. Start-up (imports, and an empty pipeline on the same runner) is measured separately; work is the rest. Before a
table is printed, the outputs are compared: ground-truth, wrong-choice and generated pairs must have the same labels.
(Mismatched responses are drawn differently.) Unlike its peers, build-corpus also writes the instructions, the rejects,
the manifest and the report.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from benchmarks.corpus_input import Input, make_candidates, make_input, make_sized_input
from benchmarks.flink_profile import cluster_here
from benchmarks.machine import (
    Usage,
    describe,
    exiting_on_failure,
    make_parser,
    markdown_table,
    measure,
    megabytes,
    ratio,
    take_turns,
    work_seconds,
)
from cappy_model.host import usable_cores
from schemas.ids import digest
from schemas.records import GROUND_TRUTH, MISMATCH

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
    """Settings of all runs: `folder` of inputs, outputs and logs, Beam's `flags`, and `pool` of workers, if any."""

    folder: Path
    flags: tuple[str, ...]
    repeat: int
    pool: psutil.Process | None

    def output(self, name: str) -> Path:
        """Return the output folder of a contender."""
        return self.folder / f"output-{name}"

    def run(self, name: str, source: Input) -> Usage:
        """Run a contender once, into an empty output folder."""
        shutil.rmtree(self.output(name), ignore_errors=True)
        program = ["beam_pipelines.program", "build-corpus"]
        if name != OURS:
            program = ["benchmarks.row_pipelines", "--mode", name]
        arguments = ["-m", *program, "--mixture", str(source.mixture), "--output", str(self.output(name)), *self.flags]
        if source.candidates:
            arguments += ["--candidates", source.candidates]
        return measure(arguments, self.folder / f"{name}.log", pool=self.pool)

    def start_up(self, name: str) -> Usage:
        """Import the program of a contender and run an empty pipeline on the same runner."""
        module = "beam_pipelines.jobs.build_corpus.job" if name == OURS else "benchmarks.row_pipelines"
        code = _EMPTY_PIPELINE.format(module=module)
        return measure(["-c", code, *self.flags], self.folder / f"{name}-empty.log", pool=self.pool)


@dataclass(frozen=True)
class Contents:
    """Output of a contender: rows by label source, and a hash of each pair and label except mismatched ones."""

    rows: dict[str, int]
    pairs: frozenset[str]


def contents(folder: Path) -> Contents:
    """Read `folder`/pairs."""
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
    """Return a sentence on the common output. Raises SystemExit if the outputs differ."""
    (first, expected), *others = found.items()
    for name, other in others:
        missing, added = len(expected.pairs - other.pairs), len(other.pairs - expected.pairs)
        if missing or added or expected.rows.get(GROUND_TRUTH) != other.rows.get(GROUND_TRUTH):
            raise SystemExit(
                f"{name} and {first} differ: {missing:,} pairs only in {first}, {added:,} only in {name}; "
                f"rows by source {expected.rows} and {other.rows}"
            )
    rows = ", ".join(f"{count:,} {source}" for source, count in sorted(expected.rows.items()))
    return f"All agree on pairs and labels ({first}: {rows})."


def compare(bench: Bench, source: Input, names: Sequence[str]) -> None:
    """Print the table of the contenders on one input."""
    usages = take_turns({name: partial(bench.run, name, source) for name in names}, bench.repeat)
    found = {name: contents(bench.output(name)) for name in names}
    agreement = check_agreement(found)
    start_ups = take_turns({name: partial(bench.start_up, name) for name in names}, bench.repeat)
    work = {name: work_seconds(usages[name].seconds, start_ups[name].seconds) for name in names}
    rows = [
        {
            "": CONTENDERS[name],
            "start-up, s": f"{start_ups[name].seconds:.1f}",
            "total, s": f"{usage.seconds:.1f}",
            "ratio": ratio(usage.seconds, usages[names[0]].seconds),
            "work, s": f"{work[name]:.1f}",
            "ratio of work": ratio(work[name], work[names[0]]),
            "pairs/s of work": f"{sum(found[name].rows.values()) / work[name]:,.0f}",
            "CPU, s": f"{usage.cpu:.1f}",
            "peak MB, runner": megabytes(usage.runner),
            "largest worker": megabytes(usage.worker),
            "all processes": megabytes(usage.tree),
        }
        for name, usage in usages.items()
    ]
    print(f"\n{source.description} {agreement}\n\n{markdown_table(rows)}")


def scale(bench: Bench, make: Callable[[int], Input], sizes: Sequence[int]) -> None:
    """Print the table of build-corpus alone at several sizes."""
    start_up = take_turns({"start-up": partial(bench.start_up, OURS)}, bench.repeat)["start-up"]
    rows = []
    for size in sizes:
        title = f"{size:,} instructions"
        usage = take_turns({title: partial(bench.run, OURS, make(size))}, bench.repeat)[title]
        written = bench.output(OURS)
        instructions, pairs = (_rows(written / name) for name in ("instructions", "pairs"))
        work = work_seconds(usage.seconds, start_up.seconds)
        above_idle = (usage.runner - start_up.runner) / 1e9 / (instructions / 1e6)
        rows.append(
            {
                "instructions": f"{instructions:,}",
                "pairs": f"{pairs:,}",
                "total, s": f"{usage.seconds:.1f}",
                "instructions/s": f"{instructions / usage.seconds:,.0f}",
                "instructions/s of work": f"{instructions / work:,.0f}",
                "pairs/s of work": f"{pairs / work:,.0f}",
                "peak MB, runner": megabytes(usage.runner),
                "GB per million instructions above idle": f"{above_idle:.2f}",
                "peak MB, largest worker": megabytes(usage.worker),
            }
        )
    idle = f"Start-up {start_up.seconds:.1f} s; idle, the runner holds {megabytes(start_up.runner)} MB"
    idle += f" and a worker {megabytes(start_up.worker)} MB." if start_up.worker else "."
    print(f"\n{idle}\n\n{markdown_table(rows)}")


def _rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, repeat=3, shared=True)
    parser.add_argument("--mixture", type=Path, help="default: SHARED/mixtures/real.yaml")
    parser.add_argument("--rows", type=int, metavar="N", help="only the first N rows of each file")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="worker processes (default: all cores)")
    parser.add_argument("--in-memory", action="store_true", help="one worker inside the runner's process")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--candidates", choices=("yes", "no"), default="no", help="label generated responses as well")
    parser.add_argument("--scale", action="store_true", help="build-corpus alone at several sizes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="instructions, with --scale")
    parser.add_argument("--flink", action="store_true", help="run on the cluster of `make flink-up`")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the generated responses (default 0)")
    arguments = parser.parse_args(argv)
    arguments.mixture = arguments.mixture or arguments.shared / "mixtures" / "real.yaml"
    if not arguments.mixture.is_file():
        parser.error(f"{arguments.mixture}: no such file; give --shared or --mixture")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = parse_arguments(argv)
    mode = "in_memory" if arguments.in_memory else "multi_processing"
    workers, pool = 1 if arguments.in_memory else arguments.workers, None
    flags = ["--runner=FnApiRunner", f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
    where = f"FnApiRunner, {mode}, {workers} worker(s)"
    if arguments.flink:
        cluster = cluster_here()
        if cluster is None:
            raise SystemExit("no Flink cluster is running; `make flink-up` starts one")
        flags, pool, where = cluster.flags(workers), cluster.pool, f"Flink, parallelism {workers}"
    print(f"{describe(*PACKAGES)} {where}; medians of {arguments.repeat}.")
    with tempfile.TemporaryDirectory(prefix="build-corpus-") as name, exiting_on_failure():
        folder = Path(name)
        bench = Bench(folder, tuple(flags), arguments.repeat, pool)
        if arguments.scale:
            scale(bench, lambda size: make_sized_input(arguments.mixture, size, folder / str(size)), arguments.sizes)
            return
        source = make_input(arguments.mixture, arguments.rows, folder / "input")
        if arguments.candidates == "yes":
            source = make_candidates(source, folder / "candidates", seed=arguments.seed)
        compare(bench, source, arguments.contenders)


if __name__ == "__main__":
    main()
