"""The forward pass without padding: the tokens of all pairs of a batch are one row.

Attention stays within a pair, and positions restart with each pair. `unpadded_layout` says which models can be called
so: those of a few classes of transformers, whose layers and heads are known here.
"""

from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.forward import on_device

_ATTENTION = "cappy_unpadded"
_KERNEL_SIZES = 8
"""The GPU kernel computes heads whose size is a multiple of this."""


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


class UnpaddedLayout:
    """How models of one class are called without padding."""

    def prepare(self, model: PreTrainedModel) -> None:
        """Make the model attend within each pair of a flat batch, as `logits` requires."""
        ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend_within_pairs)
        model.config._attn_implementation = _ATTENTION

    def first_tokens(self, model: PreTrainedModel) -> None:
        """Compute no more of the last layer than the head reads, padded or not, where this saves anything."""

    def logits(self, model: Any, batch: EncodedPairs, device: torch.device) -> torch.Tensor:
        """Do as `padded_logits`, without padding: float32[n, labels] of a model after `prepare` and `first_tokens`."""
        bounds = np.concatenate([[0], np.cumsum(batch.lengths)]).astype(np.int32)
        flat = {"input_ids": batch.tokens, **self._inputs(model.config, batch, bounds)}
        inputs = {name: on_device(device, array.astype(np.int64)[None]) for name, array in flat.items()}
        cu_seqlens = on_device(device, bounds)
        within = {"cu_seqlens": cu_seqlens, "max_seqlen": int(batch.lengths.max())}
        return self._head(model, self._layers(model.base_model, inputs, within), cu_seqlens).float()

    def _inputs(self, config: Any, batch: EncodedPairs, bounds: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs of the embeddings beside the tokens, each an integer per token."""
        return {"position_ids": np.arange(len(batch.tokens)) - bounds[:-1].repeat(batch.lengths)}

    def _layers(self, base: Any, inputs: dict[str, torch.Tensor], within: dict[str, Any]) -> torch.Tensor:
        """Return the output of the last layer, [1, tokens, hidden] or what `first_tokens` leaves of it."""
        raise NotImplementedError

    def _head(self, model: Any, hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """Return [n, labels] of the output of the layers."""
        raise NotImplementedError


class _BertLayout(UnpaddedLayout):
    """BERT: the head reads the first token of each pair."""

    def first_tokens(self, model: PreTrainedModel) -> None:
        layers: Any = model.base_model.encoder
        layers.layer[-1] = FirstTokenLayer(layers.layer[-1])

    def _inputs(self, config: Any, batch: EncodedPairs, bounds: np.ndarray) -> dict[str, np.ndarray]:
        return {**super()._inputs(config, batch, bounds), "token_type_ids": batch.types}

    def _layers(self, base: Any, inputs: dict[str, torch.Tensor], within: dict[str, Any]) -> torch.Tensor:
        hidden: torch.Tensor = base.encoder(base.embeddings(**inputs), **within).last_hidden_state
        return hidden

    def _head(self, model: Any, hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        first = hidden[0][:, None]  # of each pair, as FirstTokenLayer leaves it
        pooler = model.base_model.pooler
        logits: torch.Tensor = model.classifier(first if pooler is None else pooler(first))
        return logits


class _RobertaLayout(_BertLayout):
    """RoBERTa: positions count from the padding id + 1 and skip the padding token."""

    def _inputs(self, config: Any, batch: EncodedPairs, bounds: np.ndarray) -> dict[str, np.ndarray]:
        counted = batch.tokens != config.pad_token_id
        before = np.concatenate([[0], np.cumsum(counted)])
        positions = (before[1:] - before[bounds[:-1]].repeat(batch.lengths)) * counted + config.pad_token_id
        return {"position_ids": positions, "token_type_ids": batch.types}


class _ModernBertLayout(UnpaddedLayout):
    """ModernBERT: layers with and without a sliding window; the head reads the first token or the mean of a pair."""

    def _layers(self, base: Any, inputs: dict[str, torch.Tensor], within: dict[str, Any]) -> torch.Tensor:
        no_masks = {"full_attention": None, "sliding_attention": None}
        hidden: torch.Tensor = base(**inputs, attention_mask=no_masks, **within).last_hidden_state
        return hidden

    def _head(self, model: Any, hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        if model.config.classifier_pooling == "mean":
            pooled = torch.segment_reduce(hidden[0].float(), "mean", lengths=cu_seqlens.diff().long(), unsafe=True)
        else:
            pooled = hidden[0, cu_seqlens[:-1].long()]
        logits: torch.Tensor = model.classifier(model.head(pooled))
        return logits


_LAYOUTS: dict[str, UnpaddedLayout] = {
    "BertForSequenceClassification": _BertLayout(),
    "RobertaForSequenceClassification": _RobertaLayout(),
    "XLMRobertaForSequenceClassification": _RobertaLayout(),
    "CamembertForSequenceClassification": _RobertaLayout(),
    "ModernBertForSequenceClassification": _ModernBertLayout(),
}


def unpadded_layout(model: PreTrainedModel) -> UnpaddedLayout | None:
    """Return how a model is called without padding; None if it cannot be.

    Only transformers' own classes qualify, whatever a configuration says: a subclass or a model with code of its own
    may compute something else under the same name.
    """
    name = type(model).__name__
    if name not in _LAYOUTS or getattr(transformers, name) is not type(model):
        return None
    causal = getattr(model.config, "is_decoder", False)  # a BERT that attends to the left only
    return None if causal else _LAYOUTS[name]


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
    sliding_window: int | None = None,
    first_tokens: bool = False,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention over [1, heads, tokens, size] within each pair; return [1, tokens, heads, size].

    With `sliding_window` a token attends to those less than so many tokens away. With `first_tokens` each pair has one
    query.
    """
    queries, longest = cu_seqlens, max_seqlen
    if first_tokens:
        queries, longest = torch.arange(len(cu_seqlens), dtype=torch.int32, device=query.device), 1
    attend = _attend_by_kernel if query.is_cuda else _attend_pair_by_pair
    reach = -1 if sliding_window is None else sliding_window - 1
    parts = (query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1))
    return attend(parts, (queries, cu_seqlens), (longest, max_seqlen), scaling, reach)[None], None


_States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_Bounds = tuple[torch.Tensor, torch.Tensor]


def _attend_by_kernel(states: _States, bounds: _Bounds, longest: tuple[int, int], scaling: float, reach: int) -> Any:
    """Compute attention over [tokens, heads, size] within the `bounds` of queries and of keys.

    A token sees those at most `reach` tokens away, all if that is -1.
    """
    size = states[0].shape[-1]
    if size % _KERNEL_SIZES:  # zeros change no product
        q, k, v = (pad(part, (0, -size % _KERNEL_SIZES)) for part in states)
    else:
        q, k, v = states
    attended: Any = varlen_attn(q, k, v, *bounds, *longest, scale=scaling, window_size=(reach, reach))
    return attended[..., :size]


def _attend_pair_by_pair(states: _States, bounds: _Bounds, longest: tuple[int, int], scaling: float, reach: int) -> Any:
    """Do as `_attend_by_kernel` by the plain attention, where there is no kernel."""
    queries, keys = (ends.diff().tolist() for ends in bounds)
    split = [part.transpose(0, 1).split(size, dim=1) for part, size in zip(states, (queries, keys, keys), strict=True)]
    done = [
        scaled_dot_product_attention(q, k, v, _band(k.shape[1], reach), scale=scaling)
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(done, dim=1).transpose(0, 1)


def _band(length: int, reach: int) -> torch.Tensor | None:
    """Return which tokens of a pair see each other, bool[length, length]; None if all do."""
    if reach < 0 or reach >= length - 1:
        return None
    places = torch.arange(length)
    return (places[:, None] - places).abs() <= reach
