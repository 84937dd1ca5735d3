"""From the logits of the next token to the token that a decoding takes, with exactly the filters that it names."""

import numpy as np
import torch

from cappy_model.generate.decodings import Decoding
from schemas.ids import seed_for

_FIRST_NUCLEUS = 256  # likeliest tokens looked at first for top_p; a nucleus is rarely larger, and sorting all is slow


def uniforms(seed: int, decoding: Decoding, sample_index: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, for the tokens of one sample: the same whatever it is computed beside."""
    return np.random.Generator(np.random.Philox(seed_for(seed, decoding.name, str(sample_index)))).random(count)


def next_tokens(logits: torch.Tensor, decoding: Decoding, uniform: torch.Tensor) -> torch.Tensor:
    """The next token of each row, int64[n], for logits float32[n, vocabulary] and a uniform number float64[n] of each.

    A sampled token is the one at which the cumulative probability passes the number; the likeliest one at
    temperature 0, the first of equals.
    """
    if not decoding.random:
        return logits.argmax(-1)
    weights, ids = kept(logits, decoding)
    cumulative = weights.double().cumsum(-1)
    wanted = uniform[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, wanted, right=True).clamp(max=weights.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place))[:, 0]


def kept(logits: torch.Tensor, decoding: Decoding) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a decoding draws from: weights float32[n, m] in proportion to probabilities, 0 for what is filtered out.

    And the token ids int64[n, m] that they belong to; None: all of the vocabulary in its order.
    """
    logits = logits / decoding.temperature
    if decoding.top_k is not None:
        values, ids = logits.topk(min(decoding.top_k, logits.shape[1]))
        weights = values.softmax(-1)
        return (weights if decoding.top_p is None else _nucleus(weights, decoding.top_p)), ids
    if decoding.top_p is None or decoding.top_p == 1:
        return logits.softmax(-1), None
    total = logits.logsumexp(-1, keepdim=True)
    width = _FIRST_NUCLEUS
    while True:
        values, ids = logits.topk(min(width, logits.shape[1]))
        weights = (values - total).exp()
        if width >= logits.shape[1] or bool((weights.sum(-1) >= decoding.top_p).all()):
            return _nucleus(weights, decoding.top_p), ids
        width *= 8


def _nucleus(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """Descending weights without those behind the first ones that add up to `top_p`."""
    before = weights.cumsum(-1) - weights
    return weights.masked_fill(before >= top_p, 0)
