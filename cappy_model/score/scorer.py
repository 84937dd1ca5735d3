"""The scorer: one number for each (instruction, response) pair, an estimate of how correct the response is.

Pairs are sorted by length and scored in batches under a token budget, so that little is padding; `layouts` says which
pairs a model computes together. Tokenization runs ahead of the device.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from cappy_model.checkpoints import ModelSource, find_checkpoint, settle_padding
from cappy_model.devices import settle_device, settle_dtype, settle_tokens_per_batch
from cappy_model.lanes import Lane, Lanes, out_of_memory
from cappy_model.score.check import BrokenModel, broken, checked_scorer
from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.forward import keep_head_precise
from cappy_model.score.layouts import LastToken, Padded, layout_for
from cappy_model.score.loading import LoadedScorer, load_scorer, settle_scorer
from cappy_model.score.templates import AUTO
from cappy_model.score.unpadded import unpadded_layout
from cappy_model.score.windows import Pair, brief, windows
from cappy_model.work import ProgressCallback
from schemas.errors import CappyError

_NOT_FINITE = "not finite"


class ScoringError(CappyError):
    """A pair that cannot be scored."""


@dataclass
class ScoringWork:
    """The work of scoring: distinct pairs, their tokens, tokens of padding, and out-of-memory errors.

    `reused` are the pairs whose score was known before; a `Scorer` computes all of them.
    """

    distinct: int = 0
    reused: int = 0
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
    """Encoded pairs, their positions int64[m], and the token budget that they were batched for."""

    rows: np.ndarray
    pairs: EncodedPairs
    budget: int


class _Computed(NamedTuple):
    """The scores of a batch, float32[m], and the errors of its pairs by their place in the batch."""

    scores: np.ndarray
    errors: Mapping[int, str]


class Scorer:
    """A loaded model that scores pairs; thread-safe. Load it with `from_pretrained`.

    `dtype`, `device` and `tokens_per_batch` are the resolved settings, `max_length` is in tokens of a pair, and
    `config` is the model's.
    """

    def __init__(
        self,
        loaded: LoadedScorer,
        *,
        device: str,
        tokens_per_batch: int,
        unpadded: bool | None = None,
        share_prefixes: bool = True,
    ) -> None:
        model = loaded.model
        self.config, self.settled = model.config, loaded.settled
        self.device, self.dtype = device, str(model.dtype).removeprefix("torch.")
        self.tokens_per_batch = tokens_per_batch
        self._encoder, self._head = loaded.encoder, loaded.head
        self.max_length, self.truncation = self._encoder.max_length, self._encoder.policy
        # Unpadded attention is a GPU kernel for half precision.
        flash = device != "cpu" and self.dtype != "float32"
        self._layout = layout_for(
            model,
            self._head,
            pad=self.config.pad_token_id,
            unpadded=flash if unpadded is None else unpadded,
            share_prefixes=share_prefixes,
        )
        self._prepare(model, loaded)
        self._lanes = Lanes(model, device)
        self._ahead = ThreadPoolExecutor(self._lanes.count, "tokenize")

    def _prepare(self, model: Any, loaded: LoadedScorer) -> None:
        """Change a model for its layout, and keep its head in float32."""
        if isinstance(self._layout, Padded):
            settle_padding(self.config, loaded.tokenizer)
        elif self.config.pad_token_id is None:
            # Any token will do where we say which one a head reads. Otherwise a model's own code looks for the last
            # token that is not padding, so padding is none of them.
            self.config.pad_token_id = 0 if isinstance(self._layout, LastToken) else -1
        fast = unpadded_layout(model)
        if fast is not None:
            fast.first_tokens(model)
            if not isinstance(self._layout, Padded):
                fast.prepare(model)
        if not self._head.tokens:  # a language model may share the weights of its head with its embeddings
            keep_head_precise(model)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        max_length: int | None = None,
        head: str | None = None,
        template: str = AUTO,
        share_prefixes: bool = True,
        check_pairs: Sequence[Pair] = (),
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
            max_length: maximum tokens of a pair; None: what the model names, at most 8,192, or 512.
            head: what the score is: of a classifier with several logits the name or the position of a label, or
                `expected`, the mean of the labels' values; of a causal language model two words such as `yes,no`, whose
                logits are subtracted. None: the only logit, or what a CrossEncoder folder stores.
            template: auto (what the model says), none (the tokenizer's own pair), chat (the instruction as the user's
                turn, the response as the assistant's), or the text of a jinja template over `instruction` and
                `response`.
            share_prefixes: whether the pairs of an instruction share its reading, where the model is a decoder.
            check_pairs: pairs (instruction, response) whose scores are compared with those of the plain forward pass.
            allow_pickle: whether pickled weights may be loaded, which can execute any code.
            trust_remote_code: whether the model's own code may run.
            storage: fsspec options for a URL.

        Raises:
            ModelError: if the model cannot be loaded or is not a scorer.
            UsageError: if the device or the dtype is unknown or not available.
            CheckFailed: if a pair of `check_pairs` gets another score than from the plain forward pass.
        """
        source = ModelSource(id_or_path, allow_pickle, trust_remote_code, storage or {})
        place = settle_device(device)
        settled = settle_scorer(find_checkpoint(source), head=head, template=template, max_length=max_length)
        kind = settle_dtype(dtype, place, settled.config)
        loaded = load_scorer(settled, getattr(torch, kind))
        tokens = tokens_per_batch or settle_tokens_per_batch(settled.config, place, kind)
        make = partial(cls, device=place, tokens_per_batch=tokens, share_prefixes=share_prefixes)
        return checked_scorer(loaded, make, check_pairs, place)

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Return the raw output of the head for each pair (instructions[i], responses[i]): float32[n], not clamped.

        Raises ScoringError for a pair that cannot be scored, and BrokenModel for a score of NaN or infinity.
        """
        scored = self.score_pairs(instructions, responses)
        for index, reason in scored.errors.items():
            kind, _, gives = reason.partition(": ")
            if kind == _NOT_FINITE:
                raise BrokenModel(broken(gives, (instructions[index], responses[index])))
            raise ScoringError(f"pair {index} cannot be scored: {reason}")
        return scored.scores

    def rank(self, instruction: str, responses: Sequence[str]) -> list[Ranked]:
        """Sort the responses to one instruction, best first; equal scores keep the input order. Raises as `score`."""
        scores = self.score([instruction] * len(responses), responses)
        order = np.argsort(-scores, kind="stable").tolist()
        return [Ranked(index, responses[index], float(scores[index])) for index in order]

    def score_pairs(
        self, instructions: Sequence[str], responses: Sequence[str], *, on_progress: ProgressCallback | None = None
    ) -> Scored:
        """Score pairs, with token counts; a pair that cannot be scored is an entry of `errors`.

        Equal pairs are scored once. `on_progress` is called with the number of pairs done after each batch.
        """
        if len(instructions) != len(responses):
            raise ValueError(f"{len(instructions)} instructions but {len(responses)} responses: give equally many")
        places: dict[tuple[str, str], int] = {}
        inverse = [places.setdefault(pair, len(places)) for pair in zip(instructions, responses, strict=True)]
        back = np.array(inverse, dtype=np.int64)
        distinct = self._score_distinct(list(places), np.bincount(back, minlength=len(places)), on_progress)
        errors = {row: distinct.errors[place] for row, place in enumerate(inverse) if place in distinct.errors}
        return Scored(distinct.scores[back], distinct.num_tokens[back], distinct.truncated[back], errors, distinct.work)

    def _score_distinct(self, pairs: list[Pair], counts: np.ndarray, on_progress: ProgressCallback | None) -> Scored:
        """Score distinct pairs; `counts` int64[n] says how often each occurs, which `on_progress` counts."""
        done = 0
        scores = np.full(len(pairs), np.nan, dtype=np.float32)
        num_tokens, truncated = np.zeros(len(pairs), dtype=np.int32), np.zeros(len(pairs), dtype=bool)
        errors: dict[int, str] = {}
        work = ScoringWork(distinct=len(pairs))
        for outcome in self._lanes.run(self._batches(pairs, errors), self._compute, self._halve):
            work.out_of_memory += outcome.out_of_memory
            for batch, computed in outcome.done:
                scores[batch.rows] = computed.scores
                errors |= {int(batch.rows[place]): reason for place, reason in computed.errors.items()}
                work.padding += self._layout.padding(batch.pairs)
            for batch in outcome.unfit:  # single pairs
                tokens = batch.pairs.lengths[0]
                errors[int(batch.rows[0])] = f"out of memory: {tokens} tokens do not fit on {self.device}"
            for batch in [*(batch for batch, _ in outcome.done), *outcome.unfit]:
                num_tokens[batch.rows], truncated[batch.rows] = batch.pairs.lengths, batch.pairs.truncated
                work.tokens += len(batch.pairs.tokens)
                done += int(counts[batch.rows].sum())
            if on_progress is not None:
                on_progress(done, int(counts.sum()))
        for row in np.flatnonzero(~np.isfinite(scores)).tolist():
            errors.setdefault(row, f"{_NOT_FINITE}: the model gives {scores[row]}")
            scores[row] = np.nan
        return Scored(scores, num_tokens, truncated, errors, work)

    def _compute(self, lane: Lane, batch: _Batch) -> _Computed:
        """Score a batch; if that raises anything but a lack of memory, score it pair by pair."""
        try:
            return _Computed(self._scores(lane, batch.pairs), {})
        except Exception as error:  # a model can raise anything for a pair
            if out_of_memory(error) or isinstance(error, torch.AcceleratorError):  # after which the device is lost
                raise
        scores, errors = np.full(len(batch.rows), np.nan, dtype=np.float32), {}
        for place in range(len(batch.rows)):
            try:
                scores[place] = self._scores(lane, batch.pairs.take(np.array([place])))[0]
            except Exception as error:  # as above
                if out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                    raise
                errors[place] = f"model error: {brief(error)}"
        return _Computed(scores, errors)

    def _scores(self, lane: Lane, pairs: EncodedPairs) -> np.ndarray:
        with lane.lock:
            scores = self._head.reduce(self._layout.logits(lane.model, pairs, lane.device))
        return scores.cpu().numpy()

    def _halve(self, batch: _Batch) -> tuple[_Batch, ...]:
        """Split a batch that does not fit, and lower the batch budget; () for a single pair."""
        count = len(batch.rows)
        if count == 1:
            return ()
        # Pairs that share tokens are more than the budget; batches in flight were made for an earlier one.
        size = min(batch.budget, self._layout.padding(batch.pairs) + len(batch.pairs.tokens))
        self.tokens_per_batch = min(self.tokens_per_batch, size // 2)
        halves = np.array_split(np.arange(count), 2)
        return tuple(_Batch(batch.rows[half], batch.pairs.take(half), size // 2) for half in halves)

    def _batches(self, pairs: list[Pair], errors: dict[int, str]) -> Iterator[_Batch]:
        """Yield the batches of all pairs that have tokens; the others go to `errors`."""
        by_instruction = isinstance(self._layout, LastToken) and self._layout.shares
        for window in windows(pairs, self._encoder, self._ahead, by_instruction=by_instruction):
            errors |= window.errors
            if window.pairs is not None:
                budget = self.tokens_per_batch
                for batch in self._layout.batches(window.pairs, budget):
                    yield _Batch(window.rows[batch], window.pairs.take(batch), budget)
