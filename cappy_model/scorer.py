"""The scorer: (instruction, response) pairs in, one number each for how correct the response is.

Pairs are scored in batches under a budget of tokens, sorted by length, so that almost nothing is padding; a GPU of the
RoBERTa and BERT families computes no padding at all. Tokenising runs ahead of the device.
"""

import copy
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cappy_model.batching import token_batches
from cappy_model.checkpoints import ModelError, Source, find_checkpoint, load
from cappy_model.devices import cores, cuda_devices, settle_device, settle_dtype, settle_tokens_per_batch
from cappy_model.encoding import EncodedPairs, encoder_for
from cappy_model.forward import UNPADDED_FAMILIES, padded_logits, prepare_unpadded, unpadded_logits
from schemas.errors import CappyError

WINDOW_PAIRS = 2_048
"""Pairs that are tokenised together and then sorted into batches; the next window is tokenised meanwhile."""

_LANES_PER_GPU = 2  # a batch is launched while the scores of the other one are awaited
_BATCHES_PER_LANE = 2  # one computed, one at hand
_NO_MEMORY_ON_CPU = "can't allocate memory"


class ScoringError(CappyError):
    """A pair that cannot be scored."""


class BrokenModel(CappyError):
    """A model that gives numbers which are none."""


@dataclass
class Work:
    """What scoring took: distinct pairs, their tokens, tokens of padding beside them, and how often memory ran out."""

    distinct: int = 0
    tokens: int = 0
    padding: int = 0
    out_of_memory: int = 0


class Scored(NamedTuple):
    """What came of n pairs, in input order.

    `scores` float32[n], NaN where `errors` (by position) says why there is none; `num_tokens` int32[n] as the model
    read them; `truncated` bool[n]: whether either text was cut.
    """

    scores: np.ndarray
    num_tokens: np.ndarray
    truncated: np.ndarray
    errors: Mapping[int, str]
    work: Work


class Ranked(NamedTuple):
    """A response with its place in the input and its score."""

    position: int
    response: str
    score: float


class _Lane(NamedTuple):
    """A place where batches are computed: a model on a device, and the lock of that device."""

    model: PreTrainedModel
    device: torch.device
    lock: AbstractContextManager[Any]


class Scorer:
    """A loaded model with everything it needs to score; safe to use from several threads at once.

    `dtype`, `device` and `tokens_per_batch` are what was settled; `config` is the model's, `max_length` in tokens.
    Made by `from_pretrained`.
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
        if self.config.pad_token_id is None:
            self.config.pad_token_id = tokenizer.pad_token_id
        if self.config.pad_token_id is None:
            raise ModelError(
                f"{self.config.model_type}: neither model nor tokenizer has a padding token; set one and save it"
            )
        self._encoder = encoder_for(tokenizer, self.config, max_length=max_length)
        self.max_length, self.truncation = self._encoder.max_length, self._encoder.policy
        # Attention without padding is a kernel of GPUs, for half precision.
        flash = device != "cpu" and self.dtype != "float32"
        self._unpadded = flash and self.config.model_type in UNPADDED_FAMILIES if unpadded is None else unpadded
        self._logits = unpadded_logits if self._unpadded else padded_logits
        if self._unpadded:
            prepare_unpadded(model)
        self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        lanes = list(_lanes(model, device))
        for lane in lanes:
            self._lanes.put(lane)
        self._limit = _BATCHES_PER_LANE * len(lanes)
        self._pool = ThreadPoolExecutor(len(lanes), "scorer", initializer=torch.set_num_threads, initargs=(1,))
        self._ahead = ThreadPoolExecutor(len(lanes), "tokenise")

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
        """Loads a scorer: a folder, an fsspec URL, or a hub id (`name/model[@revision]`).

        `device`: auto, cpu, cuda (all GPUs) or cuda:N. `dtype`: auto, float32, bfloat16 or float16. `tokens_per_batch`:
        by the device. `max_length`: tokens of a pair, by the model (512 where it does not say).
        `storage` goes to fsspec, for a URL.
        Raises ModelError for a model that is no scorer, UsageError for a device that is not here.
        """
        source = Source(id_or_path, allow_pickle, trust_remote_code, storage or {})
        settled = settle_device(device)
        kind = settle_dtype(dtype, settled)
        model, tokenizer = load(find_checkpoint(source), getattr(torch, kind))
        tokens = tokens_per_batch or settle_tokens_per_batch(model.config, settled, kind)
        return cls(model, tokenizer, device=settled, tokens_per_batch=tokens, max_length=max_length)

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """The raw output of the head for each pair (instructions[i], responses[i]): float32[n], in input order.

        Raises ScoringError for a pair that does not fit into memory, BrokenModel when the model gives NaN or infinity.
        """
        scored = self.score_pairs(instructions, responses)
        for index, reason in scored.errors.items():
            raise ScoringError(f"pair {index} cannot be scored: {reason}")
        return scored.scores

    def rank(self, instruction: str, responses: Sequence[str]) -> list[Ranked]:
        """The responses to one instruction, best first; of equal scores the earlier one."""
        scores = self.score([instruction] * len(responses), responses)
        order = np.argsort(-scores, kind="stable").tolist()
        return [Ranked(index, responses[index], float(scores[index])) for index in order]

    def score_pairs(self, instructions: Sequence[str], responses: Sequence[str]) -> Scored:
        """As `score`, with what else is known; a pair that cannot be scored is an error of its own.

        Equal pairs are scored once. Raises BrokenModel.
        """
        if len(instructions) != len(responses):
            raise ValueError(f"{len(instructions)} instructions and {len(responses)} responses: give as many of each")
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
        work = Work(distinct=len(pairs))
        for rows, batch, found in self._in_flight(self._batches(pairs)):
            scores[rows], num_tokens[rows], truncated[rows] = found.scores, batch.lengths, batch.truncated
            work.tokens += len(batch.tokens)
            work.padding += found.padding
            work.out_of_memory += found.out_of_memory
            for place in np.flatnonzero(~np.isfinite(found.scores)).tolist():
                row = int(rows[place])
                if place not in found.unfit:
                    raise BrokenModel(_broken(float(found.scores[place]), pairs[row]))
                errors[row] = f"out of memory: {num_tokens[row]} tokens do not fit on {self.device}"
        return Scored(scores, num_tokens, truncated, errors, work)

    def _in_flight(
        self, batches: Iterable[tuple[np.ndarray, EncodedPairs]]
    ) -> Iterator[tuple[np.ndarray, EncodedPairs, "_Batch"]]:
        """The batches with what came of them, in order. A few are on their way at any time, whatever the window."""
        waiting: deque[tuple[np.ndarray, EncodedPairs, Future[_Batch]]] = deque()
        for rows, batch in batches:
            waiting.append((rows, batch, self._pool.submit(self._score_batch, batch)))
            if len(waiting) > self._limit:
                yield _awaited(waiting.popleft())
        while waiting:
            yield _awaited(waiting.popleft())

    def _batches(self, pairs: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, EncodedPairs]]:
        """The pairs in batches, each with the positions of its pairs."""
        for rows, encoded in self._windows(pairs):
            for batch in token_batches(encoded.lengths, self.tokens_per_batch, padded=not self._unpadded):
                yield rows[batch], encoded.take(batch)

    def _windows(self, pairs: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, EncodedPairs]]:
        """The pairs in windows of like length (by bytes), each encoded while the one before it is worked on."""
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

    def _score_batch(self, batch: EncodedPairs) -> "_Batch":
        lane = self._lanes.get()
        try:
            return self._on_lane(lane, batch)
        finally:
            self._lanes.put(lane)

    def _on_lane(self, lane: _Lane, batch: EncodedPairs) -> "_Batch":
        """Scores a batch; where memory runs out, its halves, and no such large batch again."""
        count = len(batch.lengths)
        padding = 0 if self._unpadded else int(batch.lengths.max()) * count - len(batch.tokens)
        try:
            with torch.inference_mode(), lane.lock:
                logits = self._logits(lane.model, batch, lane.device)
            return _Batch(logits.cpu().numpy(), padding)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY_ON_CPU not in str(error):
                raise
        if lane.device.type == "cuda":
            torch.cuda.empty_cache()
        if count == 1:
            return _Batch(np.full(1, np.nan, dtype=np.float32), 0, 1, (0,))
        self.tokens_per_batch = min(self.tokens_per_batch, (padding + len(batch.tokens)) // 2)
        halves = np.array_split(np.arange(count), 2)
        return _join(*(self._on_lane(lane, batch.take(half)) for half in halves))


class _Batch(NamedTuple):
    """The scores of a batch, its tokens of padding, how often memory ran out, and the positions that never fitted."""

    scores: np.ndarray
    padding: int
    out_of_memory: int = 0
    unfit: tuple[int, ...] = ()


def _join(first: _Batch, second: _Batch) -> _Batch:
    return _Batch(
        np.concatenate([first.scores, second.scores]),
        first.padding + second.padding,
        first.out_of_memory + second.out_of_memory + 1,
        (*first.unfit, *(len(first.scores) + place for place in second.unfit)),
    )


def _awaited(
    batch: tuple[np.ndarray, EncodedPairs, "Future[_Batch]"],
) -> tuple[np.ndarray, EncodedPairs, _Batch]:
    rows, encoded, future = batch
    return rows, encoded, future.result()


def _lanes(model: PreTrainedModel, device: str) -> Iterator[_Lane]:
    """A lane for each core, each with one thread of torch's; or two for each GPU, which has a model of its own.

    One thread for a batch makes a score independent of how many batches are computed beside it, and wastes nothing on
    threads waiting for each other.
    """
    if device == "cpu":
        for _ in range(cores()):
            yield _Lane(model, torch.device("cpu"), nullcontext())
        return
    for place in cuda_devices(device):
        replica: Any = copy.deepcopy(model)
        replica = replica.to(place)
        lock = threading.Lock()
        for _ in range(_LANES_PER_GPU):
            yield _Lane(replica, place, lock)


def _broken(score: float, pair: tuple[str, str]) -> str:
    return (
        f"the model gives {score} for the instruction {pair[0][:80]!r} and the response {pair[1][:80]!r}: its weights "
        "are broken, or its numbers overflow in this dtype; try --dtype float32"
    )
