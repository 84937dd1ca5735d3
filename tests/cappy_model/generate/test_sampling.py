"""Filters against transformers' own warpers, and samples against the distribution they are drawn from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from cappy_model.generate import sampling
from cappy_model.generate.decodings import PRESETS, Decoding, decodings_named
from cappy_model.generate.sampling import kept, next_tokens, uniforms
from schemas.errors import UsageError

DECODINGS = st.builds(
    Decoding,
    name=st.just("any"),
    samples=st.integers(1, 4),
    temperature=st.sampled_from([0.5, 0.9, 1.0, 1.7]),
    top_k=st.none() | st.integers(1, 500),
    top_p=st.none() | st.sampled_from([0.05, 0.5, 0.95, 0.999]),
)


def distribution(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """What `kept` says, as probabilities of the whole vocabulary."""
    weights, ids = kept(logits, decoding)
    whole = weights if ids is None else torch.zeros_like(logits).scatter(1, ids, weights)
    return whole / whole.sum(-1, keepdim=True)


def by_the_library(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(decoding.temperature)])
    if decoding.top_k is not None:
        warpers.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p is not None:
        warpers.append(TopPLogitsWarper(decoding.top_p))
    return warpers(torch.zeros((len(logits), 1), dtype=torch.int64), logits).softmax(-1)


@given(DECODINGS, st.integers(0, 2**32), st.integers(1, 400), st.sampled_from([0.1, 1.0, 5.0]))
def test_filters_are_those_of_transformers(decoding: Decoding, seed: int, vocabulary: int, spread: float) -> None:
    logits = torch.randn((3, vocabulary), generator=torch.Generator().manual_seed(seed)) * spread
    found, wanted = distribution(logits, decoding), by_the_library(logits, decoding)
    assert (found - wanted).abs().max() < 1e-5


def test_a_nucleus_larger_than_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_FIRST_NUCLEUS", 4)
    logits, decoding = torch.randn((5, 300)), Decoding("p", samples=2, top_p=0.9)
    assert (distribution(logits, decoding) - by_the_library(logits, decoding)).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["sampling", "temp0.9", "topk40", "topp0.95"])
def test_frequencies_are_those_of_the_filtered_distribution(name: str) -> None:
    decoding, count = PRESETS[name], 20_000
    logits = torch.randn((1, 120), generator=torch.Generator().manual_seed(7)) * 2
    wanted = by_the_library(logits, decoding)[0].double().numpy()
    numbers = torch.from_numpy(uniforms(11, decoding, 0, count))
    tokens = next_tokens(logits.expand(count, -1), decoding, numbers).numpy()
    seen = np.bincount(tokens, minlength=120)
    assert not seen[wanted == 0].any()
    common = wanted * count >= 5
    observed = np.array([*seen[common], seen[~common].sum()])
    expected = np.array([*wanted[common], wanted[~common].sum()])
    expected *= observed.sum() / expected.sum()
    assert chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_uniform_numbers_belong_to_the_sample_alone() -> None:
    decoding = PRESETS["sampling"]
    assert uniforms(1, decoding, 0, 5).tolist() == uniforms(1, decoding, 0, 9)[:5].tolist()
    others = [uniforms(2, decoding, 0, 5), uniforms(1, decoding, 1, 5), uniforms(1, PRESETS["temp0.9"], 0, 5)]
    assert all((uniforms(1, decoding, 0, 5) != other).all() for other in others)


def test_the_likeliest_token_is_the_first_of_equals() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [9.0, 0.0, 0.0]])
    assert next_tokens(logits, PRESETS["greedy"], torch.zeros(2)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "has no name"),
        ({"samples": 0}, "samples is 0"),
        ({"beams": 0}, "beams is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"beams": 4, "samples": 2}, "2 samples would be the same"),
        ({"temperature": 0.0, "samples": 3}, "3 samples would be the same"),
        ({"beams": 4, "top_k": 9}, "filters of sampling"),
        ({"beams": 4, "temperature": 0.7}, "a beam search has no temperature"),
    ],
)
def test_decodings_that_make_no_sense(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Decoding(**{"name": "mine", **values})  # type: ignore[arg-type]


def test_decodings_by_name() -> None:
    mine = Decoding("mine", samples=2)
    assert decodings_named(["beam4", "mine"], {"mine": mine}) == (PRESETS["beam4"], mine)
    with pytest.raises(UsageError, match="unknown decoding 'beam5': choose from beam4, sampling"):
        decodings_named(["beam5"], {})
    with pytest.raises(UsageError, match="'beam4' is named twice"):
        decodings_named(["beam4", "beam4"], {})
