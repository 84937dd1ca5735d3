"""The check before a run: the path that scores pairs against the plain forward pass of the same model.

The plain forward pass is transformers' own, one pair at a time, and shares nothing with the scorer but the token ids.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from cappy_model.devices import cuda_devices
from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.loading import LoadedScorer
from cappy_model.score.templates import NONE
from cappy_model.score.windows import brief
from schemas.errors import CappyError

_SHOWN = 80  # characters of a text in a message


class CheckFailed(CappyError):
    """A scorer whose scores are not those of the plain forward pass, or that has none to compare."""


class BrokenModel(CappyError):
    """A model with scores that are NaN or infinite."""


class Tolerance(NamedTuple):
    """The allowed difference of two scores: `absolute` + `relative` x the largest magnitude (see `Plain`)."""

    absolute: float
    relative: float


TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-4),
    "float16": Tolerance(5e-3, 1e-2),
    "bfloat16": Tolerance(2e-2, 5e-2),
}
"""By number format.

Over tiny models of every family, rounding on a CPU takes half of them at most; a missing mask exceeds them several
times in every format.
"""


class Plain(NamedTuple):
    """Scores of n pairs by the plain forward pass.

    `scores` float32[n], NaN for a pair without one; `magnitude`: the largest of the scores, or of the logits whose
    difference is the score.
    """

    scores: np.ndarray
    magnitude: float


class PairScorer(Protocol):
    """The part of a scorer that the check uses."""

    def score_pairs(self, instructions: Sequence[str], responses: Sequence[str]) -> Any:
        """Score pairs; see `Scorer.score_pairs`."""


S = TypeVar("S", bound=PairScorer)


class Comparison(NamedTuple):
    """Two scores of each of n pairs.

    `largest` is the largest difference of `compared` pairs, those that have both scores, and `row` its pair (None if
    `compared` is 0); `tolerance` is what the number format explains.
    """

    largest: float
    tolerance: float
    row: int | None
    compared: int

    @property
    def agrees(self) -> bool:
        """Whether the largest difference is within the tolerance."""
        return self.largest <= self.tolerance


def compare(fast: np.ndarray, plain: Plain, dtype: str) -> Comparison:
    """Compare the scores of n pairs; NaN in `fast` float[n] or `plain` marks a pair without a score, left out."""
    both = np.isfinite(fast) & np.isfinite(plain.scores)
    absolute, relative = TOLERANCES[dtype]
    if not both.any():
        return Comparison(0.0, absolute, None, 0)
    difference = np.where(both, np.abs(fast.astype(np.float64) - plain.scores), -1.0)
    row = int(difference.argmax())
    tolerance = absolute + relative * plain.magnitude
    return Comparison(float(difference[row]), tolerance, row, int(both.sum()))


def plain_scores(loaded: LoadedScorer, pairs: Sequence[tuple[str, str]], device: str) -> Plain:
    """Score n pairs by the plain forward pass, one at a time.

    Call it before a `Scorer` changes the model. The model computes on `device` (the first GPU of `cuda`) and is on the
    CPU afterwards. A pair without tokens has no score. Raises CheckFailed if the model fails for every pair, and
    BrokenModel if it gives no pair a finite score.
    """
    place = torch.device("cpu") if device == "cpu" else cuda_devices(device)[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the scorer's lanes: on cores that others use, threads wait for one another
    given: dict[int, float] = {}
    failures: list[Exception] = []
    magnitude = 0.0
    loaded.model.to(place)
    try:
        for row, pair in enumerate(pairs):
            try:
                logits = _plain_logits(loaded, pair, place)
            except Exception as error:  # a model can raise anything; in the run it is an error of the row
                failures.append(error)
                continue
            if logits is not None:
                given[row] = float(loaded.head.reduce(logits)[0])
                subtracted = float(logits.float().abs().max()) if loaded.head.tokens else 0.0
                magnitude = max(magnitude, abs(given[row]), subtracted)
    finally:
        torch.set_num_threads(threads)
        loaded.model.to("cpu")
    scores = np.full(len(pairs), np.nan, dtype=np.float32)
    scores[list(given)] = [score if np.isfinite(score) else np.nan for score in given.values()]
    if np.isfinite(scores).any() or not (given or failures):
        return Plain(scores, magnitude)
    if given:
        row = next(iter(given))
        raise BrokenModel(broken(f"the model gives {given[row]}", pairs[row]))
    raise CheckFailed(
        f"{loaded.settled.checkpoint.source.name}: the forward pass of {type(loaded.model).__name__} in "
        f"{dtype_of(loaded)} fails for all of {len(failures)} pairs: {brief(failures[0])}; try --dtype float32"
    ) from failures[0]


def broken(gives: str, pair: tuple[str, str]) -> str:
    """Return the message about a score that is not finite; `gives` says which."""
    return (
        f"{gives} for the instruction {_shown(pair[0])} and the response {_shown(pair[1])}: its weights are broken, or "
        "its numbers overflow in this dtype; try --dtype float32"
    )


@torch.inference_mode()
def _plain_logits(loaded: LoadedScorer, pair: tuple[str, str], place: torch.device) -> torch.Tensor | None:
    """Return the logits [1, labels] that the head reads; None for a pair without tokens."""
    inputs = _inputs(loaded, pair)
    if not inputs["input_ids"].numel():
        return None
    logits: torch.Tensor = loaded.model(**{name: values.to(place) for name, values in inputs.items()}).logits
    return logits[:, -1, list(loaded.head.tokens)] if loaded.head.tokens else logits


def _inputs(loaded: LoadedScorer, pair: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Return the inputs of one pair: by the tokenizer itself, or by the encoder where it renders or cuts the texts."""
    encoded: EncodedPairs = loaded.encoder.encode([pair[0]], [pair[1]])
    template = loaded.settled.template
    if template.kind == NONE and not encoded.truncated[0]:
        return dict(loaded.tokenizer([template.prompt + pair[0]], [pair[1]], return_tensors="pt"))
    tokens = torch.from_numpy(encoded.tokens.astype(np.int64))[None]
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if encoded.types.any():
        inputs["token_type_ids"] = torch.from_numpy(encoded.types.astype(np.int64))[None]
    return inputs


def checked_scorer(
    loaded: LoadedScorer, make_scorer: Callable[[LoadedScorer], S], pairs: Sequence[tuple[str, str]], device: str
) -> S:
    """Make a scorer of a loaded model, and return it if it gives `pairs` the scores of the plain forward pass.

    Args:
        loaded: the model, which `make_scorer` may change.
        make_scorer: makes the scorer.
        pairs: (instruction, response). Without any nothing is checked.
        device: cpu, cuda or cuda:N, where the plain forward pass computes, too.

    Raises:
        CheckFailed: if a difference exceeds the tolerance, if the scorer refuses a pair that the plain forward pass
            scores, or if that scores none.
    """
    if not pairs:
        return make_scorer(loaded)
    plain = plain_scores(loaded, pairs, device)
    scorer = make_scorer(loaded)
    scored = scorer.score_pairs([a for a, _ in pairs], [b for _, b in pairs])
    found = compare(scored.scores, plain, dtype_of(loaded))
    refused = refusals(scored, plain)
    if found.agrees and not refused:
        return scorer
    row = min(refused, default=found.row) or 0
    gives = f"refuses ({refused[row]})" if row in refused else f"gives {scored.scores[row]:.6g} to"
    name, kind = loaded.settled.checkpoint.source.name, type(loaded.model).__name__
    raise CheckFailed(
        f"{name}: the scorer {gives} a pair to which the plain forward pass of {kind} gives {plain.scores[row]:.6g}, "
        f"in {dtype_of(loaded)} on {device}; they may differ by {found.tolerance:.2g}. "
        f"Instruction {_shown(pairs[row][0])}, response {_shown(pairs[row][1])}. "
        f"`cappy doctor --model {name}` says more; --check-pairs 0 runs without "
        "this check"
    )


def refusals(scored: Any, plain: Plain) -> dict[int, str]:
    """Return why a scorer refuses pairs that the plain forward pass scores, other than for a lack of memory."""
    return {
        row: reason
        for row, reason in scored.errors.items()
        if np.isfinite(plain.scores[row]) and not reason.startswith("out of memory")
    }


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def dtype_of(loaded: LoadedScorer) -> str:
    """Return the number format that a model was loaded in, such as bfloat16; some of its weights may have another."""
    return str(loaded.model.config.dtype).removeprefix("torch.")
