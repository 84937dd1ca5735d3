"""build-corpus and score on every runner available here, against bare processes that call the same functions.

    make flink-up                                                # optional: Flink is omitted if no cluster runs
    python -m benchmarks.runners                                 # 1 million pairs, and 50 thousand of them scored
    python -m benchmarks.runners --pairs 20000 --scored 2000 --repeat 1

The baseline is `benchmarks.bare`: two processes without Beam. Start-up is the time of the same command over one row of
each file; work is the rest. The contenders take turns; the tables show medians. All of them must write the same bytes,
which is checked. Unlike the baseline, they also write the manifest, the card and the report.

The scorer is a tiny one, so that the overhead shows. It computes on all cores in any process: the figures of score are
about Beam's overhead, not about the number of workers. Flink's time is broken down by CPU seconds of each kind of
process, and by its metrics of each stage of the last run.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.doctor.runners import prism_binary
from benchmarks.corpus_input import make_input, make_sized_input
from benchmarks.flink_profile import Cluster, cluster_here
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
)
from benchmarks.scoring_inputs import TINY, save_random
from schemas.ids import digest_of

BARE, ONE, TWO, PRISM, FLINK = "bare", "one", "two", "prism", "flink"
CONTENDERS = {
    BARE: "two bare processes, no Beam",
    ONE: "in-process runner, 1 worker",
    TWO: "in-process runner, 2 worker processes",
    PRISM: "Prism",
    FLINK: "Flink, parallelism 2",
}
PACKAGES = ("apache-beam", "pyarrow", "torch")
WORKERS = 2
PAIRS_PER_INSTRUCTION = 2.81  # of real.yaml (docs/results.md, by size)
SCORED_FILES = 16
SETTLED = ("--device=cpu", "--dtype=float32", "--tokens-per-batch=2048")


@dataclass(frozen=True)
class Case:
    """A job over one input: its flags, those for one row of each file (`tiny`), and a pattern of its output files."""

    job: str
    flags: tuple[str, ...]
    tiny: tuple[str, ...]
    counted: str


@dataclass(frozen=True)
class Bench:
    """Folder of outputs and logs, flags of each contender, and the Flink cluster, if one runs."""

    folder: Path
    flags: Mapping[str, Sequence[str]]
    cluster: Cluster | None

    def output(self, name: str) -> Path:
        """Return the output folder of a contender."""
        return self.folder / f"output-{name}"

    def run(self, name: str, job: str, flags: Sequence[str]) -> Usage:
        """Run a contender once into an empty folder. CPU seconds include those of a cluster's processes."""
        shutil.rmtree(self.output(name), ignore_errors=True)
        program = "benchmarks.bare" if name == BARE else "beam_pipelines.program"
        command = ["-m", program, job, *flags, "--output", str(self.output(name)), *self.flags[name]]
        cluster = self.cluster if name == FLINK else None
        before = sum(cluster.cpu().values()) if cluster else 0.0
        usage = measure(command, self.folder / f"{name}.log")
        return replace(usage, cpu=usage.cpu + sum(cluster.cpu().values()) - before) if cluster else usage

    def digests(self, name: str) -> dict[str, str]:
        """Return a hash of the bytes of every data file of a contender's output."""
        root = self.output(name)
        return {str(path.relative_to(root)): digest_of(path.read_bytes()) for path in root.rglob("*.parquet")}


def compare(bench: Bench, case: Case, repeat: int) -> None:
    """Print the table of all contenders on one job. Raises SystemExit if their files differ."""
    runs = {}
    for name in bench.flags:
        runs[f"{name}, one row"] = partial(bench.run, name, case.job, case.tiny)
        runs[name] = partial(bench.run, name, case.job, case.flags)
    usages, expected = take_turns(runs, repeat), bench.digests(BARE)
    for name in bench.flags:
        if bench.digests(name) != expected:
            raise SystemExit(f"{case.job}: the files of {name} differ from those of {BARE}")
    start_ups = {name: usages[f"{name}, one row"] for name in bench.flags}
    work = {name: usages[name].seconds - start_ups[name].seconds for name in bench.flags}
    count = sum(pq.read_metadata(path).num_rows for path in bench.output(BARE).glob(case.counted))
    rows = []
    for name in bench.flags:
        visible = min(work[name], work[BARE]) > 0  # else start-up hides the work
        rows.append(
            {
                "": CONTENDERS[name],
                "start-up, s": f"{start_ups[name].seconds:.1f}",
                "total, s": f"{usages[name].seconds:.1f}",
                "work, s": f"{work[name]:.1f}",
                "rows/s of work": f"{count / work[name]:,.0f}" if visible else "-",
                "of bare": ratio(work[name], work[BARE]) if visible else "-",
                "CPU of work, s": f"{usages[name].cpu - start_ups[name].cpu:.1f}",
                "peak MB, command": megabytes(usages[name].tree),
            }
        )
    size = sum(path.stat().st_size for path in bench.output(BARE).rglob("*.parquet"))
    print(f"\n`cappy {case.job}`: {count:,} rows, the same {len(expected):,} files of {megabytes(size)} MB from all.")
    print(f"\n{markdown_table(rows)}")
    if FLINK in bench.flags and bench.cluster is not None:
        print(f"\nFlink, once more:\n\n{bench.cluster.profile(runs[FLINK])}")


def corpus_case(mixture: Path, pairs: int, folder: Path) -> Case:
    """Return build-corpus over the instructions that give about `pairs` pairs."""
    source = make_sized_input(mixture, round(pairs / PAIRS_PER_INSTRUCTION), folder / "corpus")
    tiny = make_input(source.mixture, 1, folder / "corpus-tiny")
    flags = (("--mixture", str(each.mixture)) for each in (source, tiny))
    return Case("build-corpus", *flags, counted="pairs/*.parquet")


def score_case(pairs: Path, rows: int, tokenizer: Path, folder: Path) -> Case:
    """Return score over the first `rows` rows of the Parquet files of `pairs`, in 16 files."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(pairs.glob("*.parquet"))).slice(0, rows)
    edges = [table.num_rows * number // SCORED_FILES for number in range(SCORED_FILES + 1)]
    model = save_random(folder / "model", tokenizer, TINY)
    flags = []
    for name, most in (("rows", table.num_rows), ("rows-tiny", 1)):
        (folder / name).mkdir()
        for number, (start, stop) in enumerate(pairwise(edges)):
            pq.write_table(table.slice(start, min(most, stop - start)), folder / name / f"{number:02d}.parquet")
        flags.append(("--input", str(folder / name / "*.parquet"), "--model", str(model), *SETTLED))
    return Case("score", *flags, counted="rows/*.parquet")


def contenders(cluster: Cluster | None) -> dict[str, list[str]]:
    """Return the flags of every contender available here."""
    local = "--runner=FnApiRunner"
    flags = {
        BARE: [f"--workers={WORKERS}"],
        ONE: [local, "--direct_num_workers=1"],
        TWO: [local, f"--direct_num_workers={WORKERS}", "--direct_running_mode=multi_processing"],
    }
    prism = prism_binary()
    if prism is not None:
        flags[PRISM] = ["--runner=PrismRunner", f"--prism_location={prism}"]
    if cluster is not None:
        flags[FLINK] = cluster.flags(WORKERS)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, repeat=3, shared=True)
    parser.add_argument("--pairs", type=int, default=1_000_000, metavar="N", help="approximate (default 1,000,000)")
    parser.add_argument("--scored", type=int, default=50_000, metavar="N", help="pairs scored (default 50,000)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--jobs", nargs="+", choices=("build-corpus", "score"), default=("build-corpus", "score"))
    arguments = parser.parse_args(argv)
    mixture = arguments.shared / "mixtures" / "real.yaml"
    if not mixture.is_file():
        parser.error(f"{mixture}: no such file; give --shared")
    os.environ["OMP_NUM_THREADS"] = "1"  # one core per worker on every runner
    cluster = cluster_here()
    flags = {name: each for name, each in contenders(cluster).items() if name in (BARE, *arguments.contenders)}
    print(f"{describe(*PACKAGES)} Medians of {arguments.repeat}.")
    for missing in sorted(set(arguments.contenders) - flags.keys()):
        print(f"{CONTENDERS[missing]}: not available here.")
    with tempfile.TemporaryDirectory(prefix="runners-") as name, exiting_on_failure():
        folder = Path(name)
        bench, case = Bench(folder, flags, cluster), corpus_case(mixture, arguments.pairs, folder)
        if "build-corpus" in arguments.jobs:
            compare(bench, case, arguments.repeat)
        else:
            bench.run(BARE, case.job, case.flags)
        if "score" in arguments.jobs:
            pairs, tokenizer = bench.output(BARE) / "pairs", arguments.shared / "models" / "roberta_tokenizer"
            compare(bench, score_case(pairs, arguments.scored, tokenizer, folder), arguments.repeat)


if __name__ == "__main__":
    main()
