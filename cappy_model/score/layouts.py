"""Layouts: which pairs are computed together, and by which forward pass.

The layout of a model follows from its class and from what its head reads:

- padded: encoders that are known to compute the same with padding, whose heads read the first token or pool within the
  attention mask;
- unpadded: encoders of a few classes, on a GPU (see `unpadded`);
- last token: decoders, whose pairs may share the reading of their instruction (see `decoders`);
- equal lengths: all others, such as encoder-decoders, XLNet, models with code of their own, and those whose positions
  depend on the longest pair of a batch (LongRoPE). Nothing is padded, so whatever their heads read is what they would
  read in a pair alone.
"""

import inspect
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from cappy_model.architectures import DECODERS
from cappy_model.score.batching import shared_batches, similar_lengths, token_batches
from cappy_model.score.cross_encoder import PooledScorer
from cappy_model.score.decoders import last_token_logits, reads, shared_prefix_logits, shared_prefixes
from cappy_model.score.encoding import EncodedPairs
from cappy_model.score.forward import padded_logits
from cappy_model.score.heads import Head
from cappy_model.score.unpadded import UnpaddedLayout, unpadded_layout

# Encoders whose scores do not depend on padding on the right. Those of others can: convolutions, Fourier transforms,
# landmarks and blocks mix padding into the texts, and XLNet reads the last position.
_PADDABLE = frozenset(
    {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text"}
    | {"bert", "megatron-bert", "mobilebert", "squeezebert", "rembert", "ernie", "electra", "albert", "distilbert"}
    | {"mpnet", "deberta", "deberta-v2", "modernbert", "eurobert", "esm", "funnel", "longformer", "xlm", "flaubert"}
)
_SHAREABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})


class Layout(Protocol):
    """How the pairs of a model are batched and computed."""

    def batches(self, pairs: EncodedPairs, budget: int) -> list[np.ndarray]:
        """Group pairs into batches of at most `budget` tokens, each int64[m] row numbers; every pair is in one."""

    def padding(self, pairs: EncodedPairs) -> int:
        """Return the tokens of padding in a batch."""

    def logits(self, model: Any, pairs: EncodedPairs, device: torch.device) -> torch.Tensor:
        """Return the logits of a batch on `device`, [n, labels]."""


@dataclass(frozen=True)
class Padded:
    """Pairs of similar length, padded on the right."""

    def batches(self, pairs: EncodedPairs, budget: int) -> list[np.ndarray]:
        """See `Layout`."""
        return token_batches(pairs.lengths, budget, padded=True)

    def padding(self, pairs: EncodedPairs) -> int:
        """See `Layout`."""
        return int(pairs.lengths.max()) * len(pairs.lengths) - len(pairs.tokens)

    def logits(self, model: Any, pairs: EncodedPairs, device: torch.device) -> torch.Tensor:
        """See `Layout`."""
        return padded_logits(model, pairs, device)


@dataclass(frozen=True)
class Unpadded:
    """Pairs of any length, as one row without padding."""

    forward: UnpaddedLayout

    def batches(self, pairs: EncodedPairs, budget: int) -> list[np.ndarray]:
        """See `Layout`."""
        return token_batches(pairs.lengths, budget, padded=False)

    def padding(self, pairs: EncodedPairs) -> int:
        """See `Layout`."""
        return 0

    def logits(self, model: Any, pairs: EncodedPairs, device: torch.device) -> torch.Tensor:
        """See `Layout`."""
        return self.forward.logits(model, pairs, device)


@dataclass(frozen=True)
class EqualLengths:
    """Pairs of equal length, with equally many end tokens, by which encoder-decoders find what their head reads.

    `lock` is held during the forward pass, for models that change themselves in it; the lanes of a CPU share one.
    """

    head: Head
    end: int | None
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def batches(self, pairs: EncodedPairs, budget: int) -> list[np.ndarray]:
        """See `Layout`."""
        starts = np.cumsum(pairs.lengths) - pairs.lengths
        ends = np.add.reduceat((pairs.tokens == self.end).astype(np.int64), starts)
        alike: dict[tuple[int, int], list[int]] = {}
        for row, key in enumerate(zip(pairs.lengths.tolist(), ends.tolist(), strict=True)):
            alike.setdefault(key, []).append(row)
        groups = [np.array(alike[key], dtype=np.int64) for key in sorted(alike, reverse=True)]
        return [rows[part] for rows in groups for part in token_batches(pairs.lengths[rows], budget, padded=True)]

    def padding(self, pairs: EncodedPairs) -> int:
        """See `Layout`."""
        return 0

    def logits(self, model: Any, pairs: EncodedPairs, device: torch.device) -> torch.Tensor:
        """See `Layout`."""
        with self.lock:
            logits = padded_logits(model, pairs, device)
        return logits[:, -1, list(self.head.tokens)] if self.head.tokens else logits


@dataclass(frozen=True)
class LastToken:
    """Pairs of a decoder, padded on the right; with `shares` the pairs of an instruction share its keys and values.

    `pad` is the padding token by which a classifier finds the token that its head reads, as its folder has it.
    """

    head: Head
    pad: int | None
    shares: bool

    def batches(self, pairs: EncodedPairs, budget: int) -> list[np.ndarray]:
        """See `Layout`."""
        prefixes = self._prefixes(pairs)
        alone, shared = np.flatnonzero(prefixes == 0), np.flatnonzero(prefixes)
        batches = [alone[rows] for rows in token_batches(pairs.lengths[alone], budget, padded=True)]
        together = shared_batches(pairs.lengths[shared], prefixes[shared], pairs.groups[shared], budget)
        return [*(shared[rows] for rows in together), *batches]

    def padding(self, pairs: EncodedPairs) -> int:
        """See `Layout`."""
        prefixes = self._prefixes(pairs)
        alone, shared = np.flatnonzero(prefixes == 0), np.flatnonzero(prefixes)
        rest = (pairs.lengths - prefixes)[shared]
        _, firsts = np.unique(pairs.groups[shared], return_index=True)
        parts = (pairs.lengths[alone], prefixes[shared][firsts], *(rest[part] for part in similar_lengths(rest)))
        return sum(int(part.max(initial=0)) * len(part) - int(part.sum()) for part in parts)

    def logits(self, model: Any, pairs: EncodedPairs, device: torch.device) -> torch.Tensor:
        """See `Layout`."""
        prefixes, read = self._prefixes(pairs), self._reads(pairs)
        alone, shared = np.flatnonzero(prefixes == 0), np.flatnonzero(prefixes)
        if not len(shared):
            return last_token_logits(model, pairs, read, self.head, device)
        kept = pairs.take(shared)
        logits = shared_prefix_logits(model, kept, prefixes[shared], read[shared], self.head, device)
        if not len(alone):
            return logits
        rest = last_token_logits(model, pairs.take(alone), read[alone], self.head, device)
        back = torch.from_numpy(np.argsort(np.concatenate([shared, alone]))).to(device)
        return torch.cat([logits, rest])[back]

    def _reads(self, pairs: EncodedPairs) -> np.ndarray:
        return reads(pairs, None if self.head.tokens else self.pad)

    def _prefixes(self, pairs: EncodedPairs) -> np.ndarray:
        if not self.shares:
            return np.zeros(len(pairs.lengths), dtype=np.int64)
        return shared_prefixes(pairs, self._reads(pairs))


def layout_for(model: Any, head: Head, *, pad: int | None, unpadded: bool, share_prefixes: bool = True) -> Layout:
    """Return the layout of a model.

    `pad` is the padding token in the model's own config. With `unpadded`, models of the classes that allow it are
    computed without padding; with `share_prefixes`, decoders that allow it read an instruction once.
    """
    found = unpadded_layout(model)
    if found is not None:
        return Unpadded(found) if unpadded else Padded()
    pools = isinstance(model, PooledScorer)
    inner = model.encoder if pools else model
    kind, changes_itself = inner.config.model_type, _rotates_by_length(inner.config)
    if is_own_class(inner) and not changes_itself:
        if kind in _PADDABLE or (pools and kind in DECODERS):
            return Padded()
        if kind in DECODERS and (hasattr(model, "score") or head.tokens) and _takes(model.base_model, "use_cache"):
            return LastToken(head, pad, share_prefixes and _can_share(model))
    return EqualLengths(head, model.config.eos_token_id, Lock() if changes_itself else nullcontext())


def is_own_class(model: Any) -> bool:
    """Return whether a model is of a class of transformers itself, whatever its config calls it."""
    return getattr(transformers, type(model).__name__, None) is type(model)


def _rotates_by_length(config: PreTrainedConfig) -> bool:
    """Return whether the positions of a model are rotated by angles that depend on the longest pair of a batch."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope.get("rope_type"), *(one.get("rope_type") for one in rope.values() if isinstance(one, dict))]
    return "longrope" in kinds or "dynamic" in kinds


def _can_share(model: PreTrainedModel) -> bool:
    """Return whether a decoder keeps nothing but keys and values of its prefix, at positions that can be given."""
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    names = ("position_ids", "past_key_values")
    stateful = getattr(model, "_is_stateful", False)
    return layers <= _SHAREABLE_LAYERS and not stateful and all(_takes(model.base_model, name) for name in names)


def _takes(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters
