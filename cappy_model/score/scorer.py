"""The scorer: one number for each (instruction, response) pair, an estimate of how correct the response is.

Pairs are sorted by length and scored in batches under a token budget, so that little is padding; on a GPU, models of
the RoBERTa and BERT families compute no padding at all. Tokenization runs ahead of the device.
"""

import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cappy_model.checkpoints import ModelSource, find_checkpoint, load, settle_padding
from cappy_model.devices import settle_device, settle_dtype, settle_tokens_per_batch
from cappy_model.lanes import Lane, Lanes
from cappy_model.score.batching import token_batches
from cappy_model.score.encoding import EncodedPairs, encoder_for
from cappy_model.score.forward import keep_head_precise, padded_logits
from cappy_model.score.unpadded import unpadded_layout
from schemas.errors import CappyError

WINDOW_PAIRS = 2_048
"""Pairs that are tokenized together and then batched by length; the next window is tokenized meanwhile."""


class ScoringError(CappyError):
    """A pair that cannot be scored."""


class BrokenModel(CappyError):
    """A model with non-finite scores."""


@dataclass
class ScoringWork:
    """The work of scoring: distinct pairs, their tokens, tokens of padding, and out-of-memory errors."""

    distinct: int = 0
    tokens: int = 0
    padding: int = 0
    out_of_memory: int = 0


class Scored(NamedTuple):
    """The scores of n pairs, in input order.

    `scores` float32[n], NaN for a pair that cannot be scored; `errors`: the reason, by position of the pair;
    `num_tokens` int32[n] after truncation; `truncated` bool[n]: whether either text was cut.
    """

    scores: np.ndarray
    num_tokens: np.ndarray
    truncated: np.ndarray
    errors: Mapping[int, str]
    work: ScoringWork


class Ranked(NamedTuple):
    """A response with its position in the input and its score."""

    position: int
    response: str
    score: float


class _Batch(NamedTuple):
    """Encoded pairs and their positions, int64[m]."""

    rows: np.ndarray
    pairs: EncodedPairs


class Scorer:
    """A loaded model that scores pairs; thread-safe. Load it with `from_pretrained`.

    `dtype`, `device` and `tokens_per_batch` are the resolved settings, `max_length` is in tokens of a pair, and
    `config` is the model's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        device: str,
        tokens_per_batch: int,
        max_length: int | None = None,
        unpadded: bool | None = None,
    ) -> None:
        self.config = model.config
        self.device, self.dtype = device, str(model.dtype).removeprefix("torch.")
        self.tokens_per_batch = tokens_per_batch
        settle_padding(self.config, tokenizer)
        self._encoder = encoder_for(tokenizer, self.config, max_length=max_length)
        self.max_length, self.truncation = self._encoder.max_length, self._encoder.policy
        # Unpadded attention is a GPU kernel for half precision.
        flash = device != "cpu" and self.dtype != "float32"
        layout, self._logits = unpadded_layout(model), padded_logits
        self._unpadded = layout is not None and (flash if unpadded is None else unpadded)
        if layout is not None:
            layout.first_tokens(model)
            if self._unpadded:
                layout.prepare(model)
                self._logits = layout.logits
        keep_head_precise(model)
        self._lanes = Lanes(model, device)
        self._ahead = ThreadPoolExecutor(self._lanes.count, "tokenize")

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        max_length: int | None = None,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
        storage: Mapping[str, Any] | None = None,
    ) -> "Scorer":
        """Load a scorer from a folder, an fsspec URL, or a hub id (`name/model[@revision]`).

        Args:
            id_or_path: the location.
            device: auto, cpu, cuda (all GPUs) or cuda:N.
            dtype: auto, float32, bfloat16 or float16.
            tokens_per_batch: token budget of a batch, padding included; None: chosen for the device.
            max_length: maximum tokens of a pair; None: the model's, or 512.
            allow_pickle: whether pickled weights may be loaded, which can execute any code.
            trust_remote_code: whether the model's own code may run.
            storage: fsspec options for a URL.

        Raises:
            ModelError: if the model cannot be loaded or is not a scorer.
            UsageError: if the device or the dtype is unknown or not available.
        """
        source = ModelSource(id_or_path, allow_pickle, trust_remote_code, storage or {})
        settled = settle_device(device)
        kind = settle_dtype(dtype, settled)
        model, tokenizer = load(find_checkpoint(source), getattr(torch, kind))
        tokens = tokens_per_batch or settle_tokens_per_batch(model.config, settled, kind)
        return cls(model, tokenizer, device=settled, tokens_per_batch=tokens, max_length=max_length)

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Return the raw output of the head for each pair (instructions[i], responses[i]): float32[n], not clamped.

        Raises ScoringError for a pair that does not fit into memory, and BrokenModel for a score of NaN or infinity.
        """
        scored = self.score_pairs(instructions, responses)
        for index, reason in scored.errors.items():
            raise ScoringError(f"pair {index} cannot be scored: {reason}")
        return scored.scores

    def rank(self, instruction: str, responses: Sequence[str]) -> list[Ranked]:
        """Sort the responses to one instruction, best first; equal scores keep the input order. Raises as `score`."""
        scores = self.score([instruction] * len(responses), responses)
        order = np.argsort(-scores, kind="stable").tolist()
        return [Ranked(index, responses[index], float(scores[index])) for index in order]

    def score_pairs(self, instructions: Sequence[str], responses: Sequence[str]) -> Scored:
        """Score pairs, with token counts; a pair that does not fit into memory is an entry of `errors`.

        Equal pairs are scored once. Raises BrokenModel for a score of NaN or infinity.
        """
        if len(instructions) != len(responses):
            raise ValueError(f"{len(instructions)} instructions but {len(responses)} responses: give equally many")
        places: dict[tuple[str, str], int] = {}
        inverse = [places.setdefault(pair, len(places)) for pair in zip(instructions, responses, strict=True)]
        distinct = self._score_distinct(list(places))
        back = np.array(inverse, dtype=np.int64)
        errors = {row: distinct.errors[place] for row, place in enumerate(inverse) if place in distinct.errors}
        return Scored(distinct.scores[back], distinct.num_tokens[back], distinct.truncated[back], errors, distinct.work)

    def _score_distinct(self, pairs: list[tuple[str, str]]) -> Scored:
        scores = np.full(len(pairs), np.nan, dtype=np.float32)
        num_tokens, truncated = np.zeros(len(pairs), dtype=np.int32), np.zeros(len(pairs), dtype=bool)
        errors: dict[int, str] = {}
        work = ScoringWork(distinct=len(pairs))
        for outcome in self._lanes.run(self._batches(pairs), self._compute, self._halve):
            work.out_of_memory += outcome.out_of_memory
            for batch, logits in outcome.done:
                scores[batch.rows] = logits
                work.padding += self._padding(batch.pairs)
                if not np.isfinite(logits).all():
                    place = int(np.flatnonzero(~np.isfinite(logits))[0])
                    raise BrokenModel(_broken(float(logits[place]), pairs[batch.rows[place]]))
            for (row,), unfit in outcome.unfit:
                errors[int(row)] = f"out of memory: {unfit.lengths[0]} tokens do not fit on {self.device}"
            for batch in [*(batch for batch, _ in outcome.done), *outcome.unfit]:
                num_tokens[batch.rows], truncated[batch.rows] = batch.pairs.lengths, batch.pairs.truncated
                work.tokens += len(batch.pairs.tokens)
        return Scored(scores, num_tokens, truncated, errors, work)

    def _compute(self, lane: Lane, batch: _Batch) -> np.ndarray:
        with lane.lock:
            logits = self._logits(lane.model, batch.pairs, lane.device)[:, 0]
        return logits.cpu().numpy()

    def _halve(self, batch: _Batch) -> tuple[_Batch, ...]:
        """Split a batch that does not fit, and lower the batch budget; () for a single pair."""
        count = len(batch.rows)
        if count == 1:
            return ()
        size = self._padding(batch.pairs) + len(batch.pairs.tokens)
        self.tokens_per_batch = min(self.tokens_per_batch, size // 2)
        halves = np.array_split(np.arange(count), 2)
        return tuple(_Batch(batch.rows[half], batch.pairs.take(half)) for half in halves)

    def _padding(self, pairs: EncodedPairs) -> int:
        return 0 if self._unpadded else int(pairs.lengths.max()) * len(pairs.lengths) - len(pairs.tokens)

    def _batches(self, pairs: list[tuple[str, str]]) -> Iterator[_Batch]:
        for rows, encoded in self._windows(pairs):
            for batch in token_batches(encoded.lengths, self.tokens_per_batch, padded=not self._unpadded):
                yield _Batch(rows[batch], encoded.take(batch))

    def _windows(self, pairs: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, EncodedPairs]]:
        """Yield encoded windows of pairs of similar length (in characters); the next one is encoded ahead."""
        order = np.argsort([len(a) + len(b) for a, b in pairs], kind="stable")[::-1]
        windows = [order[start : start + WINDOW_PAIRS] for start in range(0, len(order), WINDOW_PAIRS)]
        ahead: queue.SimpleQueue[tuple[np.ndarray, Future[EncodedPairs]]] = queue.SimpleQueue()
        for number in range(len(windows) + 1):
            if number < len(windows):
                texts = zip(*(pairs[row] for row in windows[number].tolist()), strict=True)
                ahead.put((windows[number], self._ahead.submit(self._encoder.encode, *texts)))
            if number:
                rows, future = ahead.get()
                yield rows, future.result()


def _broken(score: float, pair: tuple[str, str]) -> str:
    return (
        f"the model gives {score} for the instruction {pair[0][:80]!r} and the response {pair[1][:80]!r}: its weights "
        "are broken, or its numbers overflow in this dtype; try --dtype float32"
    )
