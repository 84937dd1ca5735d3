"""Autoregressive sampling for many rows at once, each with its own decoding.

Each prompt is computed once for all of its rows, and finished rows leave the batch. Each row has its own random
numbers, so a response does not depend on the other rows of its batch.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cappy_model.generate.decodings import Decoding, GenerationError
from cappy_model.generate.sampling import next_tokens

_COMPACT_BELOW = 0.75  # share of unfinished rows below which copying their cache pays off
_LOGITS_AT_ONCE = 2**25  # numbers; with a large vocabulary the logits of a batch take gigabytes


class SpecialTokens(NamedTuple):
    """Special token ids: ends of a response, padding, the decoder's start, and the forced first and last tokens."""

    ends: tuple[int, ...]
    pad: int
    start: int
    first: int | None
    last: int | None


def special_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Return the special tokens of a model, from its generation config, else from its tokenizer."""
    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    listed = tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (ends,)
    last = own.forced_eos_token_id
    return SpecialTokens(
        ends=listed,
        pad=_first_of(own.pad_token_id, tokenizer.pad_token_id, *listed),
        start=_first_of(own.decoder_start_token_id, own.bos_token_id, own.pad_token_id),
        first=own.forced_bos_token_id,
        last=last[0] if isinstance(last, list) else last,
    )


def _first_of(*tokens: int | None) -> int:
    """Return the first token that is not None; 0 if there is none, which is safe since padding is masked."""
    return next((token for token in tokens if token is not None), 0)


@dataclass(frozen=True)
class Rows:
    """The rows of a batch, one for each sample.

    `prompts` int64[n]: the prompt of each row; `decodings` int64[n]: its decoding, ascending; `uniforms`
    float64[n, new tokens]: its random numbers in [0, 1).
    """

    prompts: np.ndarray
    decodings: np.ndarray
    uniforms: np.ndarray


class Rolled(NamedTuple):
    """Token ids int64[k] of a response, its end token included, and their log-likelihoods float32[k]."""

    tokens: np.ndarray
    log_likelihoods: np.ndarray


class _State:
    """The state of a batch: the cache, and the mask, encoder output and next logits of each row."""

    def __init__(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, start: int) -> None:
        self._model, self._mask = model, mask
        if model.config.is_encoder_decoder:
            self._encoder = model.get_encoder()(input_ids=ids, attention_mask=mask)
            first = torch.full((len(ids), 1), start, device=ids.device)
            output = self._decode(first, None)
        else:
            self._encoder = None
            output = model(input_ids=ids, use_cache=True, **_masked(model, mask, 0), **last_logits(model))
        self._cache, self.logits = output.past_key_values, output.logits[:, -1].float()

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, int64[n]; a repeated row is copied."""
        self._cache.batch_select_indices(rows)
        self._mask, self.logits = self._mask[rows], self.logits[rows]
        if self._encoder is not None:
            self._encoder.last_hidden_state = self._encoder.last_hidden_state[rows]

    def step(self, tokens: torch.Tensor) -> None:
        """Append a token to each row, int64[n], and compute the next logits."""
        if self._encoder is None:
            self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
            masked = _masked(self._model, self._mask, self._mask.shape[1] - 1)
            output = self._model(input_ids=tokens[:, None], past_key_values=self._cache, use_cache=True, **masked)
        else:
            output = self._decode(tokens[:, None], self._cache)
        self._cache, self.logits = output.past_key_values, output.logits[:, -1].float()

    def _decode(self, tokens: torch.Tensor, cache: Any) -> Any:
        return self._model(
            encoder_outputs=self._encoder,
            attention_mask=self._mask,
            decoder_input_ids=tokens,
            past_key_values=cache,
            use_cache=True,
        )


def takes(model: PreTrainedModel, name: str) -> bool:
    """Return whether the forward pass of a model has an argument of this name."""
    return name in inspect.signature(model.forward).parameters


def last_logits(model: PreTrainedModel) -> dict[str, int]:
    """Return the argument that limits a forward pass to the logits of the last position, if the model has it."""
    return {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}


def roll_out(
    model: PreTrainedModel,
    prompts: tuple[torch.Tensor, torch.Tensor],
    rows: Rows,
    decodings: Sequence[Decoding],
    special: SpecialTokens,
    *,
    min_new_tokens: int,
    stopped: Callable[[np.ndarray], np.ndarray] | None,
    on_step: Callable[[int], None],
) -> list[Rolled]:
    """Generate the responses of all rows.

    `prompts`: ids and mask int64[m, longest], padded on the left for a decoder-only model. `stopped` returns whether
    token ids int64[k, length] contain a stop text: bool[k]. `on_step` is called after each step
    with the number of steps done. Raises GenerationError for a model that returns NaN.
    """
    count, longest = rows.uniforms.shape
    tokens, likelihoods = np.zeros((count, longest), dtype=np.int64), np.zeros((count, longest), dtype=np.float32)
    lengths = np.zeros(count, dtype=np.int64)
    device = prompts[0].device
    state = _State(model, *prompts, special.start)
    state.select(torch.from_numpy(rows.prompts).to(device))
    uniforms = torch.from_numpy(rows.uniforms).to(device)
    current, unfinished = np.arange(count), np.ones(count, dtype=bool)
    for step in range(longest):
        scores = _without(state.logits, special.ends) if step < min_new_tokens else state.logits
        chosen = _choose(scores, decodings, rows.decodings[current], uniforms[current, step])
        forced = special.first if step == 0 else special.last if step == longest - 1 else None
        if forced is not None:
            chosen = torch.full_like(chosen, forced)
        step_likelihoods = log_likelihoods(state.logits, chosen).cpu().numpy()
        if np.isnan(step_likelihoods).any():
            raise GenerationError("the model returns NaN: its weights are broken, or overflow; try --dtype float32")
        places = current[unfinished]
        tokens[places, step] = chosen.cpu().numpy()[unfinished]
        likelihoods[places, step] = step_likelihoods[unfinished]
        lengths[places] = step + 1
        on_step(step + 1)
        ended = np.isin(tokens[current, step], special.ends)
        if stopped is not None:
            ended |= stopped(tokens[current, : step + 1])
        unfinished &= ~ended
        if step == longest - 1 or not unfinished.any():
            break
        if unfinished.mean() < _COMPACT_BELOW:
            kept = torch.from_numpy(np.flatnonzero(unfinished)).to(device)
            state.select(kept)
            chosen, current, unfinished = chosen[kept], current[unfinished], unfinished[unfinished]
        state.step(chosen)
    return [Rolled(tokens[row, :length], likelihoods[row, :length]) for row, length in enumerate(lengths)]


def _without(logits: torch.Tensor, tokens: tuple[int, ...]) -> torch.Tensor:
    return logits.index_fill(1, torch.tensor(tokens, device=logits.device), -torch.inf) if tokens else logits


def _choose(
    logits: torch.Tensor, decodings: Sequence[Decoding], places: np.ndarray, uniforms: torch.Tensor
) -> torch.Tensor:
    """Choose the next token of each row by its own decoding; rows are grouped by decoding."""
    bounds = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    spans = [slice(first, stop) for first, stop in pairwise(bounds)]
    return torch.cat([next_tokens(logits[span], decodings[places[span.start]], uniforms[span]) for span in spans])


def log_likelihoods(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return log p of tokens int64[...] under logits float[..., vocabulary]: float32[...]."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def prefix_cache(model: Any, prompts: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """Return the cache of prompts without their last tokens, to be used several times.

    None for an encoder-decoder, whose cache does not hold the prompt, and for prompts of one token.
    """
    ids, mask = prompts
    if model.config.is_encoder_decoder or ids.shape[1] == 1:
        return None
    output = model(input_ids=ids[:, :-1], **_masked(model, mask[:, :-1], 0), use_cache=True, **last_logits(model))
    return output.past_key_values


def likelihoods_of(
    model: Any, prompts: tuple[torch.Tensor, torch.Tensor], responses: Sequence[np.ndarray], start: int, prefix: Any
) -> list[np.ndarray]:
    """Return the log-likelihoods float32[k] of the tokens of one response int64[k] to each prompt.

    `prompts` are as in `roll_out`, `prefix` is their `prefix_cache`. One forward pass, or several to limit the logits.
    """
    longest = max(map(len, responses))
    width = max(1, _LOGITS_AT_ONCE // (longest * model.get_output_embeddings().weight.shape[0]))
    likelihoods: list[np.ndarray] = []
    for first in range(0, len(responses), width):
        part = responses[first : first + width]
        given = torch.zeros((len(part), longest), dtype=torch.int64)
        for row, response in enumerate(part):
            given[row, : len(response)] = torch.from_numpy(response)
        ids, mask = (tensor[first : first + width] for tensor in prompts)
        cache = copy.deepcopy(prefix)
        if cache is not None:
            cache.batch_select_indices(torch.arange(first, first + len(part), device=ids.device))
        given = given.to(ids.device)
        values = log_likelihoods(_teacher_forced(model, ids, mask, given, start, cache), given).cpu().numpy()
        likelihoods += [row[: len(response)] for row, response in zip(values, part, strict=True)]
    return likelihoods


def _teacher_forced(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, given: torch.Tensor, start: int, cache: Any
) -> torch.Tensor:
    """Return the logits [n, longest, vocabulary] of the given tokens; those after a row's end are meaningless."""
    if model.config.is_encoder_decoder:
        shifted = torch.cat([torch.full_like(given[:, :1], start), given[:, :-1]], dim=1)
        output = model(input_ids=ids, attention_mask=mask, decoder_input_ids=shifted)
    else:
        inputs = torch.cat([ids[:, -1:], given[:, :-1]], dim=1)
        mask = torch.cat([mask, torch.ones_like(given[:, :-1])], dim=1)
        masked = _masked(model, mask, ids.shape[1] - 1)
        output = model(input_ids=inputs, past_key_values=cache, use_cache=cache is not None, **masked)
    logits: torch.Tensor = output.logits
    return logits


def _masked(model: Any, mask: torch.Tensor, first: int) -> dict[str, torch.Tensor]:
    """Return the mask and, if the model takes them, the positions of the tokens from `first` on."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, first:]
    return {"attention_mask": mask, **({"position_ids": positions} if takes(model, "position_ids") else {})}
