"""build-corpus and score on every runner that is here, against bare processes that call the same functions.

    make flink-up                                                # else Flink is left out
    python -m benchmarks.runners                                 # 1 million pairs, and 50 thousand of them scored
    python -m benchmarks.runners --pairs 20000 --scored 2000 --repeat 1

The floor is `benchmarks.bare`: two processes, and no Beam. Start-up is the same command over one row of each file, work
is the rest. The contenders take turns, repeat by repeat; the tables have medians. All of them must leave the same
bytes, which is checked. They do more than the floor: they also write the manifest, the card and the report.

The scorer is a tiny one, so that there is little to hide behind. It computes on all cores in any process: score's
figures are about Beam's share, not about the number of workers. Flink's rest is shown by CPU seconds of each kind of
process, and by what its own counters say of each stage of the last run.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.doctor.runners import prism_binary
from benchmarks.corpus_input import make_input, make_sized_input
from benchmarks.flink_profile import Cluster, cluster_here
from benchmarks.machine import (
    CommandFailed,
    Usage,
    describe,
    markdown_table,
    measure,
    median_usage,
    megabytes,
    ratio,
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
    """A job over one input: its flags, those over one row of each file, and which files of the output hold its rows."""

    job: str
    flags: tuple[str, ...]
    tiny: tuple[str, ...]
    counted: str


@dataclass(frozen=True)
class Bench:
    """Where outputs and logs go; the flags of each contender; the Flink cluster, where one runs."""

    folder: Path
    flags: Mapping[str, Sequence[str]]
    cluster: Cluster | None

    def output(self, name: str) -> Path:
        """The output folder of a contender."""
        return self.folder / f"output-{name}"

    def run(self, name: str, case: Case) -> Usage:
        """One run of a contender into an empty folder. What a cluster's processes compute counts as well."""
        shutil.rmtree(self.output(name), ignore_errors=True)
        program = "benchmarks.bare" if name == BARE else "beam_pipelines.program"
        command = ["-m", program, case.job, *case.flags, "--output", str(self.output(name)), *self.flags[name]]
        if name != FLINK or self.cluster is None:
            return measure(command, self.folder / f"{name}.log")
        before = self.cluster.cpu()
        usage = measure(command, self.folder / f"{name}.log")
        return replace(usage, cpu=usage.cpu + sum(self.cluster.cpu().values()) - sum(before.values()))

    def digests(self, name: str) -> dict[str, str]:
        """Every data file of a contender's output, and a hash of its bytes."""
        root = self.output(name)
        return {str(path.relative_to(root)): digest_of(path.read_bytes()) for path in root.rglob("*.parquet")}

    def rows(self, name: str, pattern: str) -> int:
        """The rows of the files of a contender's output that match `pattern`."""
        return sum(pq.read_metadata(path).num_rows for path in self.output(name).glob(pattern))


def compare(bench: Bench, case: Case, repeat: int) -> None:
    """Prints the table of all contenders on one job. Raises SystemExit where their files differ."""
    runs: dict[str, list[Usage]] = {name: [] for name in bench.flags}
    tiny: dict[str, list[Usage]] = {name: [] for name in bench.flags}
    for turn in range(repeat):
        for name in bench.flags:
            tiny[name].append(bench.run(name, replace(case, flags=case.tiny)))
            runs[name].append(bench.run(name, case))
            print(f"{case.job}, repeat {turn + 1}, {name}: {runs[name][-1].seconds:.1f} s", file=sys.stderr)
    expected, rows = bench.digests(BARE), bench.rows(BARE, case.counted)
    for name in bench.flags:
        if bench.digests(name) != expected:
            raise SystemExit(f"{case.job}: the files of {name} are not those of {BARE}")
    medians = {name: median_usage(found) for name, found in runs.items()}
    start_ups = {name: median_usage(found) for name, found in tiny.items()}
    work = {name: medians[name].seconds - start_ups[name].seconds for name in bench.flags}
    lines = [
        [
            CONTENDERS[name],
            f"{start_ups[name].seconds:.1f}",
            f"{medians[name].seconds:.1f}",
            f"{work[name]:.1f}",
            *_rates(rows, work[name], work[BARE]),
            f"{medians[name].cpu - start_ups[name].cpu:.1f}",
            megabytes(medians[name].tree),
        ]
        for name in bench.flags
    ]
    header = [
        "",
        "start-up, s",
        "total, s",
        "work, s",
        "rows/s of work",
        "of bare",
        "CPU of work, s",
        "peak MB, command",
    ]
    size = sum(path.stat().st_size for path in bench.output(BARE).rglob("*.parquet"))
    print(f"\n`cappy {case.job}`: {rows:,} rows, the same {len(expected):,} files of {megabytes(size)} MB from all.")
    print(f"\n{markdown_table(header, lines)}")


def _rates(rows: int, work: float, bare: float) -> tuple[str, str]:
    """Rows per second, and the time in terms of the floor's; dashes where start-up hides the work."""
    return (f"{rows / work:,.0f}", ratio(work, bare)) if min(work, bare) > 0 else ("-", "-")


def corpus_case(mixture: Path, pairs: int, folder: Path) -> Case:
    """build-corpus over as many instructions as give about so many pairs."""
    source = make_sized_input(mixture, round(pairs / PAIRS_PER_INSTRUCTION), folder / "corpus")
    tiny = make_input(source.mixture, 1, folder / "corpus-tiny")
    flags = (("--mixture", str(found.mixture)) for found in (source, tiny))
    return Case("build-corpus", *flags, counted="pairs/*.parquet")


def score_case(pairs: Path, rows: int, tokenizer: Path, folder: Path) -> Case:
    """score over the first `rows` rows of the Parquet files of `pairs`, in 16 files."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(pairs.glob("*.parquet"))).slice(0, rows)
    edges = [table.num_rows * number // SCORED_FILES for number in range(SCORED_FILES + 1)]
    model = save_random(folder / "model", tokenizer, TINY)
    flags = []
    for name, most in (("rows", table.num_rows), ("rows-tiny", 1)):
        (folder / name).mkdir()
        for number, (start, stop) in enumerate(pairwise(edges)):
            pq.write_table(table.slice(start, min(most, stop - start)), folder / name / f"{number:02d}.parquet")
        flags.append(("--input", str(folder / name / "*.parquet"), "--model", str(model), *SETTLED))
    return Case("score", *flags, counted="part-*.parquet")


def contenders(cluster: Cluster | None) -> dict[str, list[str]]:
    """The flags of every contender that is here."""
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


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder of real data (default ../shared)"
    )
    parser.add_argument("--pairs", type=int, default=1_000_000, metavar="N", help="about so many (default 1,000,000)")
    parser.add_argument("--scored", type=int, default=50_000, metavar="N", help="of the pairs, by score (50,000)")
    parser.add_argument("--repeat", type=int, default=3, help="how often each contender runs (default 3)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--jobs", nargs="+", choices=("build-corpus", "score"), default=("build-corpus", "score"))
    arguments = parser.parse_args(argv)
    arguments.mixture = arguments.shared / "mixtures" / "real.yaml"
    if not arguments.mixture.is_file():
        parser.error(f"{arguments.mixture}: no such file; give --shared")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = parse_arguments(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # a core for each worker, whatever the runner
    cluster = cluster_here()
    flags = {name: found for name, found in contenders(cluster).items() if name in (BARE, *arguments.contenders)}
    print(f"{describe(*PACKAGES)} Medians of {arguments.repeat}.")
    for missing in sorted(set(arguments.contenders) - flags.keys()):
        print(f"{CONTENDERS[missing]}: not running here.")
    with tempfile.TemporaryDirectory(prefix="runners-") as name:
        folder = Path(name)
        bench = Bench(folder, flags, cluster)
        try:
            case = corpus_case(arguments.mixture, arguments.pairs, folder)
            if "build-corpus" in arguments.jobs:
                _compare(bench, case, arguments.repeat)
            else:
                bench.run(BARE, case)
            if "score" in arguments.jobs:
                pairs, tokenizer = bench.output(BARE) / "pairs", arguments.shared / "models" / "roberta_tokenizer"
                _compare(bench, score_case(pairs, arguments.scored, tokenizer, folder), arguments.repeat)
        except CommandFailed as error:
            raise SystemExit(str(error)) from error


def _compare(bench: Bench, case: Case, repeat: int) -> None:
    compare(bench, case, repeat)
    if FLINK in bench.flags and bench.cluster is not None:
        print(f"\nFlink, once more:\n\n{bench.cluster.profile(lambda: bench.run(FLINK, case))}")


if __name__ == "__main__":
    main()
