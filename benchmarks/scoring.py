"""The Scorer and `cappy score` against sentence-transformers' CrossEncoder: same weights, same real pairs.

    python -m benchmarks.scoring                        # on the CPU, MiniLM
    python -m benchmarks.scoring --memory               # peak memory of the job by number of rows
    python -m benchmarks.scoring --decoder              # a decoder, 17 candidates an instruction
    python -m benchmarks.scoring --check-cost           # cappy score with and without the check before the run
    python -m benchmarks.scoring --gpu --json gpu.json  # RoBERTa-large's shape: checks first, then all rates
    python -m benchmarks.scoring --tiny                 # any of these with a tiny model, to test the script

On the CPU each run of a contender is a new process whose memory is sampled; loading is not counted, and tables show
medians. Scores are compared before a table is printed. The job, `cappy score`, is measured as a command from Parquet to
Parquet: whole, and without its start-up, which is the time of the same command over one row. On a GPU each part runs in
processes of its own; a part that fails does not stop the others.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers.utils import logging

from benchmarks.machine import (
    CommandFailed,
    Usage,
    describe,
    exiting_on_failure,
    make_parser,
    markdown_table,
    measure,
    megabytes,
    ratio,
    take_turns,
    timed,
    work_seconds,
)
from benchmarks.scoring_families import CANDIDATES, DECODER, MODERNBERT, candidates, family_table, save_family
from benchmarks.scoring_inputs import (
    CHECK,
    LARGE,
    MAX_LENGTH,
    PEER,
    PROFILE,
    SCORER,
    SHORT,
    TINY,
    Timing,
    real_pairs,
    repeated,
    save_minilm,
    save_random,
    spread,
)
from cappy_model.devices import settle_dtype
from cappy_model.host import usable_cores

PACKAGES = ("torch", "transformers", "sentence-transformers", "apache-beam")
SIZES = (10_000, 50_000, 200_000)
TOLERANCE = 1e-5  # of scores in float32
PROFILED_PAIRS, CHECKED_PAIRS, BUSY_PAIRS, WARM_PAIRS, PEER_WARM_PAIRS = 200, 64, 8_192, 2_048, 256
CHECKED_BEFORE = 16
"""Pairs that `cappy score` checks before a run by default."""

BATCH_SIZES = (32, 64, 128, 256)

PEAK = 989e12
"""Dense FLOP/s of an H100 or H200 SXM in bfloat16, from its data sheet."""

FORMULA = (
    "Utilisation: the operations of the real tokens alone over 989 TFLOP/s x the time; for each layer and token "
    "2 (4 h² + 2 h i), and 4 h n for attention within the n tokens of its pair; in the last, of "
    "all tokens but the first, keys and values alone."
)


@dataclass(frozen=True)
class Contender:
    """One way of scoring on the CPU: its title in the table, and flags of `scoring_inputs`."""

    title: str
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


@dataclass(frozen=True)
class JobRates:
    """Median usage of `cappy score` over `rows`, their tokens, and the seconds of a run over one row (`start_up`)."""

    rows: int
    tokens: int
    usage: Usage
    start_up: float

    @property
    def work(self) -> float:
        """Seconds after start-up."""
        return work_seconds(self.usage.seconds, self.start_up)


@dataclass(frozen=True)
class Bench:
    """Measured processes: their files (`folder`), the model that they score with, and its device."""

    folder: Path
    model: Path
    device: str

    def save(self, name: str, pairs: pa.Table) -> Path:
        """Write pairs as a Parquet file for the processes."""
        path = self.folder / f"{name}.parquet"
        pq.write_table(pairs, path)
        return path

    def child(
        self, way: str, name: str, pairs: Path, *flags: object, module: str = "scoring_inputs"
    ) -> tuple[Usage, Any]:
        """Run a measurement of `scoring_inputs`, or of another module; return its usage and its JSON result."""
        stem = self.folder / name
        files = ("--model", self.model, "--pairs", pairs, "--device", self.device, "--output", stem)
        command = ["-m", f"benchmarks.{module}", way, *map(str, (*files, *flags))]
        usage = measure(command, self.folder / f"{name}.log")
        return usage, json.loads(Path(f"{stem}.json").read_text())

    def scores(self, name: str) -> np.ndarray:
        """Return the float32[n] scores of the last process of that name."""
        scores: np.ndarray = np.load(self.folder / f"{name}.npy")
        return scores

    def job(self, pairs: Path, *flags: str, checked: int = 0) -> Usage:
        """Run `cappy score` from a Parquet file into a new folder, with the check of that many pairs before the run."""
        output = self.folder / "scored"
        shutil.rmtree(output, ignore_errors=True)
        files = ("--input", pairs, "--output", output, "--model", self.model, "--device", self.device)
        command = ["-m", "beam_pipelines.program", "score", *map(str, files), "--max-length", str(MAX_LENGTH), *flags]
        command += ["--check-pairs", str(checked)]
        return measure(command, self.folder / "job.log")

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the last run of the job."""
        manifest: dict[str, Any] = json.loads((self.folder / "scored" / "manifest.json").read_text())
        return manifest

    def job_rates(self, pairs: pa.Table, *flags: str, repeat: int) -> JobRates:
        """Measure the job over `pairs` and over the first of them alone, in turns."""
        inputs = {"one row": self.save("single", pairs.slice(0, 1)), "job": self.save("job", pairs)}
        usages = take_turns({name: partial(self.job, path, *flags) for name, path in inputs.items()}, repeat)
        manifest = self.manifest()
        if manifest["totals"]["scored"] != pairs.num_rows:
            raise SystemExit(f"the job scored {manifest['totals']['scored']:,} of {pairs.num_rows:,} rows")
        tokens = manifest["tokens"]["this_launch"]
        return JobRates(pairs.num_rows, tokens, usages["job"], usages["one row"].seconds)


def compare(bench: Bench, pairs: pa.Table, names: Sequence[str], repeat: int) -> dict[str, Timing]:
    """Print the table of the contenders; return their timings, with the seconds of all repeats."""
    path, timings = bench.save("pairs", pairs), dict[str, Timing]()

    def run(name: str) -> Usage:
        contender = CONTENDERS[name]
        usage, result = bench.child(contender.way, name, path, "--dtype", contender.dtype, *contender.flags)
        before = timings[name].seconds if name in timings else []
        timings[name] = Timing(**{**result, "seconds": [*before, *result["seconds"]]})
        return usage

    usages = take_turns({name: partial(run, name) for name in names}, repeat)
    print(f"\n{agreement({name: bench.scores(name) for name in names})}\n")
    rows = [
        {
            "": CONTENDERS[name].title,
            "pairs/s": f"{timing.pairs / timing.median:,.1f}",
            "ratio": ratio(timings[names[0]].median, timing.median),
            "real tokens/s": f"{timing.tokens / timing.median:,.0f}",
            "padding": f"{timing.padding:.1%}",
            "peak MB": megabytes(usages[name].runner),
        }
        for name, timing in timings.items()
    ]
    print(markdown_table(rows))
    return timings


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return the logistic function of scores, which the peer applies."""
    result: np.ndarray = 1 / (1 + np.exp(-scores))
    return result


def agreement(scores: dict[str, np.ndarray]) -> str:
    """Describe the largest differences after a sigmoid. Raises SystemExit if float32 scores differ."""
    comparable = {name: one if CONTENDERS[name].way == PEER else sigmoid(one) for name, one in scores.items()}
    base = next((name for name in ("float32", DEFAULTS) if name in scores), next(iter(scores)))
    words = []
    for name, one in comparable.items():
        difference = float(np.abs(one - comparable[base]).max())
        if name != base:
            words.append(f"{CONTENDERS[name].title} {difference:.1e}")
        if CONTENDERS[name].dtype != "bfloat16" and not difference <= TOLERANCE:
            raise SystemExit(f"{name} and {base} differ by {difference}, more than {TOLERANCE} in float32")
    listed, extent = ", ".join(words) or "nothing to compare with", float(np.ptp(comparable[base]))
    return f"Scores (after a sigmoid) differ by at most, from {CONTENDERS[base].title}: {listed}; spread {extent:.1e}."


def show_job(rates: JobRates, scorer: Timing, dtype: str) -> None:
    """Print the rates of the job against that of the Scorer."""
    titles = {
        f"Scorer, {dtype}": scorer.median,
        "cappy score, whole": rates.usage.seconds,
        f"cappy score, after {rates.start_up:.1f} s of start-up": rates.work,
    }
    rows = [
        {
            "": title,
            "seconds": f"{seconds:.1f}",
            "pairs/s": f"{rates.rows / seconds:,.1f}",
            "share of the Scorer's rate": f"{scorer.median / seconds:.0%}",
            "peak MB": megabytes(rates.usage.runner) if title == "cappy score, whole" else "",
        }
        for title, seconds in titles.items()
    ]
    print(f"\n{markdown_table(rows)}")


def show_profile(found: dict[str, Any]) -> None:
    """Print where the Scorer's time goes."""
    print(
        f"\nThe Scorer in {found['dtype']}, {found['pairs']} pairs, {found['tokens_per_batch']:,} tokens a batch, uses "
        f"{found['occupied']:.0%} of the time of {usable_cores()} cores, at {found['whole']:.1f} GFLOP per second of a "
        f"core. Plain matrix multiplications of the same shapes reach {found['limit']:.1f}: the Scorer is at "
        f"{found['whole'] / found['limit']:.0%} of that. Tokenising takes {found['tokenising']:.1%} of its time.\n"
    )
    shares = found["shares"].items()
    print(
        markdown_table([{"in torch's operators": part, "share of the time": f"{share:.1%}"} for part, share in shares])
    )


def run_cpu(bench: Bench, arguments: argparse.Namespace, pairs: pa.Table) -> dict[str, Any]:
    """Run the CPU part; return its results."""
    settled = settle_dtype("auto", "cpu")
    has = "has" if settled == "bfloat16" else "has no"
    print(f"The processor {has} instructions for bfloat16: --dtype auto is {settled}.")
    timings = compare(bench, pairs, arguments.contenders, arguments.repeat)
    found: dict[str, Any] = {name: asdict(timing) for name, timing in timings.items()}
    if settled in timings:
        rates = bench.job_rates(pairs, "--dtype", settled, repeat=arguments.repeat)
        show_job(rates, timings[settled], settled)
        found["job"] = asdict(rates)
    path = bench.save("profiled", pairs.slice(0, PROFILED_PAIRS))
    found["profile"] = bench.child(PROFILE, PROFILE, path, "--dtype", settled, "--repeat", 3)[1]
    show_profile(found["profile"])
    return found


def run_memory(bench: Bench, pairs: pa.Table, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure the peak resident memory of the job once for each number of rows."""
    found, rows = {}, []
    for size in sizes:
        usage = bench.job(bench.save("rows", repeated(pairs, size, characters=SHORT)))
        manifest = bench.manifest()
        found[str(size)] = asdict(usage)
        units, tokens = len(manifest["files"]), manifest["tokens"]["this_launch"] / size
        row = {"rows": f"{size:,}", "files": units, "tokens a pair": f"{tokens:.0f}"}
        rows.append({**row, "seconds": f"{usage.seconds:.1f}", "peak MB": megabytes(usage.runner)})
        print(f"{size:,} rows: {usage.seconds:.1f} s", file=sys.stderr)
    print(f"\n{markdown_table(rows)}")
    return found


def run_check_cost(bench: Bench, pairs: pa.Table, repeat: int) -> dict[str, Any]:
    """Measure the job with and without the check before the run, in turns, over as many rows as pairs are checked."""
    path = bench.save("checked", spread(pairs, CHECKED_BEFORE))
    runs = {f"--check-pairs {checked}": partial(bench.job, path, checked=checked) for checked in (0, CHECKED_BEFORE)}
    usages = take_turns(runs, repeat)
    base = next(iter(usages.values()))
    rows = [
        {
            f"cappy score, {CHECKED_BEFORE} rows": name,
            "seconds": f"{usage.seconds:.1f}",
            "of them for the check": f"{usage.seconds - base.seconds:.1f}",
            "CPU seconds": f"{usage.cpu:.1f}",
            "of those for the check": f"{usage.cpu - base.cpu:.1f}",
        }
        for name, usage in usages.items()
    ]
    print(f"\n{markdown_table(rows)}")
    return {name: asdict(usage) for name, usage in usages.items()}


def run_family(bench: Bench, arguments: argparse.Namespace, family: str, pairs: pa.Table) -> dict[str, Any]:
    """Measure a family of `scoring_families` in a process of its own, print its table, and return its results."""
    real = bench.device != "cpu"
    tokenizer = arguments.shared / "models" / "roberta_tokenizer"
    model = save_family(family, bench.folder / f"{family}-model", tokenizer, real=real)
    few = spread(pairs, arguments.peer_pairs)
    if family == DECODER:
        few = candidates(pairs, max(2, few.num_rows // CANDIDATES))
    flags = ("--dtype", "bfloat16" if real else "float32", "--repeat", arguments.repeat)
    own = Bench(bench.folder, model, bench.device)
    found: dict[str, Any] = own.child(family, family, bench.save(family, few), *flags, module="scoring_families")[1]
    print(family_table(found))
    return found


@dataclass
class GpuParts:
    """The parts of the GPU benchmark. `found` is the content of the JSON file, `failed` lists failures."""

    bench: Bench
    arguments: argparse.Namespace
    pairs: pa.Table
    rates: dict[str, Timing] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @property
    def real(self) -> bool:
        """Whether there is a GPU."""
        return self.bench.device != "cpu"

    @property
    def dtype(self) -> str:
        """The dtype of the Scorer."""
        return "bfloat16" if self.real else "float32"

    def check(self) -> None:
        """Compare a tiny RoBERTa, a tiny BERT and a tiny ModernBERT with the plain forward."""
        path = self.bench.save("checked", self.pairs.slice(0, CHECKED_PAIRS))
        tokenizer = self.arguments.shared / "models" / "roberta_tokenizer"
        rows, self.found["check"] = [], []
        for family in ("roberta", "bert", MODERNBERT):
            model = save_random(self.bench.folder / family, tokenizer, TINY, family=family)
            self.found["check"] += Bench(self.bench.folder, model, self.bench.device).child(CHECK, CHECK, path)[1]
        for one in self.found["check"]:
            passed = one["difference"] <= one["tolerance"]
            numbers = {name: f"{one[name]:.2g}" for name in ("spread", "difference", "tolerance")}
            rows.append({**one, **numbers, "": "passed" if passed else "FAILED"})
            self.failed += [] if passed else [f"check of {one['family']}, {one['path']}"]
        print(markdown_table(rows))

    def scorer(self) -> None:
        """Time the Scorer."""
        self._time("Scorer", self.pairs, SCORER)

    def busy(self) -> None:
        """Measure how busy the Scorer keeps the device."""
        if not self.real:
            print("No GPU: the device's share of the time is not measured.")
            return
        path = self.bench.save("busy", spread(self.pairs, BUSY_PAIRS))
        flags = ("--dtype", self.dtype, "--warm-up", WARM_PAIRS, "--busy")
        _, timing = self.bench.child(SCORER, "busy", path, *flags)
        self.found["busy"] = timing
        shares = ", ".join(f"{share:.1%} {words}" for words, share in timing["busy"].items())
        print(f"The device is busy for {shares} ({timing['pairs']:,} pairs, profiled).")

    def compiled(self) -> None:
        """Time the Scorer with its layers compiled."""
        if not self.real:
            print("No GPU: torch.compile is not measured.")
            return
        self._time("Scorer, layers compiled", self.pairs, SCORER, "--compiled")

    def peers(self) -> None:
        """Time CrossEncoder, on fewer pairs."""
        if not find_spec("sentence_transformers"):
            print("sentence-transformers is not installed, so there is no peer.")
            return
        few, title = spread(self.pairs, self.arguments.peer_pairs), CONTENDERS[DEFAULTS].title
        warm_up = ("--warm-up", PEER_WARM_PAIRS)
        plain = self._time(title, few, PEER, *warm_up, dtype="auto")
        half = self._time(f"CrossEncoder.predict, {self.dtype}", few, PEER, *warm_up, "--batch-sizes", *BATCH_SIZES)
        ours = sigmoid(self._time(f"Scorer, {few.num_rows:,} pairs", few, SCORER))
        print(
            f"Scores (after a sigmoid) differ by at most, from {title}: Scorer {np.abs(ours - plain).max():.1e}, "
            f"CrossEncoder in {self.dtype} {np.abs(half - plain).max():.1e}; spread {np.ptp(plain):.1e}."
        )

    def job(self) -> None:
        """Measure the whole job, over pairs repeated with numbers if there are fewer pairs than rows."""
        if not find_spec("apache_beam"):
            print("apache-beam is not installed, so the job is not measured: pip install .")
            return
        rows = self.arguments.job_rows if self.real else self.pairs.num_rows
        rates = self.bench.job_rates(repeated(self.pairs, rows), "--dtype", self.dtype, repeat=1)
        self.found["job"] = asdict(rates)
        print(
            f"cappy score, {rates.rows:,} rows: {rates.tokens / rates.usage.seconds:,.0f} real tokens/s in "
            f"{rates.usage.seconds:.1f} s, {rates.tokens / rates.work:,.0f} after {rates.start_up:.1f} s of start-up."
        )

    def modernbert(self) -> None:
        """Time ModernBERT-base's shape without and with padding."""
        self.found[MODERNBERT] = run_family(self.bench, self.arguments, MODERNBERT, self.pairs)

    def decoder(self) -> None:
        """Time a decoder of 0.6 billion parameters, with instructions read once and for each candidate."""
        self.found[DECODER] = run_family(self.bench, self.arguments, DECODER, self.pairs)

    def _time(self, title: str, pairs: pa.Table, way: str, *flags: object, dtype: str | None = None) -> np.ndarray:
        name, path = f"run-{len(self.rates)}", self.bench.save("timed", pairs)
        common = ("--dtype", dtype or self.dtype, "--repeat", self.arguments.repeat, "--warm-up", WARM_PAIRS)
        _, result = self.bench.child(way, name, path, *common, *flags)
        self.rates[title] = Timing(**result)
        self.found.setdefault("rates", {})[title] = result
        return self.bench.scores(name)

    def table(self) -> str:
        """Return all rates, against the peer at its defaults if it was timed."""
        peer, rows = self.rates.get(CONTENDERS[DEFAULTS].title), []
        for title, timing in self.rates.items():
            rate = timing.tokens / timing.median
            rows.append(
                {
                    "": title,
                    "pairs": f"{timing.pairs:,}",
                    "batch": f"{timing.batch:,}",
                    "real tokens/s": f"{rate:,.0f}",
                    "ratio": ratio(rate, peer.tokens / peer.median) if peer else "",
                    "padding": f"{timing.padding:.1%}",
                    "utilisation": f"{timing.flops / timing.median / PEAK:.1%}" if self.real and timing.flops else "",
                    "peak GB of the device": f"{timing.device_peak / 1e9:.1f}" if self.real else "",
                    "first pairs, s": f"{timing.first:.1f}",
                }
            )
        return markdown_table(rows)


PARTS = ("check", "scorer", "busy", "compiled", "peers", MODERNBERT, DECODER, "job")
"""Methods of `GpuParts`, in their order."""


def run_gpu(bench: Bench, arguments: argparse.Namespace, pairs: pa.Table) -> None:
    """Run the parts, print their results, and write the JSON file after each. Raises SystemExit if one failed."""
    parts = GpuParts(bench, arguments, pairs)
    if parts.real:
        print(f"{torch.cuda.get_device_name(0)}.")
    for name in arguments.parts:
        print(f"\n## {name}\n", flush=True)
        try:
            seconds, _ = timed(getattr(parts, name))
            print(f"{name}: {seconds:.0f} s", file=sys.stderr)
        except CommandFailed as error:
            parts.failed.append(name)
            print(f"{name} failed: {error}")
        write_json(arguments, parts.found)
    print(f"\n## rates\n\n{parts.table()}\n\n{FORMULA}")
    if parts.failed:
        raise SystemExit(f"failed: {', '.join(parts.failed)}")


def write_json(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write the results to the file of `--json`, if given."""
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def default_contenders() -> list[str]:
    """Return those that run here: bfloat16 is slow without its instructions, and the peer needs its package."""
    half = settle_dtype("auto", "cpu") == "bfloat16"
    names = [name for name, contender in CONTENDERS.items() if half or contender.dtype != "bfloat16"]
    return [name for name in names if find_spec("sentence_transformers") or CONTENDERS[name].way == SCORER]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, repeat=3, shared=True)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--memory", action="store_true", help="measure the memory of the job instead")
    part.add_argument("--decoder", action="store_true", help="measure a decoder with candidates instead")
    part.add_argument("--check-cost", action="store_true", help="measure the check before a run instead")
    part.add_argument("--gpu", action="store_true", help="measure the GPU instead")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few pairs, on the CPU")
    parser.add_argument("--pairs", type=int, metavar="N", help="(1,500 on the CPU, 510 of a decoder, 20,000 on a GPU)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the choice of pairs (default 0)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=default_contenders())
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows, with --memory")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="with --gpu (default: all)")
    parser.add_argument("--peer-pairs", type=int, default=3_000, metavar="N", help="pairs of the peer and the families")
    parser.add_argument("--job-rows", type=int, default=60_000, metavar="N", help="rows of the job, with --gpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    arguments = parser.parse_args(argv)
    if not (arguments.shared / "data").is_dir():
        parser.error(f"{arguments.shared}: has no folder `data`; give --shared")
    if arguments.gpu and not arguments.tiny and not torch.cuda.is_available():
        parser.error("--gpu: torch finds no GPU; --gpu --tiny tests the script on the CPU")
    if not arguments.tiny and not find_spec("sentence_transformers"):
        parser.error("sentence-transformers is not installed: pip install '.[bench]'")
    arguments.pairs = arguments.pairs or (
        24 if arguments.tiny else 20_000 if arguments.gpu else 510 if arguments.decoder else 1_500
    )
    return arguments


def make_bench(folder: Path, arguments: argparse.Namespace) -> Bench:
    """Save the model of a part; return it with the device of that part."""
    tokenizer, model = arguments.shared / "models" / "roberta_tokenizer", folder / "model"
    if arguments.gpu and not arguments.tiny:
        return Bench(folder, save_random(model, tokenizer, LARGE), "cuda:0")
    if arguments.tiny or arguments.memory or arguments.decoder:
        return Bench(folder, save_random(model, tokenizer, TINY), "cpu")
    return Bench(folder, save_minilm(model), "cpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = parse_arguments(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{describe(*PACKAGES)} {arguments.pairs:,} pairs of alpaca_eval.parquet, at most 512 tokens.")
    candidates = arguments.shared / "data" / "candidates" / "alpaca_eval.parquet"
    pairs = real_pairs(candidates, arguments.pairs, seed=arguments.seed)
    with tempfile.TemporaryDirectory(prefix="scoring-") as name, exiting_on_failure():
        bench = make_bench(Path(name), arguments)
        if arguments.gpu:
            run_gpu(bench, arguments, pairs)
        elif arguments.decoder:
            write_json(arguments, run_family(bench, arguments, DECODER, pairs))
        elif arguments.check_cost:
            write_json(arguments, run_check_cost(bench, pairs, arguments.repeat))
        elif arguments.memory:
            write_json(arguments, run_memory(bench, pairs, arguments.sizes))
        else:
            write_json(arguments, run_cpu(bench, arguments, pairs))


if __name__ == "__main__":
    main()
