"""The forward pass over a batch of pairs: padded for any model, without padding for the RoBERTa and BERT families."""

from typing import Any

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cappy_model.encoding import EncodedPairs

UNPADDED_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert", "bert"})
"""Model types whose layers are RoBERTa's or BERT's own, so that they can be called without padding."""

_ATTENTION = "cappy_unpadded"


def keep_head_precise(model: PreTrainedModel) -> None:
    """Makes everything behind the last layer compute in float32, whatever the layers do.

    In bfloat16 a score has eight bits, and candidates would tie that are not equal; the head costs nothing.
    """
    for module in _behind_the_layers(model):
        module.float().register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))


def keep_head_out_of_autocast(model: PreTrainedModel) -> None:
    """Makes everything behind the last layer compute in float32 where autocast has the layers in bfloat16."""
    left: list[torch.autocast] = []

    def enter(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        left.append(torch.autocast(inputs[0].device.type, enabled=False))
        left[-1].__enter__()
        return tuple(value.float() for value in inputs)

    def leave(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        left.pop().__exit__(None, None, None)

    for module in _behind_the_layers(model):
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)


def _behind_the_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    heads = [module for name, module in model.named_children() if name != model.base_model_prefix]
    pooler = getattr(model.base_model, "pooler", None)
    return [*heads, *([pooler] if pooler is not None else [])]


def padded_logits(model: PreTrainedModel, batch: EncodedPairs, device: torch.device) -> torch.Tensor:
    """The head's output for n pairs, float32[n] on `device`: every pair padded to the longest, on the right."""
    inputs = padded_inputs(batch, model.config.pad_token_id)
    logits = model(**{name: _on(device, array) for name, array in inputs.items()}).logits
    return logits[:, 0].float()


def padded_inputs(batch: EncodedPairs, pad_token_id: int) -> dict[str, np.ndarray]:
    """What a model is given of n pairs: int64[n, longest] arrays, every pair padded to the longest, on the right."""
    longest = int(batch.lengths.max())
    inside = np.arange(longest) < batch.lengths[:, None]
    inputs = {"input_ids": np.full(inside.shape, pad_token_id, dtype=np.int64)}
    inputs["input_ids"][inside] = batch.tokens
    inputs["attention_mask"] = inside.astype(np.int64)
    if batch.types.any():
        inputs["token_type_ids"] = np.zeros(inside.shape, dtype=np.int64)
        inputs["token_type_ids"][inside] = batch.types
    return inputs


def prepare_unpadded(model: PreTrainedModel) -> None:
    """Makes a model of `UNPADDED_FAMILIES` attend within the pairs of a flat batch, as `unpadded_logits` gives it."""
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend_within_pairs)
    model.config._attn_implementation = _ATTENTION


def unpadded_logits(model: Any, batch: EncodedPairs, device: torch.device) -> torch.Tensor:
    """As `padded_logits`, for a prepared model: the tokens of all pairs are one row, and nothing is computed twice.

    Padding is gone before the embeddings. Positions start anew with each pair, attention stays within it, and the head
    reads the first token of each.
    """
    base, stops = model.base_model, np.cumsum(batch.lengths)
    bounds = np.concatenate([[0], stops]).astype(np.int32)
    flat = (batch.tokens, batch.types, _positions(model.config, batch, bounds))
    tokens, types, positions = (_on(device, array.astype(np.int64)[None]) for array in flat)
    hidden = base.embeddings(input_ids=tokens, token_type_ids=types, position_ids=positions)
    cu_seqlens = _on(device, bounds)
    attention = {"cu_seqlens": cu_seqlens, "max_seqlen": int(batch.lengths.max())}
    hidden = base.encoder(hidden, **attention).last_hidden_state
    first = hidden[0, cu_seqlens[:-1].long()][:, None]
    pooled = first if base.pooler is None else base.pooler(first)
    return model.classifier(pooled)[:, 0].float()


def _positions(config: Any, batch: EncodedPairs, bounds: np.ndarray) -> np.ndarray:
    """The position of each token in its pair. RoBERTa counts from padding + 1 and leaves its padding token out."""
    if config.model_type == "bert":
        return np.arange(len(batch.tokens)) - bounds[:-1].repeat(batch.lengths)
    counted = batch.tokens != config.pad_token_id
    before = np.concatenate([[0], np.cumsum(counted)])
    return (before[1:] - before[bounds[:-1]].repeat(batch.lengths)) * counted + config.pad_token_id


def _attend_within_pairs(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over [1, heads, tokens, size], each pair on its own; [1, tokens, heads, size]."""
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if q.is_cuda:
        attended: Any = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, scale=scaling)
        return attended[None], None
    sizes = cu_seqlens.diff().tolist()
    parts = zip(*(states.transpose(0, 1).split(sizes, dim=1) for states in (q, k, v)), strict=True)
    done = [torch.nn.functional.scaled_dot_product_attention(a, b, c, scale=scaling) for a, b, c in parts]
    return torch.cat(done, dim=1).transpose(0, 1)[None], None


def _on(device: torch.device, array: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
