"""What the scoring benchmark scores, and with what: real pairs, and one-logit models of known shape."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)

from beam_pipelines.jobs.demo.encoder import minilm_folder

MAX_LENGTH = 512
SHORT = 40
"""Characters of a short text."""

COLUMNS = ["instruction", "response"]
LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}

_SEED = 0


def real_pairs(path: Path, count: int, *, seed: int) -> pa.Table:
    """`count` pairs drawn from the distinct rows of a Parquet file; equal ones would be scored once by us alone.

    Raises SystemExit where there are fewer.
    """
    table = pq.read_table(path, columns=COLUMNS).drop_null().group_by(COLUMNS, use_threads=False).aggregate([])
    if table.num_rows < count:
        raise SystemExit(f"{path} has {table.num_rows:,} distinct pairs, fewer than --pairs {count:,}")
    return table.take(sorted(random.Random(seed).sample(range(table.num_rows), count)))


def repeated(pairs: pa.Table, count: int, *, characters: int | None = None) -> pa.Table:
    """`count` distinct pairs: those of `pairs` again and again, numbered, perhaps cut to so many characters a text."""
    texts = [[text[:characters] for text in pairs[name].to_pylist()] for name in COLUMNS]
    numbered = [f"{number}. {texts[1][number % pairs.num_rows]}" for number in range(count)]
    instructions = [texts[0][number % pairs.num_rows] for number in range(count)]
    return pa.table([instructions, numbered], names=COLUMNS)


def spread(pairs: pa.Table, count: int) -> pa.Table:
    """At most `count` pairs from everywhere in the table, so of all lengths."""
    return pairs.take(np.unique(np.linspace(0, pairs.num_rows - 1, count).astype(np.int64)))


def texts_of(pairs: pa.Table) -> tuple[list[str], list[str]]:
    """Instructions and responses."""
    return pairs["instruction"].to_pylist(), pairs["response"].to_pylist()


def save_minilm(folder: Path) -> Path:
    """MiniLM-L6 with a new head of one logit, in float32. Raises CappyError where its package is not installed."""
    source = str(minilm_folder())
    torch.manual_seed(_SEED)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(model.classifier.weight, std=0.1)  # so that scores differ by tenths
    return _save(model, AutoTokenizer.from_pretrained(source), folder)


def save_random(folder: Path, tokenizer_folder: Path, shape: dict[str, int], *, family: str = "roberta") -> Path:
    """A model of a `family` (roberta or bert) and shape with random weights, in float32, with a real tokenizer.

    A tiny model is drawn from a wider distribution, so that its scores differ from pair to pair as real ones do.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    settings: dict[str, Any] = {
        **shape,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.02 if shape["hidden_size"] > 256 else 0.1,
        "num_labels": 1,
    }
    if family == "roberta":
        config: PreTrainedConfig = RobertaConfig(
            **settings, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        )
    else:
        config = BertConfig(**settings, max_position_embeddings=512)
    torch.manual_seed(_SEED)
    return _save(AutoModelForSequenceClassification.from_config(config), tokenizer, folder)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_flops(config: Any, lengths: np.ndarray) -> float:
    """Floating-point operations that a score of pairs of `lengths` (int[n], in tokens) needs, without padding.

    Per layer and token 2 x (4 h² + 2 h i) for the matrices of a hidden size h and an intermediate size i, and
    4 h n for attention within n tokens; per pair 2 h² + 2 h for the head. In the last layer all tokens but the first,
    which the head reads, need no more than keys and values, 2 x 2 h². A multiplication with its addition is two.
    """
    hidden, layers, tokens = config.hidden_size, config.num_hidden_layers, lengths.astype(np.float64)
    matrices = 2 * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    whole = matrices * tokens + 4 * hidden * tokens**2
    last = matrices + 4 * hidden**2 * (tokens - 1) + 4 * hidden * tokens
    return float(((layers - 1) * whole + last + 2 * hidden**2 + 2 * hidden).sum())


def union_length(spans: Sequence[tuple[float, float]]) -> float:
    """How much of a line the spans (start, end) cover together."""
    covered, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
