"""Tokens drawn one after the other from a language model, for many rows at once, each by a decoding of its own.

The work on a prompt is done once, whatever the number of its rows; rows that have ended leave the batch; and each row
has its own random numbers, so a response does not depend on what it was drawn beside.
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

_COMPACT_BELOW = 0.75  # of the rows still open: copying the cache of so few pays
_LOGITS_AT_ONCE = 2**25  # numbers; of a large vocabulary a batch's logits are gigabytes


class SpecialTokens(NamedTuple):
    """The ids that mean something: ends of a response, padding, the decoder's start, and tokens forced by the model."""

    ends: tuple[int, ...]
    pad: int
    start: int
    first: int | None
    last: int | None


def special_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """The ids that mean something to a model, by its own settings for generating, else by its tokenizer."""
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
    """The first token that there is; any will do where there is none, as padding is masked."""
    return next((token for token in tokens if token is not None), 0)


@dataclass(frozen=True)
class Rows:
    """What is drawn: for each row the place of its prompt in the batch, its decoding, and its uniform numbers.

    `prompts` int64[n]; `decodings` int64[n], ascending places in a list; `uniforms` float64[n, new tokens].
    """

    prompts: np.ndarray
    decodings: np.ndarray
    uniforms: np.ndarray


class Rolled(NamedTuple):
    """Token ids int64[k] of a response, its end token included, and the log-likelihood float32[k] of each."""

    tokens: np.ndarray
    log_likelihoods: np.ndarray


class _State:
    """A batch on its way: the cache, and what each of its rows needs beside it."""

    def __init__(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, start: int) -> None:
        self._model, self._mask = model, mask
        if model.config.is_encoder_decoder:
            self._encoder = model.get_encoder()(input_ids=ids, attention_mask=mask)
            first = torch.full((len(ids), 1), start, device=ids.device)
            found = self._decode(first, None)
        else:
            self._encoder = None
            found = model(input_ids=ids, use_cache=True, **_masked(model, mask, 0), **last_logits(model))
        self._cache, self.logits = found.past_key_values, found.logits[:, -1].float()

    def select(self, rows: torch.Tensor) -> None:
        """Goes on with these rows, each as often as it is named."""
        self._cache.batch_select_indices(rows)
        self._mask, self.logits = self._mask[rows], self.logits[rows]
        if self._encoder is not None:
            self._encoder.last_hidden_state = self._encoder.last_hidden_state[rows]

    def step(self, tokens: torch.Tensor) -> None:
        """Takes in a token of each row."""
        if self._encoder is None:
            self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
            masked = _masked(self._model, self._mask, self._mask.shape[1] - 1)
            found = self._model(input_ids=tokens[:, None], past_key_values=self._cache, use_cache=True, **masked)
        else:
            found = self._decode(tokens[:, None], self._cache)
        self._cache, self.logits = found.past_key_values, found.logits[:, -1].float()

    def _decode(self, tokens: torch.Tensor, cache: Any) -> Any:
        return self._model(
            encoder_outputs=self._encoder,
            attention_mask=self._mask,
            decoder_input_ids=tokens,
            past_key_values=cache,
            use_cache=True,
        )


def takes(model: PreTrainedModel, name: str) -> bool:
    """Whether the forward pass of a model has an argument of this name."""
    return name in inspect.signature(model.forward).parameters


def last_logits(model: PreTrainedModel) -> dict[str, int]:
    """Asks a model for no more than the logits of the last place, where it can be asked."""
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
) -> list[Rolled]:
    """The responses of all rows. `prompts` are ids and mask int64[m, longest], padded on the left for a decoder.

    `stopped` says of token ids int64[k, so far] whether a stop text stands in them: bool[k].
    Raises GenerationError for a model that gives NaN.
    """
    count, longest = rows.uniforms.shape
    tokens, likelihoods = np.zeros((count, longest), dtype=np.int64), np.zeros((count, longest), dtype=np.float32)
    lengths = np.zeros(count, dtype=np.int64)
    device = prompts[0].device
    state = _State(model, *prompts, special.start)
    state.select(torch.from_numpy(rows.prompts).to(device))
    uniforms = torch.from_numpy(rows.uniforms).to(device)
    current, still_open = np.arange(count), np.ones(count, dtype=bool)
    for step in range(longest):
        scores = _without(state.logits, special.ends) if step < min_new_tokens else state.logits
        chosen = _choose(scores, decodings, rows.decodings[current], uniforms[current, step])
        forced = special.first if step == 0 else special.last if step == longest - 1 else None
        if forced is not None:
            chosen = torch.full_like(chosen, forced)
        found = log_likelihoods(state.logits, chosen).cpu().numpy()
        if np.isnan(found).any():
            raise GenerationError("the model gives NaN: its weights are broken, or overflow; try --dtype float32")
        places = current[still_open]
        tokens[places, step], likelihoods[places, step] = chosen.cpu().numpy()[still_open], found[still_open]
        lengths[places] = step + 1
        ended = np.isin(tokens[current, step], special.ends)
        if stopped is not None:
            ended |= stopped(tokens[current, : step + 1])
        still_open &= ~ended
        if step == longest - 1 or not still_open.any():
            break
        if still_open.mean() < _COMPACT_BELOW:
            kept = torch.from_numpy(np.flatnonzero(still_open)).to(device)
            state.select(kept)
            chosen, current, still_open = chosen[kept], current[still_open], still_open[still_open]
        state.step(chosen)
    return [Rolled(tokens[row, :length], likelihoods[row, :length]) for row, length in enumerate(lengths)]


def _without(logits: torch.Tensor, tokens: tuple[int, ...]) -> torch.Tensor:
    return logits.index_fill(1, torch.tensor(tokens, device=logits.device), -torch.inf) if tokens else logits


def _choose(
    logits: torch.Tensor, decodings: Sequence[Decoding], places: np.ndarray, uniforms: torch.Tensor
) -> torch.Tensor:
    """The next token of each row by its own decoding; rows of one decoding stand together."""
    bounds = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    spans = [slice(first, stop) for first, stop in pairwise(bounds)]
    return torch.cat([next_tokens(logits[span], decodings[places[span.start]], uniforms[span]) for span in spans])


def log_likelihoods(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log p of tokens int64[...] under logits float[..., vocabulary]: float32[...]."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def prefix_cache(model: Any, prompts: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """The cache of prompts but for their last tokens, for work on them that is done more than once.

    None where there is nothing to keep: an encoder-decoder's encoder is no part of it, nor is a prompt of one token.
    """
    ids, mask = prompts
    if model.config.is_encoder_decoder or ids.shape[1] == 1:
        return None
    found = model(input_ids=ids[:, :-1], **_masked(model, mask[:, :-1], 0), use_cache=True, **last_logits(model))
    return found.past_key_values


def likelihoods_of(
    model: Any, prompts: tuple[torch.Tensor, torch.Tensor], responses: Sequence[np.ndarray], start: int, prefix: Any
) -> list[np.ndarray]:
    """The log-likelihood float32[k] of each token of a response to each prompt, in one forward pass or a few.

    `prefix` is what `prefix_cache` gave.
    """
    longest = max(map(len, responses))
    width = max(1, _LOGITS_AT_ONCE // (longest * model.get_output_embeddings().weight.shape[0]))
    found = []
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
        likelihoods = log_likelihoods(_teacher_forced(model, ids, mask, given, start, cache), given).cpu().numpy()
        found += [values[: len(response)] for values, response in zip(likelihoods, part, strict=True)]
    return found


def _teacher_forced(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, given: torch.Tensor, start: int, cache: Any
) -> torch.Tensor:
    """Logits [n, longest, vocabulary] that predict the given tokens; what follows a row's end does not matter."""
    if model.config.is_encoder_decoder:
        shifted = torch.cat([torch.full_like(given[:, :1], start), given[:, :-1]], dim=1)
        found = model(input_ids=ids, attention_mask=mask, decoder_input_ids=shifted)
    else:
        inputs = torch.cat([ids[:, -1:], given[:, :-1]], dim=1)
        mask = torch.cat([mask, torch.ones_like(given[:, :-1])], dim=1)
        masked = _masked(model, mask, ids.shape[1] - 1)
        found = model(input_ids=inputs, past_key_values=cache, use_cache=cache is not None, **masked)
    logits: torch.Tensor = found.logits
    return logits


def _masked(model: Any, mask: torch.Tensor, first: int) -> dict[str, torch.Tensor]:
    """The mask, and the positions of the tokens from `first` on, where a model takes them."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, first:]
    return {"attention_mask": mask, **({"position_ids": positions} if takes(model, "position_ids") else {})}
