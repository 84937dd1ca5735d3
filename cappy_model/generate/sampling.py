"""Sampling of the next token from logits, with exactly the filters of a decoding."""

import numpy as np
import torch

from cappy_model.generate.decodings import Decoding
from schemas.ids import seed_for

_FIRST_NUCLEUS = 256  # tokens sorted first for top_p; a nucleus is rarely larger, and sorting all tokens is slow


def uniforms(seed: int, decoding: Decoding, sample_index: int, count: int) -> np.ndarray:
    """Return the random numbers for the tokens of one sample, float64[count] in [0, 1), whatever its batch."""
    return np.random.Generator(np.random.Philox(seed_for(seed, decoding.name, str(sample_index)))).random(count)


def next_tokens(logits: torch.Tensor, decoding: Decoding, uniform: torch.Tensor) -> torch.Tensor:
    """Return the next token of each row, int64[n].

    `logits` float32[n, vocabulary]; `uniform` float64[n] in [0, 1). A sampled token is the first whose cumulative
    probability exceeds the number; at temperature 0 it is the most probable, the first of equal ones.
    """
    if not decoding.random:
        return logits.argmax(-1)
    weights, ids = kept(logits, decoding)
    cumulative = weights.double().cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, threshold, right=True).clamp(max=weights.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place))[:, 0]


def kept(logits: torch.Tensor, decoding: Decoding) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Apply the temperature and the filters of a decoding to `logits` float32[n, vocabulary].

    Returns weights float32[n, m] in proportion to the probabilities, 0 for filtered tokens, and their token ids
    int64[n, m]; None: the whole vocabulary in its order.
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
    """Set descending weights to 0 after the first ones that sum to `top_p`."""
    before = weights.cumsum(-1) - weights
    return weights.masked_fill(before >= top_p, 0)
