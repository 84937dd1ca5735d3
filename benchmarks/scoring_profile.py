"""Where the Scorer's time on a CPU goes, and how far from the processor's own limit it is; a process of its own.

python -m benchmarks.scoring_profile --model DIR --pairs FILE --dtype float32 --output STEM
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from benchmarks.scoring_inputs import MAX_LENGTH, model_flops, texts_of
from benchmarks.scoring_runs import add_run_arguments
from cappy_model.checkpoints import Source, find_checkpoint, load_config
from cappy_model.host import usable_cores
from cappy_model.score.encoding import encoder_for
from cappy_model.score.scorer import Scorer

# By a part of the operator's name; the first that fits counts.
PARTS = {
    "attention": ("attention",),
    "matrix multiplications": ("addmm", "aten::mm", "aten::bmm", "mkldnn", "onednn", "aten::linear"),
    "GELU": ("gelu",),
    "layer norm": ("layer_norm",),
    "embeddings": ("embedding", "index_select"),
}
REST = "everything else in torch"

_ROUNDS = 5
_LIMIT_SECONDS = 2.0


@dataclass
class Profile:
    """`shares` of the time in torch's operators, by part.

    `whole` and `limit` are GFLOP for each second of a core's time, which other processes do not change: of the Scorer
    with all that it does, and of plain matrix multiplications of the same shapes. `occupied`: the share of all cores'
    time that the Scorer used. `tokenising`: its share of that.
    """

    pairs: int
    dtype: str
    tokens_per_batch: int
    shares: dict[str, float] = field(default_factory=dict)
    whole: float = 0.0
    limit: float = 0.0
    occupied: float = 0.0
    tokenising: float = 0.0


def profile_scorer(arguments: argparse.Namespace, pairs: pa.Table) -> Profile:
    """The profile of the Scorer on `pairs`."""
    texts = texts_of(pairs)
    scorer = Scorer.from_pretrained(str(arguments.model), device="cpu", dtype=arguments.dtype, max_length=MAX_LENGTH)
    found = Profile(pairs.num_rows, scorer.dtype, scorer.tokens_per_batch)
    flops = model_flops(scorer.config, scorer.score_pairs(*texts).num_tokens)
    used, seconds, limits = [], [], []
    for _ in range(arguments.repeat):  # in turns, so that both see the same machine
        started = time.perf_counter(), time.process_time()
        scorer.score_pairs(*texts)
        seconds.append(time.perf_counter() - started[0])
        used.append(time.process_time() - started[1])
        limits.append(matmul_limit(scorer.config, scorer.tokens_per_batch, getattr(torch, scorer.dtype)))
    found.whole, found.limit = flops / statistics.median(used) / 1e9, statistics.median(limits)
    found.occupied = sum(used) / sum(seconds) / usable_cores()
    found.tokenising = _tokenising(arguments.model, texts) / statistics.median(used)
    every_thread = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[ProfilerActivity.CPU], experimental_config=every_thread) as profiler:
        scorer.score_pairs(*texts)
    found.shares = shares({event.key: event.self_cpu_time_total for event in profiler.key_averages()})
    return found


def shares(times: dict[str, float]) -> dict[str, float]:
    """The share of each of `PARTS`, and of the rest, in the operators' own times."""
    sums = dict.fromkeys([*PARTS, REST], 0.0)
    for name, value in times.items():
        part = next((part for part, marks in PARTS.items() if any(mark in name for mark in marks)), REST)
        sums[part] += value
    whole = sum(sums.values())
    return {part: value / whole for part, value in sums.items()}


def _tokenising(model: Path, texts: tuple[list[str], list[str]]) -> float:
    """CPU seconds of tokenising the pairs."""
    config, tokenizer = load_config(find_checkpoint(Source(str(model))))
    encoder = encoder_for(tokenizer, config, max_length=MAX_LENGTH)
    started = time.process_time()
    encoder.encode(*texts)
    return time.process_time() - started


def matmul_limit(config: Any, tokens: int, dtype: torch.dtype) -> float:
    """GFLOP in a second of a core, of the layers' matrix multiplications alone, a thread on each core."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = [(hidden, hidden)] * 4 + [(inner, hidden), (hidden, inner)]
    weights = [torch.randn(shape).to(dtype) for _ in range(config.num_hidden_layers) for shape in shapes]
    flops = sum(2 * tokens * weight.numel() for weight in weights)
    together = threading.Barrier(usable_cores())

    def multiply() -> float:
        torch.set_num_threads(1)
        inputs = {size: torch.randn(tokens, size).to(dtype) for size in (hidden, inner)}
        rounds = 0
        with torch.inference_mode():
            together.wait()
            started = time.thread_time()
            while rounds < _ROUNDS or time.thread_time() - started < _LIMIT_SECONDS:
                for weight in weights:
                    torch.nn.functional.linear(inputs[weight.shape[1]], weight)
                rounds += 1
        return rounds * flops / (time.thread_time() - started) / 1e9

    with ThreadPoolExecutor(usable_cores()) as pool:
        return statistics.mean(found.result() for found in [pool.submit(multiply) for _ in range(usable_cores())])


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args(argv)
    found = profile_scorer(arguments, pq.read_table(arguments.pairs))
    Path(f"{arguments.output}.json").write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
