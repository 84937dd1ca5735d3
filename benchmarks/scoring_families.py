"""Families of scorers with a forward pass of their own: the same weights and pairs with and without it.

    python -m benchmarks.scoring_families decoder --model DIR --pairs FILE --output STEM

`decoder` scores 17 candidates of each instruction, with the instruction read once for all of them and once for each;
`modernbert` scores pairs without and with padding. All ways have the same token budget and take turns in one process,
after a warm-up; loading is not counted. Results are written to STEM.json. `benchmarks.scoring` makes the models and
starts this as a process.
"""

import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, ModernBertConfig, Qwen3Config

from benchmarks.machine import make_parser, markdown_table, ratio, timed
from benchmarks.scoring_inputs import Texts, make_scorer, texts_of
from cappy_model.devices import settle_tokens_per_batch
from cappy_model.score.batching import token_batches

DECODER, MODERNBERT = "decoder", "modernbert"
CANDIDATES = 17
PROMPT_WORDS = 4
"""Words of an instruction for each word of its responses."""

MAX_LENGTH = 1_024
_RESPONSE_WORDS = (20, 70)
_WORD_CHARACTERS = 16  # longer ones are addresses and code, of very many tokens
_SEED = 0
_CHAT = "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
_TOLERANCE = 1e-5  # of scores in float32

_ATTENTION = {"num_attention_heads": 4, "intermediate_size": 768, "hidden_size": 256}
SHAPES: dict[str, dict[str, dict[str, int]]] = {
    DECODER: {
        "real": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
        | {"head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_936},  # Qwen3-0.6B
        "small": {**_ATTENTION, "num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 64},
    },
    MODERNBERT: {
        "real": {"hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152}
        | {"local_attention": 128, "vocab_size": 50_368},  # ModernBERT-base
        "small": {**_ATTENTION, "num_hidden_layers": 4, "local_attention": 32},
    },
}
"""By family: the shape of a released model, and one for a CPU."""


def save_family(family: str, folder: Path, tokenizer_folder: Path, *, real: bool) -> Path:
    """Save a one-logit model of a family in float32, with random weights and a real tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder), model_max_length=MAX_LENGTH)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    settings = {"vocab_size": len(tokenizer), **SHAPES[family]["real" if real else "small"], **special, "num_labels": 1}
    settings |= {"max_position_embeddings": MAX_LENGTH, "initializer_range": 0.02 if real else 0.1}
    if family == DECODER:
        tokenizer.chat_template = _CHAT
    torch.manual_seed(_SEED)
    config: Any = (Qwen3Config if family == DECODER else ModernBertConfig)(**settings)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def candidates(pairs: pa.Table, instructions: int) -> pa.Table:
    """Return instructions with `CANDIDATES` responses each, of consecutive words of the texts of real pairs."""
    words = [word for column in texts_of(pairs) for text in column for word in text.split()]
    words, rng = [word for word in words if len(word) <= _WORD_CHARACTERS], random.Random(_SEED)

    def draw(count: int) -> str:
        start = rng.randrange(len(words) - count)
        return " ".join(words[start : start + count])

    sizes = [rng.randrange(*_RESPONSE_WORDS) for _ in range(instructions)]
    rows = [(draw(PROMPT_WORDS * size), [draw(size) for _ in range(CANDIDATES)]) for size in sizes]
    return pa.table(
        {
            "instruction": [instruction for instruction, _ in rows for _ in range(CANDIDATES)],
            "response": [response for _, responses in rows for response in responses],
        }
    )


@dataclass
class Way:
    """A way of scoring: `score` returns the scores float32[n] and the tokens of the pairs (0 if it does not tell).

    `comparable` tells whether it reads the same tokens as the others. Once measured, `seconds` are those of each
    repeat, `scores` and `tokens` of the last.
    """

    title: str
    score: Callable[[Texts], tuple[np.ndarray, int]]
    comparable: bool = True
    seconds: list[float] = field(default_factory=list)
    scores: np.ndarray = field(default_factory=lambda: np.empty(0))
    tokens: int = 0

    @property
    def median(self) -> float:
        """Median seconds of the repeats."""
        return statistics.median(self.seconds)


def scorer_way(title: str, arguments: Any, **switch: bool) -> Way:
    """Return the Scorer with a forward pass of the family switched on or off."""
    settings = {"max_length": MAX_LENGTH, "budget": arguments.budget}
    scorer = make_scorer(arguments.model, arguments.device, arguments.dtype, **settings, **switch)

    def score(texts: Texts) -> tuple[np.ndarray, int]:
        scored = scorer.score_pairs(*texts)
        return scored.scores, int(scored.num_tokens.sum())

    return Way(title, score)


def plain_way(title: str, arguments: Any) -> Way:
    """Return transformers alone: the chat template, then padded batches of pairs sorted by length."""
    tokenizer = AutoTokenizer.from_pretrained(str(arguments.model))
    kind = getattr(torch, arguments.dtype)
    model: Any = AutoModelForSequenceClassification.from_pretrained(str(arguments.model), dtype=kind)
    model.to(arguments.device).eval()

    def score(texts: Texts) -> tuple[np.ndarray, int]:
        turns = zip(*texts, strict=True)
        chats = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in turns]
        rendered = tokenizer.apply_chat_template(chats, tokenize=False)
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        lengths, scores = np.array([len(one) for one in ids]), np.empty(len(ids), dtype=np.float32)
        for rows in token_batches(lengths, arguments.budget, padded=True):
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt").to(arguments.device)
            with torch.inference_mode():
                scores[rows] = model(**batch).logits[:, 0].float().cpu().numpy()
        return scores, int(lengths.sum())

    return Way(title, score)


def cross_encoder_way(title: str, arguments: Any, *, comparable: bool) -> Way:
    """Return CrossEncoder in the same dtype, with batches of its default size."""
    from sentence_transformers import CrossEncoder

    kind = {"dtype": getattr(torch, arguments.dtype)}
    settings = {"max_length": MAX_LENGTH, "device": arguments.device, "local_files_only": True, "model_kwargs": kind}
    model = CrossEncoder(str(arguments.model), activation_fn=torch.nn.Identity(), **settings)
    score = lambda texts: (np.asarray(model.predict(list(zip(*texts, strict=True)))), 0)  # noqa: E731
    return Way(title, score, comparable)


def ways_of(arguments: Any) -> list[Way]:
    """Return the ways of a family: with its own forward pass, without it, and the peers."""
    peer = bool(find_spec("sentence_transformers"))
    if arguments.family == DECODER:
        return [
            scorer_way("Scorer, instructions read once", arguments, share_prefixes=True),
            scorer_way("Scorer, instructions read for each candidate", arguments, share_prefixes=False),
            plain_way("transformers, padded batches by length", arguments),
            *([cross_encoder_way("CrossEncoder.predict, no template", arguments, comparable=False)] if peer else []),
        ]
    return [
        scorer_way("Scorer, without padding", arguments, unpadded=True),
        scorer_way("Scorer, padded", arguments, unpadded=False),
        *([cross_encoder_way("CrossEncoder.predict", arguments, comparable=True)] if peer else []),
    ]


def measure_family(arguments: Any, texts: Texts) -> dict[str, Any]:
    """Measure the ways of a family in turns. Raises SystemExit if their scores differ in float32."""
    ways = ways_of(arguments)
    for turn in range(arguments.repeat + 1):
        for way in ways:
            seconds, (way.scores, way.tokens) = timed(partial(way.score, texts))
            way.seconds += [seconds] if turn else []  # the first call is the warm-up
    base = ways[1]
    found: dict[str, Any] = {"dtype": arguments.dtype, "pairs": len(texts[0]), "tokens": base.tokens}
    found |= {"budget": arguments.budget, "spread": float(np.ptp(base.scores)), "ways": {}}
    for way in ways:
        found["ways"][way.title] = {"seconds": way.seconds, "median": way.median, "difference": None}
        if way.comparable:
            found["ways"][way.title]["difference"] = difference = float(np.abs(way.scores - base.scores).max())
            if arguments.dtype == "float32" and not difference <= _TOLERANCE:
                raise SystemExit(f"{way.title} and {base.title} differ by {difference}, more than {_TOLERANCE}")
    return found


def family_table(found: Mapping[str, Any]) -> str:
    """Return the rates of `measure_family`, as ratios to the second way, with the differences of its scores."""
    base = list(found["ways"].values())[1]["median"]
    rows = [
        {
            "": title,
            "pairs/s": f"{found['pairs'] / way['median']:,.1f}",
            "tokens of the pairs/s": f"{found['tokens'] / way['median']:,.0f}",
            "ratio": ratio(base, way["median"]),
            "largest difference": "" if way["difference"] is None else f"{way['difference']:.1e}",
        }
        for title, way in found["ways"].items()
    ]
    return (
        f"{found['pairs']:,} pairs of {found['tokens'] / found['pairs']:.0f} tokens, {found['dtype']}, batches of "
        f"{found['budget']:,} tokens; the scores spread by {found['spread']:.1e}.\n\n{markdown_table(rows)}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one family."""
    parser = make_parser(__doc__, repeat=1)
    parser.add_argument("family", choices=SHAPES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="a Parquet file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", required=True, metavar="STEM")
    arguments = parser.parse_args(argv)
    config = AutoConfig.from_pretrained(str(arguments.model))
    arguments.budget = settle_tokens_per_batch(config, arguments.device, arguments.dtype)
    found = measure_family(arguments, texts_of(pq.read_table(arguments.pairs)))
    Path(f"{arguments.output}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
