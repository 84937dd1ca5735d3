"""The Scorer's paths on a device against the plain forward of transformers on the CPU; a process of its own.

    python -m benchmarks.scoring_check --model DIR --pairs FILE --device cuda --output STEM

The reference scores one pair at a time, in float32, with eager attention. In float32 the largest difference may be
1e-5, in half precision 2e-2 of the spread of the reference's scores, or twice that of the same plain forward in
that precision, where the format does no better.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.scoring_inputs import MAX_LENGTH, SHORT, repeated, texts_of
from benchmarks.scoring_runs import add_run_arguments
from cappy_model.checkpoints import Source, find_checkpoint, load
from cappy_model.devices import settle_tokens_per_batch
from cappy_model.score.scorer import Scorer

FLOAT32_TOLERANCE = 1e-5
HALF_TOLERANCE = 2e-2
PLAIN_TOLERANCE = 2

# dtype, without padding, on short texts. Attention without padding is a kernel of GPUs for half precision; in float32
# it is looked at on the CPU. With random weights the scores of long texts differ by little more than the eight bits of
# bfloat16 can tell, so float16 stands for it there.
PATHS = [
    ("float32", False, False),
    ("float16", True, False),
    ("bfloat16", True, True),
    ("bfloat16", False, True),
]
CPU_PATHS = [*PATHS, ("float32", True, False)]


@dataclass
class Check:
    """One path of one family: the largest difference of scores, what it may be, and the reference's spread."""

    family: str
    path: str
    pairs: int
    spread: float
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.difference <= self.tolerance


def plain_scores(model: Path, pairs: pa.Table, device: str = "cpu", dtype: str = "float32") -> np.ndarray:
    """float32[n]: one pair at a time."""
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


def check(model: Path, pairs: pa.Table, device: str) -> list[Check]:
    """Every path of a model that `device` has."""
    texts = {False: pairs, True: repeated(pairs, pairs.num_rows, characters=SHORT)}
    expected = {short: plain_scores(model, chosen) for short, chosen in texts.items()}
    found = []
    for dtype, unpadded, short in CPU_PATHS if device == "cpu" else PATHS:
        scorer = _scorer(model, device, dtype, unpadded=unpadded)
        difference = float(np.abs(scorer.score(*texts_of(texts[short])) - expected[short]).max())
        spread = float(np.ptp(expected[short]))
        words = f"{dtype}, {'without padding' if unpadded else 'padded'}, {'short' if short else 'whole'} texts"
        tolerance = FLOAT32_TOLERANCE
        if dtype != "float32":
            plain = float(np.abs(plain_scores(model, texts[short], device, dtype) - expected[short]).max())
            tolerance = max(HALF_TOLERANCE * spread, PLAIN_TOLERANCE * plain)
        found.append(Check(scorer.config.model_type, words, pairs.num_rows, spread, difference, tolerance))
    return found


def _scorer(model: Path, device: str, dtype: str, *, unpadded: bool) -> Scorer:
    loaded, tokenizer = load(find_checkpoint(Source(str(model))), getattr(torch, dtype))
    tokens = settle_tokens_per_batch(loaded.config, device, dtype)
    return Scorer(loaded, tokenizer, device=device, tokens_per_batch=tokens, max_length=MAX_LENGTH, unpadded=unpadded)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    arguments = parser.parse_args(argv)
    found = check(arguments.model, pq.read_table(arguments.pairs), arguments.device)
    Path(f"{arguments.output}.json").write_text(json.dumps([asdict(one) for one in found]))


if __name__ == "__main__":
    main()
