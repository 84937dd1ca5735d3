"""The GPU part of the scoring benchmark: checks first, then every rate, each part in processes of its own.

A part that fails says so and leaves the others alone; what was measured is in the JSON file after each part.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.machine import CommandFailed, markdown_table, ratio
from benchmarks.scoring_bench import Bench, job_rates
from benchmarks.scoring_check import Check
from benchmarks.scoring_inputs import TINY, repeated, save_random, spread
from benchmarks.scoring_runs import PEER, SCORER, Timing

PEAK = 989e12
"""Dense FLOP/s of an H100 or H200 SXM in bfloat16, as its data sheet has it."""

FORMULA = (
    "Utilisation: the operations of the real tokens alone over 989 TFLOP/s x the time; for each layer and token "
    "2 (4 h² + 2 h i), and 4 h n for attention within the n tokens of its pair; in the last, of "
    "all tokens but the first, keys and values alone."
)
DEFAULTS = "CrossEncoder.predict, defaults"
BATCH_SIZES = ("32", "64", "128", "256")
CHECKED_PAIRS = 64
BUSY_PAIRS = 8_192
WARM_PAIRS = 2_048
PEER_WARM_PAIRS = 256


class Parts:
    """The parts with what they find. `found` is what the JSON file holds, `failed` names what went wrong."""

    def __init__(self, bench: Bench, arguments: argparse.Namespace, pairs: pa.Table) -> None:
        self._bench, self._arguments, self._pairs = bench, arguments, pairs
        self._real = bench.device != "cpu"
        self._dtype = "bfloat16" if self._real else "float32"
        self._rates: dict[str, Timing] = {}
        self.found: dict[str, Any] = {}
        self.failed: list[str] = []

    def check(self) -> None:
        """A tiny RoBERTa and a tiny BERT against the plain forward."""
        path = self._bench.save("checked", self._pairs.slice(0, CHECKED_PAIRS))
        tokenizer = self._arguments.shared / "models" / "roberta_tokenizer"
        checks = []
        for family in ("roberta", "bert"):
            model = save_random(self._bench.folder / family, tokenizer, TINY, family=family)
            _, found = Bench(self._bench.folder, model, self._bench.device).child("scoring_check", "check", path)
            checks += [Check(**one) for one in found]
        self.found["check"] = [asdict(one) for one in checks]
        header = ["", "path", "pairs", "spread of scores", "largest difference", "may be", ""]
        rows = [
            [one.family, one.path, one.pairs]
            + [f"{number:.2g}" for number in (one.spread, one.difference, one.tolerance)]
            + ["passed" if one.passed else "FAILED"]
            for one in checks
        ]
        print(markdown_table(header, rows))
        self.failed += [f"check of {one.family}, {one.path}" for one in checks if not one.passed]

    def scorer(self) -> None:
        """The bare Scorer."""
        self._time("Scorer", self._pairs, "--way", SCORER)

    def busy(self) -> None:
        """How busy the bare Scorer keeps the device."""
        if not self._real:
            print("No GPU: the device's share of the time is not measured.")
            return
        path = self._bench.save("busy", spread(self._pairs, BUSY_PAIRS))
        flags = ("--way", SCORER, "--dtype", self._dtype, "--warm-up", WARM_PAIRS, "--busy")
        timing = self._bench.timing("busy", path, *flags)[1]
        self.found["busy"] = asdict(timing)
        shares = ", ".join(f"{share:.1%} {words}" for words, share in timing.busy.items())
        print(f"Of the time the device is busy for {shares} ({timing.pairs:,} pairs, profiled).")

    def compiled(self) -> None:
        """The same with its layers compiled."""
        if not self._real:
            print("No GPU: torch.compile is not measured.")
            return
        self._time("Scorer, layers compiled", self._pairs, "--way", SCORER, "--compiled")

    def peers(self) -> None:
        """CrossEncoder, on fewer pairs."""
        if not find_spec("sentence_transformers"):
            print("sentence-transformers is not installed, so there is no peer.")
            return
        few = spread(self._pairs, self._arguments.peer_pairs)
        way = ("--way", PEER, "--warm-up", PEER_WARM_PAIRS)
        plain = self._time(DEFAULTS, few, *way, dtype="auto")
        half = self._time(f"CrossEncoder.predict, {self._dtype}", few, *way, "--batch-sizes", *BATCH_SIZES)
        ours = self._time(f"Scorer, {few.num_rows:,} pairs", few, "--way", SCORER)
        ours = 1 / (1 + np.exp(-ours))  # as the peer does
        print(
            f"Scores (after a sigmoid) differ by at most, from {DEFAULTS}: Scorer {np.abs(ours - plain).max():.1e}, "
            f"CrossEncoder in {self._dtype} {np.abs(half - plain).max():.1e}; spread {np.ptp(plain):.1e}."
        )

    def job(self) -> None:
        """The whole job, over pairs made distinct by numbers where there are more rows than pairs."""
        if not find_spec("apache_beam"):
            print("apache-beam is not installed, so the job is not measured: pip install .")
            return
        rows = self._arguments.job_rows if self._real else self._pairs.num_rows
        rates = job_rates(self._bench, repeated(self._pairs, rows), "--dtype", self._dtype, repeat=1)
        self.found["job"] = asdict(rates)
        print(
            f"cappy score, {rates.rows:,} rows: {rates.tokens / rates.usage.seconds:,.0f} real tokens/s in "
            f"{rates.usage.seconds:.1f} s, {rates.tokens / rates.work:,.0f} after {rates.start_up:.1f} s of start-up."
        )

    def _time(self, words: str, pairs: pa.Table, *flags: object, dtype: str | None = None) -> np.ndarray:
        name = f"run-{len(self._rates)}"
        path = self._bench.save("timed", pairs)
        common = ("--dtype", dtype or self._dtype, "--repeat", self._arguments.repeat, "--warm-up", WARM_PAIRS)
        self._rates[words] = self._bench.timing(name, path, *common, *flags)[1]
        self.found.setdefault("rates", {})[words] = asdict(self._rates[words])
        return self._bench.scores(name)

    def table(self) -> str:
        """All rates, against the peer at its defaults where there is one."""
        peer = self._rates.get(DEFAULTS)
        rows = []
        for words, timing in self._rates.items():
            seconds = statistics.median(timing.seconds)
            rate = timing.tokens / seconds
            rows.append(
                [
                    words,
                    f"{timing.pairs:,}",
                    f"{timing.batch:,}",
                    f"{rate:,.0f}",
                    ratio(rate, peer.tokens / statistics.median(peer.seconds)) if peer else "",
                    f"{1 - timing.tokens / timing.computed:.1%}",
                    f"{timing.flops / seconds / PEAK:.1%}" if self._real and timing.flops else "",
                    f"{timing.device_peak / 1e9:.1f}" if self._real else "",
                    f"{timing.first:.1f}",
                ]
            )
        header = ["", "pairs", "batch", "real tokens/s", "ratio", "padding", "utilisation", "peak GB of the device"]
        return markdown_table([*header, "first pairs, s"], rows)


PARTS = {
    "check": Parts.check,
    "scorer": Parts.scorer,
    "busy": Parts.busy,
    "compiled": Parts.compiled,
    "peers": Parts.peers,
    "job": Parts.job,
}


def run_gpu(bench: Bench, arguments: argparse.Namespace, pairs: pa.Table) -> None:
    """Runs the parts and prints what they find. Raises SystemExit at the end where one failed."""
    parts = Parts(bench, arguments, pairs)
    if bench.device != "cpu":
        print(f"{torch.cuda.get_device_name(0)}.")
    for name in arguments.parts:
        print(f"\n## {name}\n", flush=True)
        started = time.perf_counter()
        try:
            PARTS[name](parts)
        except CommandFailed as error:
            parts.failed.append(name)
            print(f"{name} failed: {error}")
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        if arguments.json:
            arguments.json.write_text(json.dumps(parts.found, indent=1))
    print(f"\n## rates\n\n{parts.table()}\n\n{FORMULA}")
    if parts.failed:
        raise SystemExit(f"failed: {', '.join(parts.failed)}")
