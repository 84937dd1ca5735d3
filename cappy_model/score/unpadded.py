"""The forward pass without padding: the tokens of all pairs of a batch are one row.

Attention stays within a pair, positions restart with each pair, and the last layer is computed for first tokens only.
"""

from typing import Any

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.forward import on_device

UNPADDED_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert", "bert"})
"""Model types with the layers of RoBERTa or BERT, which can be called without padding."""

_ATTENTION = "cappy_unpadded"


class FirstTokenLayer(torch.nn.Module):
    """The last layer, computed for the first token of each pair, the only one that the head reads.

    All tokens give keys and values. The output is [n, 1, hidden] for padded pairs, [1, n, hidden] for a flat batch.
    This saves most of a layer, which is a sixth of a small model.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *unused: object,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: int | None = None,
        **unused_too: object,
    ) -> torch.Tensor:
        """Compute the wrapped layer for the first tokens."""
        attention = self.layer.attention.self
        flat: dict[str, Any] = {}
        if cu_seqlens is None:
            first = hidden[:, :1]
            attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
        else:
            first = hidden[:, cu_seqlens[:-1].long()]
            flat = {"cu_seqlens": cu_seqlens, "max_seqlen": max_seqlen, "first_tokens": True}
        parts = ((attention.query, first), (attention.key, hidden), (attention.value, hidden))
        heads = (attention.num_attention_heads, attention.attention_head_size)
        q, k, v = (linear(states).unflatten(-1, heads).transpose(1, 2) for linear, states in parts)
        attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
        attended, _ = attend(attention, q, k, v, attention_mask, scaling=attention.scaling, **flat)
        attended = self.layer.attention.output(attended.flatten(2), first)
        output: torch.Tensor = self.layer.output(self.layer.intermediate(attended), attended)
        return output


def read_first_tokens_alone(model: PreTrainedModel) -> None:
    """Compute the last layer of a model of `UNPADDED_FAMILIES` for first tokens only (see `FirstTokenLayer`)."""
    layers: Any = model.base_model.encoder
    layers.layer[-1] = FirstTokenLayer(layers.layer[-1])


def prepare_unpadded(model: PreTrainedModel) -> None:
    """Make a model of `UNPADDED_FAMILIES` attend within each pair of a flat batch, as `unpadded_logits` requires."""
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend_within_pairs)
    model.config._attn_implementation = _ATTENTION


def unpadded_logits(model: Any, batch: EncodedPairs, device: torch.device) -> torch.Tensor:
    """Do as `padded_logits`, without padding, for a model after `prepare_unpadded` and `read_first_tokens_alone`.

    The tokens of all pairs are one row. Positions restart with each pair, attention stays within a pair, and the head
    reads the first token of each.
    """
    base, stops = model.base_model, np.cumsum(batch.lengths)
    bounds = np.concatenate([[0], stops]).astype(np.int32)
    flat = (batch.tokens, batch.types, _positions(model.config, batch, bounds))
    tokens, types, positions = (on_device(device, array.astype(np.int64)[None]) for array in flat)
    hidden = base.embeddings(input_ids=tokens, token_type_ids=types, position_ids=positions)
    cu_seqlens = on_device(device, bounds)
    attention = {"cu_seqlens": cu_seqlens, "max_seqlen": int(batch.lengths.max())}
    hidden = base.encoder(hidden, **attention).last_hidden_state
    first = hidden[0][:, None]  # of each pair, as FirstTokenLayer leaves it
    pooled = first if base.pooler is None else base.pooler(first)
    return model.classifier(pooled)[:, 0].float()


def _positions(config: Any, batch: EncodedPairs, bounds: np.ndarray) -> np.ndarray:
    """Return the position of each token in its pair. RoBERTa counts from padding + 1 and skips its padding token."""
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
    first_tokens: bool = False,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention over [1, heads, tokens, size] within each pair; return [1, tokens, heads, size].

    With `first_tokens` each pair has one query.
    """
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    bounds, longest = cu_seqlens, max_seqlen
    if first_tokens:
        bounds, longest = torch.arange(len(cu_seqlens), dtype=torch.int32, device=q.device), 1
    if q.is_cuda:
        attended: Any = varlen_attn(q, k, v, bounds, cu_seqlens, longest, max_seqlen, scale=scaling)
        return attended[None], None
    sizes = (bounds.diff().tolist(), *[cu_seqlens.diff().tolist()] * 2)
    parts = zip(
        *(states.transpose(0, 1).split(size, dim=1) for states, size in zip((q, k, v), sizes, strict=True)),
        strict=True,
    )
    done = [torch.nn.functional.scaled_dot_product_attention(a, b, c, scale=scaling) for a, b, c in parts]
    return torch.cat(done, dim=1).transpose(0, 1)[None], None
