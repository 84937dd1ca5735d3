"""The forward pass of decoder-only scorers: the head reads the last token, and pairs share their instruction.

A sequence classifier has a linear layer `score`; a causal language model is scored by the logits of one or two words.
Both read the hidden state of one token of a pair, so only that one passes the head.
"""

import copy
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from cappy_model.score.batching import similar_lengths
from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.forward import on_device, padded_inputs
from cappy_model.score.heads import Head

_LEAST_SHARED = 16  # tokens; copying the cache of a shorter prefix costs more than it saves


def reads(pairs: EncodedPairs, pad_token_id: int | None) -> np.ndarray:
    """Return the position of the token that the head of a classifier reads in each pair, int64[n].

    As in transformers it is the last one that is not the padding token, which a text may hold or a template end with;
    a model without a padding token reads the last. Every pair has a token.
    """
    last = pairs.lengths - 1
    if pad_token_id is None:
        return last
    starts = np.cumsum(pairs.lengths) - pairs.lengths
    place = np.where(pairs.tokens != pad_token_id, np.arange(len(pairs.tokens)) - starts.repeat(pairs.lengths), 0)
    return np.maximum.reduceat(place, starts)


def shared_prefixes(pairs: EncodedPairs, read: np.ndarray) -> np.ndarray:
    """Return the number of tokens at the start of each pair that all pairs of its group share, int64[n].

    0 for a pair alone in its group, and where too few tokens are shared to be worth it. The token that the head reads
    is never among them.
    """
    prefixes = np.zeros(len(pairs.lengths), dtype=np.int64)
    starts = np.cumsum(pairs.lengths) - pairs.lengths
    order = np.argsort(pairs.groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(pairs.groups[order])) + 1):
        if len(rows) < 2:
            continue
        shared = int(min(read[rows].min(), pairs.lengths[rows].min() - 1))
        heads = pairs.tokens[starts[rows][:, None] + np.arange(shared)]
        differing = np.flatnonzero((heads != heads[0]).any(axis=0))
        shared = int(differing[0]) if len(differing) else shared
        prefixes[rows] = shared if shared >= _LEAST_SHARED else 0
    return prefixes


def last_token_logits(
    model: PreTrainedModel, pairs: EncodedPairs, read: np.ndarray, head: Head, device: torch.device
) -> torch.Tensor:
    """Return the logits of the head, float32[n, labels], for pairs padded on the right; `read` is int64[n]."""
    inputs = padded_inputs(pairs, model.config.pad_token_id)
    tensors = {name: on_device(device, inputs[name]) for name in ("input_ids", "attention_mask")}
    hidden = model.base_model(**tensors, use_cache=False).last_hidden_state
    return _head_logits(model, hidden[torch.arange(len(read), device=device), on_device(device, read)], head)


def shared_prefix_logits(
    model: PreTrainedModel,
    pairs: EncodedPairs,
    prefixes: np.ndarray,
    read: np.ndarray,
    head: Head,
    device: torch.device,
) -> torch.Tensor:
    """Do as `last_token_logits`, computing the keys and values of each prefix once for all pairs of its group.

    `prefixes` int64[n] are as `shared_prefixes` returns them, none 0, and pairs of a group stand together. Prefixes are
    padded on the left and the rest of the pairs on the right, so that every pair is contiguous. Rests of similar length
    are computed together, since the candidates of an instruction differ in length.
    """
    fresh = np.diff(pairs.groups, prepend=-1) != 0
    cache, mask = _read_prefixes(model, pairs, np.flatnonzero(fresh), prefixes, device)
    group, rest = np.cumsum(fresh) - 1, pairs.lengths - prefixes
    starts = np.cumsum(pairs.lengths) - rest
    parts, states = similar_lengths(rest), []
    for part in parts:
        rows, offset = on_device(device, group[part]), np.arange(int(rest[part].max()))
        inside = offset < rest[part][:, None]
        at = starts[part][:, None] + np.where(inside, offset, 0)
        tokens = np.where(inside, pairs.tokens[at], model.config.pad_token_id).astype(np.int64)
        copied = copy.deepcopy(cache)  # the forward pass appends to it
        copied.batch_select_indices(rows)
        hidden = model.base_model(
            input_ids=on_device(device, tokens),
            attention_mask=torch.cat([mask[rows], on_device(device, inside.astype(np.int64))], dim=1),
            position_ids=on_device(device, prefixes[part][:, None] + offset),
            past_key_values=copied,
            use_cache=True,
        ).last_hidden_state
        place = on_device(device, (read - prefixes)[part])
        states.append(hidden[torch.arange(len(part), device=device), place])
    back = on_device(device, np.argsort(np.concatenate(parts)))
    return _head_logits(model, torch.cat(states)[back], head)


def _read_prefixes(
    model: PreTrainedModel, pairs: EncodedPairs, firsts: np.ndarray, prefixes: np.ndarray, device: torch.device
) -> tuple[Any, torch.Tensor]:
    """Return the cache of the prefixes of the pairs `firsts` int64[m], padded on the left, and its mask."""
    longest, starts = int(prefixes.max()), np.cumsum(pairs.lengths) - pairs.lengths
    place = np.arange(longest) - (longest - prefixes[firsts])[:, None]
    inside, place = place >= 0, place.clip(min=0)
    tokens = np.where(inside, pairs.tokens[starts[firsts][:, None] + place], model.config.pad_token_id)
    mask = on_device(device, inside.astype(np.int64))
    inputs = {"input_ids": on_device(device, tokens.astype(np.int64)), "position_ids": on_device(device, place)}
    return model.base_model(**inputs, attention_mask=mask, use_cache=True).past_key_values, mask


def _head_logits(model: Any, hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """Return float32 logits [n, labels] of hidden states [n, size]; of a language model those of the head's tokens."""
    if not head.tokens:
        logits: torch.Tensor = model.score(hidden)
        return logits.float()
    output, config = model.get_output_embeddings(), model.config.get_text_config()
    kept = list(head.tokens)
    # In float32, and without touching the weights: many models share them with their embeddings.
    bias = None if output.bias is None else output.bias[kept].float()
    logits = torch.nn.functional.linear(hidden.float(), output.weight[kept].float(), bias)
    logits = logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
