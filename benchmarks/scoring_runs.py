"""One way of scoring pairs, timed in a process of its own; what it took goes to STEM.json, the scores to STEM.npy.

    python -m benchmarks.scoring_runs --way scorer --model DIR --pairs FILE --output STEM

Loading is not timed; a part of the pairs is scored beforehand, so that nothing is done for the first time.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForSequenceClassification

from benchmarks.scoring_inputs import MAX_LENGTH, model_flops, spread, texts_of, union_length
from cappy_model.score.scorer import Scorer

SCORER, PEER = "scorer", "cross-encoder"


@dataclass
class Timing:
    """What scoring took: seconds of each repeat, of loading, and of the first pairs; tokens without and with padding.

    `batch` is pairs for the peer, tokens for the Scorer. `flops` are those of the real tokens. `device_peak` is in
    bytes, `busy` the device's share of the time (of the whole, and between its first and last kernel).
    """

    pairs: int
    seconds: list[float] = field(default_factory=list)
    loading: float = 0.0
    first: float = 0.0
    tokens: int = 0
    computed: int = 0
    batch: int = 0
    tried: dict[int, float] = field(default_factory=dict)
    flops: float = 0.0
    device_peak: int = 0
    busy: dict[str, float] = field(default_factory=dict)


def time_scorer(arguments: argparse.Namespace, pairs: pa.Table) -> tuple[Timing, np.ndarray]:
    """The Scorer, as it is."""
    timing, texts = Timing(pairs.num_rows), texts_of(pairs)
    if arguments.compiled:
        compile_layers(arguments.model)
    started = time.perf_counter()
    scorer = Scorer.from_pretrained(
        str(arguments.model), device=arguments.device, dtype=arguments.dtype, max_length=MAX_LENGTH
    )
    timing.loading, timing.batch = time.perf_counter() - started, scorer.tokens_per_batch
    timing.first = _seconds(lambda: scorer.score_pairs(*texts_of(spread(pairs, arguments.warm_up))))
    for _ in range(arguments.repeat):
        started = time.perf_counter()
        scored = scorer.score_pairs(*texts)
        timing.seconds.append(time.perf_counter() - started)
    timing.tokens = scored.work.tokens
    timing.computed = scored.work.tokens + scored.work.padding
    timing.flops = model_flops(scorer.config, scored.num_tokens)
    if arguments.busy:
        timing.busy = _busy(scorer, texts)
    return timing, scored.scores


def time_peer(arguments: argparse.Namespace, pairs: pa.Table) -> tuple[Timing, np.ndarray]:
    """sentence-transformers' CrossEncoder.predict at its defaults, but for the batch sizes and the dtype given.

    Of several batch sizes each is timed once; the fastest is then the one that is repeated.
    """
    from sentence_transformers import CrossEncoder

    timing, texts = Timing(pairs.num_rows), list(zip(*texts_of(pairs), strict=True))
    started = time.perf_counter()
    model = CrossEncoder(
        str(arguments.model),
        max_length=MAX_LENGTH,
        device=arguments.device,
        local_files_only=True,
        model_kwargs=None if arguments.dtype == "auto" else {"dtype": getattr(torch, arguments.dtype)},
    )
    timing.loading = time.perf_counter() - started
    few = list(zip(*texts_of(spread(pairs, arguments.warm_up)), strict=True))
    timing.first = _seconds(lambda: model.predict(few))
    for size in arguments.batch_sizes or ():
        model.predict(few, batch_size=size)
        timing.tried[size] = _seconds(partial(model.predict, texts, batch_size=size))
    timing.batch = min(timing.tried, key=timing.tried.__getitem__) if timing.tried else 32
    _count_tokens(model, timing)
    for _ in range(arguments.repeat):
        timing.tokens = timing.computed = 0
        started = time.perf_counter()
        scores = model.predict(texts, batch_size=timing.batch)
        timing.seconds.append(time.perf_counter() - started)
    return timing, np.asarray(scores)


def _count_tokens(model: Any, timing: Timing) -> None:
    """Has the peer's batches counted, while they still are on the CPU: microseconds for each."""
    preprocess = model.preprocess

    def counted(*arguments: Any, **options: Any) -> Any:
        features = preprocess(*arguments, **options)
        timing.computed += features["attention_mask"].numel()
        timing.tokens += int(features["attention_mask"].sum())
        return features

    model.preprocess = counted


def compile_layers(folder: Path) -> None:
    """Compiles the layers of a model's family for the rest of this process, for batches of any size.

    By class: what is compiled is lost where a model is copied to its device.
    """
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(str(folder)))
    layer: Any = type(model.base_model.encoder.layer[0])
    layer.forward = torch.compile(layer.forward, dynamic=True)


def _busy(scorer: Scorer, texts: tuple[list[str], list[str]]) -> dict[str, float]:
    """The share of the time in which any kernel or copy of the device runs while pairs are scored."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = _seconds(lambda: scorer.score_pairs(*texts))
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type.name == "CUDA"
    ]
    if not spans:
        raise SystemExit("the profiler saw no kernel: is CUPTI there, and may it be used?")
    microseconds = union_length(spans)
    between = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"of the whole": microseconds / 1e6 / seconds, "from first to last kernel": microseconds / between}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of every measured process of this benchmark."""
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="a Parquet file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--output", type=Path, required=True, metavar="STEM")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=(SCORER, PEER), required=True)
    add_run_arguments(parser)
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="the peer's (default: its own)")
    parser.add_argument("--compiled", action="store_true", help="the Scorer's layers compiled by torch")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=32, help="pairs")
    parser.add_argument("--busy", action="store_true", help="profile the GPU afterwards")
    arguments = parser.parse_args(argv)
    run = time_scorer if arguments.way == SCORER else time_peer
    timing, scores = run(arguments, pq.read_table(arguments.pairs))
    if arguments.device.startswith("cuda"):
        timing.device_peak = torch.cuda.max_memory_allocated()
    np.save(f"{arguments.output}.npy", scores)
    Path(f"{arguments.output}.json").write_text(json.dumps(asdict(timing)))


if __name__ == "__main__":
    main()
