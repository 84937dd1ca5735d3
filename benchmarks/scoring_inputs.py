"""Inputs of the scoring benchmark, and its measurements, each of which runs in a process of its own.

    python -m benchmarks.scoring_inputs scorer --model DIR --pairs FILE --output STEM

`scorer` and `cross-encoder` time one way of scoring after loading and a warm-up; `check` compares the Scorer with the
plain forward of transformers; `profile` shows where the Scorer's CPU time goes. Results are written to STEM.json,
scores to STEM.npy.
"""

import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)

from beam_pipelines.jobs.demo.encoder import minilm_folder
from benchmarks.machine import make_parser, timed
from cappy_model.checkpoints import ModelSource, find_checkpoint, load_config
from cappy_model.devices import settle_tokens_per_batch
from cappy_model.host import usable_cores
from cappy_model.score.encoding import encoder_for
from cappy_model.score.loading import load_scorer, settle_scorer
from cappy_model.score.scorer import Scorer

SCORER, PEER, CHECK, PROFILE = "scorer", "cross-encoder", "check", "profile"
MAX_LENGTH = 512
SHORT = 40
"""Characters of a short text."""

COLUMNS = ["instruction", "response"]
LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}
Texts = tuple[list[str], list[str]]
_SEED = 0

# Tolerances of `check`: absolute in float32; in half precision a share of the spread of the reference scores, or a
# multiple of the error of the plain forward in that precision, whichever is larger.
_FLOAT32_TOLERANCE, _HALF_TOLERANCE, _PLAIN_TOLERANCE = 1e-5, 2e-2, 2

# dtype, unpadded, short texts. Unpadded attention is a GPU kernel for half precision; in float32 it is checked on the
# CPU. With random weights the scores of long texts differ by little more than the 8 bits of bfloat16 can express, so
# float16 replaces it there.
_PATHS = [("float32", False, False), ("float16", True, False), ("bfloat16", True, True), ("bfloat16", False, True)]
_CPU_PATHS = [*_PATHS, ("float32", True, False)]

# Parts of the profile and substrings of the names of their operators; the first match counts.
_OPERATORS = {
    "attention": ("attention",),
    "matrix multiplications": ("addmm", "aten::mm", "aten::bmm", "mkldnn", "onednn", "aten::linear"),
    "GELU": ("gelu",),
    "layer norm": ("layer_norm",),
    "embeddings": ("embedding", "index_select"),
}
_REST = "everything else in torch"
_ROUNDS, _LIMIT_SECONDS = 5, 2.0


def real_pairs(path: Path, count: int, *, seed: int) -> pa.Table:
    """Draw `count` of the distinct pairs of a Parquet file: the Scorer scores equal pairs once, its peer does not.

    Raises SystemExit if there are fewer.
    """
    table = pq.read_table(path, columns=COLUMNS).drop_null().group_by(COLUMNS, use_threads=False).aggregate([])
    if table.num_rows < count:
        raise SystemExit(f"{path} has {table.num_rows:,} distinct pairs, fewer than --pairs {count:,}")
    return table.take(sorted(random.Random(seed).sample(range(table.num_rows), count)))


def repeated(pairs: pa.Table, count: int, *, characters: int | None = None) -> pa.Table:
    """Repeat `pairs` to `count` rows, made distinct by numbers; `characters` is the maximum length of a text."""
    texts = [[text[:characters] for text in pairs[name].to_pylist()] for name in COLUMNS]
    numbered = [f"{number}. {texts[1][number % pairs.num_rows]}" for number in range(count)]
    instructions = [texts[0][number % pairs.num_rows] for number in range(count)]
    return pa.table([instructions, numbered], names=COLUMNS)


def spread(pairs: pa.Table, count: int) -> pa.Table:
    """Return at most `count` rows, evenly spaced, so that all lengths occur."""
    return pairs.take(np.unique(np.linspace(0, pairs.num_rows - 1, count).astype(np.int64)))


def texts_of(pairs: pa.Table) -> Texts:
    """Return instructions and responses."""
    return pairs["instruction"].to_pylist(), pairs["response"].to_pylist()


def save_minilm(folder: Path) -> Path:
    """Save MiniLM-L6 with a new one-logit head, in float32. Raises CappyError if its package is not installed."""
    source = str(minilm_folder())
    torch.manual_seed(_SEED)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(model.classifier.weight, std=0.1)  # so that scores differ by tenths
    return _save(model, AutoTokenizer.from_pretrained(source), folder)


def save_random(folder: Path, tokenizer_folder: Path, shape: dict[str, int], *, family: str = "roberta") -> Path:
    """Save a float32 model of a family and shape, with random weights and a real tokenizer.

    `family` is roberta, bert or modernbert. Weights of a tiny model have a larger variance, so that its scores
    differ between pairs as real ones do.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    settings: dict[str, Any] = {
        **shape,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.02 if shape["hidden_size"] > 256 else 0.1,
        "num_labels": 1,
    }
    if family == "modernbert":
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep")}
        config: Any = ModernBertConfig(**settings, **special, max_position_embeddings=512, local_attention=32)
    elif family == "roberta":
        config = RobertaConfig(**settings, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    else:
        config = BertConfig(**settings, max_position_embeddings=512)
    torch.manual_seed(_SEED)
    return _save(AutoModelForSequenceClassification.from_config(config), tokenizer, folder)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_flops(config: Any, lengths: np.ndarray) -> float:
    """Return the floating-point operations of scoring pairs of `lengths` (int[n], in tokens) without padding.

    Per layer and token 2 x (4 h² + 2 h i) for the matrices of hidden size h and intermediate size i, and 4 h n for
    attention within n tokens; per pair 2 h² + 2 h for the head. In the last layer the head reads the first token only;
    the others need keys and values alone, 2 x 2 h². A multiply-add counts as two operations.
    """
    hidden, layers, tokens = config.hidden_size, config.num_hidden_layers, lengths.astype(np.float64)
    matrices = 2 * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    whole = matrices * tokens + 4 * hidden * tokens**2
    last = matrices + 4 * hidden**2 * (tokens - 1) + 4 * hidden * tokens
    return float(((layers - 1) * whole + last + 2 * hidden**2 + 2 * hidden).sum())


def union_length(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of the spans (start, end)."""
    covered, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


@dataclass
class Timing:
    """Seconds of each repeat, of loading, and of the warm-up; tokens without and with padding.

    `batch` is in pairs for the peer, in tokens for the Scorer. `tried` has seconds by batch size. `flops` are those of
    the real tokens. `device_peak` is in bytes. `busy` is the share of time in which the device computes, of the whole
    time and between its first and last kernel.
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

    @property
    def median(self) -> float:
        """Median seconds of the repeats."""
        return statistics.median(self.seconds)

    @property
    def padding(self) -> float:
        """Share of the computed tokens that is padding."""
        return 1 - self.tokens / self.computed


def make_scorer(
    model: Path, device: str, dtype: str, *, max_length: int = MAX_LENGTH, budget: int | None = None, **switch: bool
) -> Scorer:
    """Load a Scorer with one of its forward passes switched on or off; `budget` is in tokens of a batch."""
    settled = settle_scorer(find_checkpoint(ModelSource(str(model))), max_length=max_length)
    tokens = budget or settle_tokens_per_batch(settled.config, device, dtype)
    return Scorer(load_scorer(settled, getattr(torch, dtype)), device=device, tokens_per_batch=tokens, **switch)


def time_scorer(arguments: Any, pairs: pa.Table) -> tuple[Timing, np.ndarray]:
    """Time the Scorer; return the timing and float32[n] scores."""
    timing, texts = Timing(pairs.num_rows), texts_of(pairs)
    if arguments.compiled:
        _compile_layers(arguments.model)
    settings = {"device": arguments.device, "dtype": arguments.dtype, "max_length": MAX_LENGTH}
    timing.loading, scorer = timed(lambda: Scorer.from_pretrained(str(arguments.model), **settings))
    timing.batch = scorer.tokens_per_batch
    timing.first, _ = timed(lambda: scorer.score_pairs(*texts_of(spread(pairs, arguments.warm_up))))
    for _ in range(arguments.repeat):
        seconds, scored = timed(lambda: scorer.score_pairs(*texts))
        timing.seconds.append(seconds)
    timing.tokens = scored.work.tokens
    timing.computed = scored.work.tokens + scored.work.padding
    timing.flops = model_flops(scorer.config, scored.num_tokens)
    if arguments.busy:
        timing.busy = _busy(scorer, texts)
    return timing, scored.scores


def time_peer(arguments: Any, pairs: pa.Table) -> tuple[Timing, np.ndarray]:
    """Time `CrossEncoder.predict` at its defaults except for batch sizes and dtype.

    With several batch sizes, each is timed once and the fastest is used for the repeats.
    """
    from sentence_transformers import CrossEncoder

    timing, texts = Timing(pairs.num_rows), list(zip(*texts_of(pairs), strict=True))
    dtype = None if arguments.dtype == "auto" else {"dtype": getattr(torch, arguments.dtype)}
    settings = {"max_length": MAX_LENGTH, "device": arguments.device, "local_files_only": True, "model_kwargs": dtype}
    timing.loading, model = timed(lambda: CrossEncoder(str(arguments.model), **settings))
    few = list(zip(*texts_of(spread(pairs, arguments.warm_up)), strict=True))
    timing.first, _ = timed(lambda: model.predict(few))
    for size in arguments.batch_sizes or ():
        model.predict(few, batch_size=size)
        timing.tried[size], _ = timed(partial(model.predict, texts, batch_size=size))
    timing.batch = min(timing.tried, key=timing.tried.__getitem__) if timing.tried else 32
    _count_tokens(model, timing)
    for _ in range(arguments.repeat):
        timing.tokens = timing.computed = 0
        seconds, scores = timed(lambda: model.predict(texts, batch_size=timing.batch))
        timing.seconds.append(seconds)
    return timing, np.asarray(scores)


def _count_tokens(model: Any, timing: Timing) -> None:
    """Count the tokens of the peer's batches while they are on the CPU, which takes microseconds per batch."""
    preprocess = model.preprocess

    def counted(*arguments: Any, **options: Any) -> Any:
        features = preprocess(*arguments, **options)
        timing.computed += features["attention_mask"].numel()
        timing.tokens += int(features["attention_mask"].sum())
        return features

    model.preprocess = counted


def _compile_layers(folder: Path) -> None:
    """Compile the layers of a model family, for batches of any size, for the rest of this process.

    The class is patched, as compiled instances are lost when a model is copied to its device.
    """
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(str(folder)))
    layer: Any = type(model.base_model.encoder.layer[0])
    layer.forward = torch.compile(layer.forward, dynamic=True)


def _busy(scorer: Scorer, texts: Texts) -> dict[str, float]:
    """Return the shares of time in which a kernel or copy of the device runs while pairs are scored."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds, _ = timed(lambda: scorer.score_pairs(*texts))
    ranges = [event.time_range for event in profiler.events() if event.device_type.name == "CUDA"]
    if not ranges:
        raise SystemExit("the profiler saw no kernel: is CUPTI installed, and is profiling permitted?")
    microseconds = union_length([(each.start, each.end) for each in ranges])
    between = max(each.end for each in ranges) - min(each.start for each in ranges)
    return {"of the whole": microseconds / 1e6 / seconds, "from first to last kernel": microseconds / between}


def check(arguments: Any, pairs: pa.Table) -> list[dict[str, Any]]:
    """Compare every code path of the Scorer on a device with the plain forward on the CPU, one pair at a time.

    Each entry has the largest difference, its tolerance, and the spread of the reference scores.
    """
    model, device = arguments.model, arguments.device
    texts = {False: pairs, True: repeated(pairs, pairs.num_rows, characters=SHORT)}
    expected = {short: _plain_scores(model, chosen) for short, chosen in texts.items()}
    results = []
    for dtype, unpadded, short in _CPU_PATHS if device == "cpu" else _PATHS:
        scorer = make_scorer(model, device, dtype, unpadded=unpadded)
        scores = scorer.score(*texts_of(texts[short]))
        extent, tolerance = float(np.ptp(expected[short])), _FLOAT32_TOLERANCE
        if dtype != "float32":
            plain = np.abs(_plain_scores(model, texts[short], device, dtype) - expected[short]).max()
            tolerance = max(_HALF_TOLERANCE * extent, _PLAIN_TOLERANCE * float(plain))
        results.append(
            {
                "family": scorer.config.model_type,
                "path": f"{dtype}, {'unpadded' if unpadded else 'padded'}, {'short' if short else 'whole'} texts",
                "pairs": pairs.num_rows,
                "spread": extent,
                "difference": float(np.abs(scores - expected[short]).max()),
                "tolerance": tolerance,
            }
        )
    return results


def _plain_scores(model: Path, pairs: pa.Table, device: str = "cpu", dtype: str = "float32") -> np.ndarray:
    """Return float32[n] scores with eager attention, one pair at a time."""
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    plain = AutoModelForSequenceClassification.from_pretrained(
        str(model), dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    plain.to(device).eval()
    scores = []
    with torch.inference_mode():
        for pair in zip(*texts_of(pairs), strict=True):
            inputs = tokenizer(*pair, truncation="longest_first", max_length=MAX_LENGTH, return_tensors="pt")
            scores.append(plain(**inputs.to(device)).logits[0, 0].item())
    return np.array(scores, dtype=np.float32)


def profile_scorer(arguments: Any, pairs: pa.Table) -> dict[str, Any]:
    """Profile the Scorer on `pairs`, in turns with plain matrix multiplications of the same shapes.

    `shares` are shares of the time in torch's operators, by part. `whole` and `limit` are GFLOP per CPU second, which
    other processes do not change: of the Scorer, and of the multiplications. `occupied` is the share of all cores' time
    that the Scorer uses, `tokenising` the share of that for tokenising.
    """
    texts = texts_of(pairs)
    scorer = Scorer.from_pretrained(str(arguments.model), device="cpu", dtype=arguments.dtype, max_length=MAX_LENGTH)
    flops = model_flops(scorer.config, scorer.score_pairs(*texts).num_tokens)
    elapsed, used, limits = [], [], []
    for _ in range(arguments.repeat):
        seconds, cpu = timed(lambda: _cpu_seconds(lambda: scorer.score_pairs(*texts)))
        elapsed.append(seconds)
        used.append(cpu)
        limits.append(_matmul_limit(scorer.config, scorer.tokens_per_batch, getattr(torch, scorer.dtype)))
    config, tokenizer = load_config(find_checkpoint(ModelSource(str(arguments.model))))
    encoder = encoder_for(tokenizer, config, max_length=MAX_LENGTH)
    every_thread = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[ProfilerActivity.CPU], experimental_config=every_thread) as profiler:
        scorer.score_pairs(*texts)
    return {
        "pairs": pairs.num_rows,
        "dtype": scorer.dtype,
        "tokens_per_batch": scorer.tokens_per_batch,
        "shares": _shares({event.key: event.self_cpu_time_total for event in profiler.key_averages()}),
        "whole": flops / statistics.median(used) / 1e9,
        "limit": statistics.median(limits),
        "occupied": sum(used) / sum(elapsed) / usable_cores(),
        "tokenising": _cpu_seconds(lambda: encoder.encode(*texts)) / statistics.median(used),
    }


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _shares(times: dict[str, float]) -> dict[str, float]:
    """Return the share of each part in the operators' own times."""
    sums = dict.fromkeys([*_OPERATORS, _REST], 0.0)
    for name, value in times.items():
        sums[next((part for part, marks in _OPERATORS.items() if any(mark in name for mark in marks)), _REST)] += value
    return {part: value / sum(sums.values()) for part, value in sums.items()}


def _matmul_limit(config: Any, tokens: int, dtype: torch.dtype) -> float:
    """Return the GFLOP per CPU second of the layers' matrix multiplications alone, one thread per core."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = [(hidden, hidden)] * 4 + [(inner, hidden), (hidden, inner)]
    weights = [torch.randn(shape).to(dtype) for _ in range(config.num_hidden_layers) for shape in shapes]
    flops = sum(2 * tokens * weight.numel() for weight in weights)
    barrier = threading.Barrier(usable_cores())

    def multiply() -> float:
        torch.set_num_threads(1)
        inputs = {size: torch.randn(tokens, size).to(dtype) for size in (hidden, inner)}
        rounds = 0
        with torch.inference_mode():
            barrier.wait()
            started = time.thread_time()
            while rounds < _ROUNDS or time.thread_time() - started < _LIMIT_SECONDS:
                for weight in weights:
                    torch.nn.functional.linear(inputs[weight.shape[1]], weight)
                rounds += 1
        return rounds * flops / (time.thread_time() - started) / 1e9

    with ThreadPoolExecutor(usable_cores()) as pool:
        return statistics.mean(found.result() for found in [pool.submit(multiply) for _ in range(usable_cores())])


def main(argv: Sequence[str] | None = None) -> None:
    """Run one measurement."""
    parser = make_parser(__doc__, repeat=1)
    parser.add_argument("way", choices=(SCORER, PEER, CHECK, PROFILE))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="a Parquet file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--output", required=True, metavar="STEM")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of cross-encoder (default: its own)")
    parser.add_argument("--compiled", action="store_true", help="compile the Scorer's layers")
    parser.add_argument("--warm-up", type=int, default=32, metavar="N", help="pairs (default 32)")
    parser.add_argument("--busy", action="store_true", help="profile the GPU afterwards")
    arguments = parser.parse_args(argv)
    pairs = pq.read_table(arguments.pairs)
    if arguments.way == CHECK:
        result: Any = check(arguments, pairs)
    elif arguments.way == PROFILE:
        result = profile_scorer(arguments, pairs)
    else:
        timing, scores = (time_scorer if arguments.way == SCORER else time_peer)(arguments, pairs)
        if arguments.device.startswith("cuda"):
            timing.device_peak = torch.cuda.max_memory_allocated()
        np.save(f"{arguments.output}.npy", scores)
        result = asdict(timing)
    Path(f"{arguments.output}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
