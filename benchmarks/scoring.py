"""The Scorer and `cappy score` against sentence-transformers' CrossEncoder: same weights, same real pairs.

    python -m benchmarks.scoring                        # on the CPU, MiniLM
    python -m benchmarks.scoring --memory               # the job's peak memory by its number of rows
    python -m benchmarks.scoring --gpu --json gpu.json  # RoBERTa-large's shape: checks first, then everything
    python -m benchmarks.scoring --tiny                 # any of them with a tiny model: proves the script, no more

On the CPU each contender's turn is a fresh process whose memory is sampled; loading is not counted, and the tables have
medians. Scores are compared before a table is printed. The job, `cappy score`, is measured as a command from Parquet to
Parquet, whole and without its start-up, which is that of the same command over one row.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers.utils import logging

from benchmarks.machine import CommandFailed, Usage, describe, markdown_table, median_usage, megabytes, ratio
from benchmarks.scoring_bench import Bench, JobRates, job_rates
from benchmarks.scoring_gpu import PARTS, run_gpu
from benchmarks.scoring_inputs import LARGE, SHORT, TINY, real_pairs, repeated, save_minilm, save_random
from benchmarks.scoring_profile import Profile
from benchmarks.scoring_runs import PEER, SCORER, Timing
from cappy_model.devices import settle_dtype
from cappy_model.host import usable_cores

PACKAGES = ("torch", "transformers", "sentence-transformers", "apache-beam")
SIZES = (10_000, 50_000, 200_000)
TOLERANCE = 1e-5  # of scores in float32
PROFILED_PAIRS = 200


@dataclass(frozen=True)
class Contender:
    """One way of scoring on the CPU: its words in the table, and the flags of `scoring_runs`."""

    words: str
    way: str
    dtype: str
    flags: tuple[str, ...] = ()


DEFAULTS = "defaults"
CONTENDERS = {
    DEFAULTS: Contender("CrossEncoder.predict, defaults", PEER, "auto"),
    "small": Contender("CrossEncoder.predict, batches of 8", PEER, "auto", ("--batch-sizes", "8")),
    "half": Contender("CrossEncoder.predict, bfloat16, batches of 8", PEER, "bfloat16", ("--batch-sizes", "8")),
    "float32": Contender("Scorer, float32", SCORER, "float32"),
    "bfloat16": Contender("Scorer, bfloat16", SCORER, "bfloat16"),
}


def compare(bench: Bench, pairs: pa.Table, names: Sequence[str], repeat: int) -> dict[str, Timing]:
    """Prints the table of the contenders; the timing of each, with the seconds of all repeats."""
    path = bench.save("pairs", pairs)
    usages: dict[str, list[Usage]] = {name: [] for name in names}
    timings: dict[str, Timing] = {}
    for turn in range(repeat):
        for name in names:
            contender = CONTENDERS[name]
            flags = ("--way", contender.way, "--dtype", contender.dtype, *contender.flags)
            usage, timing = bench.timing(name, path, *flags)
            usages[name].append(usage)
            timing.seconds = [*(timings[name].seconds if turn else ()), *timing.seconds]
            timings[name] = timing
            print(f"repeat {turn + 1}, {name}: {timing.seconds[-1]:.1f} s", file=sys.stderr)
    print(f"\n{agreement({name: bench.scores(name) for name in names})}\n")
    first = statistics.median(timings[names[0]].seconds)
    rows = []
    for name, timing in timings.items():
        seconds = statistics.median(timing.seconds)
        rows.append(
            [
                CONTENDERS[name].words,
                f"{timing.pairs / seconds:,.1f}",
                ratio(first, seconds),
                f"{timing.tokens / seconds:,.0f}",
                f"{1 - timing.tokens / timing.computed:.1%}",
                megabytes(median_usage(usages[name]).runner),
            ]
        )
    print(markdown_table(["", "pairs/s", "ratio", "real tokens/s", "padding", "peak MB"], rows))
    return timings


def agreement(scores: dict[str, np.ndarray]) -> str:
    """A sentence with the largest differences. Raises SystemExit where the scores of two float32 contenders differ.

    The peer's pass a sigmoid, so those of the Scorer do here as well.
    """
    comparable = {
        name: found if CONTENDERS[name].way == PEER else 1 / (1 + np.exp(-found)) for name, found in scores.items()
    }
    base = next((name for name in ("float32", DEFAULTS) if name in scores), next(iter(scores)))
    words, extent = [], float(np.ptp(comparable[base]))
    for name, found in comparable.items():
        difference = float(np.abs(found - comparable[base]).max())
        if name != base:
            words.append(f"{CONTENDERS[name].words} {difference:.1e}")
        if CONTENDERS[name].dtype != "bfloat16" and not difference <= TOLERANCE:
            raise SystemExit(f"{name} and {base} differ by {difference}, more than {TOLERANCE} in float32")
    listed = ", ".join(words) or "nothing to compare with"
    return f"Scores (after a sigmoid) differ by at most, from {CONTENDERS[base].words}: {listed}; spread {extent:.1e}."


def show_job(rates: JobRates, bare: Timing, dtype: str) -> None:
    """Prints the job's table."""
    seconds = statistics.median(bare.seconds)
    header = ["", "seconds", "pairs/s", "share of the Scorer's rate", "peak MB"]
    rows = [
        [f"Scorer, {dtype}", f"{seconds:.1f}", f"{bare.pairs / seconds:,.1f}", "100%", ""],
        ["cappy score, whole", *_rate(rates, rates.usage.seconds, bare), megabytes(rates.usage.runner)],
        [f"cappy score, after {rates.start_up:.1f} s of start-up", *_rate(rates, rates.work, bare), ""],
    ]
    print(f"\n{markdown_table(header, rows)}")


def _rate(rates: JobRates, seconds: float, bare: Timing) -> list[str]:
    share = rates.rows / seconds / (bare.pairs / statistics.median(bare.seconds))
    return [f"{seconds:.1f}", f"{rates.rows / seconds:,.1f}", f"{share:.0%}"]


def show_profile(found: Profile) -> None:
    """Prints where the Scorer's time goes."""
    rows = [[part, f"{share:.1%}"] for part, share in found.shares.items()]
    print(
        f"\nThe Scorer in {found.dtype}, {found.pairs} pairs, {found.tokens_per_batch:,} tokens a batch, has "
        f"{found.occupied:.0%} of {usable_cores()} cores' time and does {found.whole:.1f} GFLOP in a second of a core. "
        f"Plain matrix multiplications of the same shapes do {found.limit:.1f}: it is at "
        f"{found.whole / found.limit:.0%} of what they allow. Tokenising takes {found.tokenising:.1%} of its time.\n"
    )
    print(markdown_table(["in torch's operators", "share of the time"], rows))


def run_cpu(bench: Bench, arguments: argparse.Namespace, pairs: pa.Table) -> dict[str, Any]:
    """The CPU part."""
    settled = settle_dtype("auto", "cpu")
    has = "has" if settled == "bfloat16" else "has no"
    print(f"The processor {has} instructions for bfloat16: --dtype auto is {settled}.")
    timings = compare(bench, pairs, arguments.contenders, arguments.repeat)
    found: dict[str, Any] = {name: asdict(timing) for name, timing in timings.items()}
    if settled in timings:
        rates = job_rates(bench, pairs, "--dtype", settled, repeat=arguments.repeat)
        show_job(rates, timings[settled], settled)
        found["job"] = asdict(rates)
    part = bench.save("profiled", pairs.slice(0, PROFILED_PAIRS))
    found["profile"] = bench.child("scoring_profile", "profile", part, "--dtype", settled)[1]
    show_profile(Profile(**found["profile"]))
    return found


def run_memory(bench: Bench, pairs: pa.Table, sizes: Sequence[int]) -> dict[str, Any]:
    """The job's peak resident memory by its number of rows, once for each."""
    found, rows = {}, []
    for size in sizes:
        usage, manifest = bench.job(bench.save("rows", repeated(pairs, size, characters=SHORT)))
        found[str(size)] = asdict(usage)
        units, tokens = len(manifest["files"]), manifest["tokens"]["this_launch"] / size
        rows.append([f"{size:,}", units, f"{tokens:.0f}", f"{usage.seconds:.1f}", megabytes(usage.runner)])
        print(f"{size:,} rows: {usage.seconds:.1f} s", file=sys.stderr)
    print(f"\n{markdown_table(['rows', 'files', 'tokens a pair', 'seconds', 'peak MB'], rows)}")
    return found


def default_contenders() -> list[str]:
    """Those that make sense here: bfloat16 crawls without instructions for it, and the peer needs its package."""
    half = settle_dtype("auto", "cpu") == "bfloat16"
    names = [name for name, contender in CONTENDERS.items() if half or contender.dtype != "bfloat16"]
    return [name for name in names if find_spec("sentence_transformers") or CONTENDERS[name].way == SCORER]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--memory", action="store_true", help="the job's memory instead")
    part.add_argument("--gpu", action="store_true", help="the GPU instead")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few pairs, on the CPU")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of real data (../shared)")
    parser.add_argument("--pairs", type=int, metavar="N", help="(1,500 on the CPU, 20,000 on a GPU)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="(default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs (default 0)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=default_contenders())
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows, with --memory")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="with --gpu (default: all)")
    parser.add_argument("--peer-pairs", type=int, default=3_000, metavar="N", help="of the slow peer, with --gpu")
    parser.add_argument("--job-rows", type=int, default=60_000, metavar="N", help="of the job, with --gpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything measured, too")
    arguments = parser.parse_args(argv)
    if not (arguments.shared / "data").is_dir():
        parser.error(f"{arguments.shared}: holds no data; give --shared")
    if arguments.gpu and not arguments.tiny and not torch.cuda.is_available():
        parser.error("--gpu: torch finds no GPU here; --gpu --tiny proves the script on the CPU")
    if not arguments.tiny and not find_spec("sentence_transformers"):
        parser.error("sentence-transformers is not installed: pip install '.[bench]'")
    arguments.pairs = arguments.pairs or (24 if arguments.tiny else 20_000 if arguments.gpu else 1_500)
    return arguments


def make_bench(folder: Path, arguments: argparse.Namespace) -> Bench:
    """The model of a part, saved, on the part's device."""
    tokenizer, model = arguments.shared / "models" / "roberta_tokenizer", folder / "model"
    if arguments.gpu and not arguments.tiny:
        return Bench(folder, save_random(model, tokenizer, LARGE), "cuda:0")
    if arguments.tiny or arguments.memory:
        return Bench(folder, save_random(model, tokenizer, TINY), "cpu")
    return Bench(folder, save_minilm(model), "cpu")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = parse_arguments(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{describe(*PACKAGES)} {arguments.pairs:,} pairs of alpaca_eval.parquet, at most 512 tokens.")
    pairs = real_pairs(
        arguments.shared / "data" / "candidates" / "alpaca_eval.parquet", arguments.pairs, seed=arguments.seed
    )
    with tempfile.TemporaryDirectory(prefix="scoring-") as name:
        bench = make_bench(Path(name), arguments)
        if arguments.gpu:
            run_gpu(bench, arguments, pairs)
            return
        try:
            found = run_memory(bench, pairs, arguments.sizes) if arguments.memory else run_cpu(bench, arguments, pairs)
        except CommandFailed as error:
            raise SystemExit(str(error)) from error
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
