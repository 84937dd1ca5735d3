"""Encoders and encoder-decoders of every family against transformers' plain forward, one pair at a time."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from cappy_model.checkpoints import ModelError
from cappy_model.score.scorer import Scorer
from tests.cappy_model.score.families import ENCODERS, edit_json, save_encoder
from tests.cappy_model.score.pairs import long_pairs, short_pairs
from tests.cappy_model.score.references import TOLERANCE, classifier_logits, encoder_logits, split

MAX_LENGTH = 64
PAIRS = [*short_pairs(), *long_pairs(60)]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in ENCODERS},
    "modernbert-mean": ("modernbert", {"classifier_pooling": "mean"}),
    "deberta-conv": ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu"}),
}


class Tiny(NamedTuple):
    """A model, and the scores of `PAIRS` by transformers alone."""

    folder: Path
    plain: np.ndarray


def scorer_of(folder: Path, **options: Any) -> Scorer:
    return Scorer.from_pretrained(str(folder), device="cpu", dtype="float32", **options)


@pytest.fixture(scope="module", params=VARIANTS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    family, settings = VARIANTS[request.param]
    folder = save_encoder(tmp_path_factory.mktemp(request.param), family, **settings)
    return Tiny(folder, encoder_logits(folder, PAIRS, MAX_LENGTH)[:, 0])


@pytest.mark.parametrize("tokens", [64, 4096])
def test_scores_equal_the_plain_forward(tiny: Tiny, tokens: int) -> None:
    found = scorer_of(tiny.folder, tokens_per_batch=tokens).score(*split(PAIRS))
    assert tiny.plain.std() > 0.1 and len(np.unique(tiny.plain.round(4))) > len(PAIRS) / 2
    assert np.abs(found - tiny.plain).max() < TOLERANCE


def test_lengths_and_cuts_are_those_of_the_tokenizer(tiny: Tiny) -> None:
    scored = scorer_of(tiny.folder).score_pairs(*split(PAIRS))
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    whole = np.array([len(tokenizer([a], [b])["input_ids"][0]) for a, b in PAIRS])
    assert scored.num_tokens.tolist() == whole.clip(max=MAX_LENGTH).tolist()
    assert scored.truncated.tolist() == (whole > MAX_LENGTH).tolist()
    assert 3 <= scored.truncated.sum() < len(PAIRS) / 3


def test_a_pair_has_the_same_score_whatever_stands_beside_it(tiny: Tiny) -> None:
    scorer, pairs = scorer_of(tiny.folder), PAIRS[::7]
    alone = np.concatenate([scorer.score(*split([pair])) for pair in pairs])
    assert np.abs(alone - tiny.plain[::7]).max() < TOLERANCE
    backwards = scorer.score(*split(PAIRS[::-1]))[::-1]
    assert np.abs(backwards - tiny.plain).max() < TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["xlnet", "t5", "roberta"])
def test_the_padding_side_of_the_tokenizer_does_not_matter(family: str, side: str, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, family)
    edit_json(folder / "tokenizer_config.json", padding_side=side)
    found = scorer_of(folder, tokens_per_batch=4096).score(*split(PAIRS))
    assert np.abs(found - encoder_logits(folder, PAIRS, MAX_LENGTH)[:, 0]).max() < TOLERANCE


# Labels of natural language inference, and of a scale of stars.
NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}
STARS = {place: f"{place + 1} star{'s' if place else ''}" for place in range(5)}


def several(tmp_path: Path, family: str, labels: dict[int, str]) -> Path:
    names = {"id2label": labels, "label2id": {name: place for place, name in labels.items()}}
    return save_encoder(tmp_path / family, family, num_labels=len(labels), **names)


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "t5", "modernbert", "xlnet"])
@pytest.mark.parametrize(("head", "place"), [("entailment", 2), ("contradiction", 0), ("1", 1)])
def test_one_of_several_logits(family: str, head: str, place: int, tmp_path: Path) -> None:
    folder, pairs = several(tmp_path, family, NLI), PAIRS[::3]
    plain = encoder_logits(folder, pairs, MAX_LENGTH)
    assert np.abs(np.delete(plain, place, axis=1) - plain[:, [place]]).mean() > 0.01
    assert np.abs(scorer_of(folder, head=head).score(*split(pairs)) - plain[:, place]).max() < TOLERANCE


@pytest.mark.parametrize("family", ["bert", "bart"])
def test_expected_is_the_mean_of_the_labels_values(family: str, tmp_path: Path) -> None:
    folder, pairs = several(tmp_path, family, STARS), PAIRS[::3]
    chances = torch.tensor(encoder_logits(folder, pairs, MAX_LENGTH)).softmax(dim=1).numpy()
    plain = chances @ np.arange(1, 6)
    found = scorer_of(folder, head="expected").score(*split(pairs))
    assert plain.std() > 0.1 and (plain > 1).all() and (plain < 5).all()
    assert np.abs(found - plain).max() < TOLERANCE


def refusal(folder: Path, **options: Any) -> str:
    """Return the sentence by which a model is refused."""
    with pytest.raises(ModelError) as error:
        scorer_of(folder, **options)
    return str(error.value)


def test_heads_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    three, one = several(tmp_path, "bert", NLI), save_encoder(tmp_path / "one", "bert")
    for head in (None, "entailed", "3", "-1", "", "yes,no"):
        said = refusal(three, head=head)
        assert all(label in said for label in NLI.values()) and "--head" in said
    assert "contradiction" in refusal(three, head="expected") and "number" in refusal(three, head="expected")
    assert "one logit" in refusal(one, head="entailment") and "one logit" in refusal(one, head="expected")
    assert np.isfinite(scorer_of(one, head="0").score(["a"], ["b"])).all()


def test_one_pair_that_makes_the_model_fail_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model raises for a batch, its other pairs have the scores that they have anyway."""
    embed = torch.nn.Embedding.forward

    def failing(layer: torch.nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if layer.num_embeddings == size and bool((tokens == unlucky).any()):
            raise RuntimeError("a token\nthat nobody expected")
        return embed(layer, tokens)

    for family in ("roberta", "t5", "xlnet"):
        folder = save_encoder(tmp_path / family, family)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        pairs = [(a, b) for a, b in PAIRS if "7" not in a + b]
        pairs.insert(5, ("What is it?", "7"))
        size, unlucky = len(tokenizer), tokenizer("7", add_special_tokens=False)["input_ids"][-1]
        wanted = scorer_of(folder, tokens_per_batch=4096).score(*split(pairs))
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Embedding, "forward", failing)
            found = scorer_of(folder, tokens_per_batch=4096).score_pairs(*split(pairs))
        assert list(found.errors) == [5] and np.isnan(found.scores[5])
        assert "a token that nobody expected" in found.errors[5]
        assert np.abs(np.delete(found.scores - wanted, 5)).max() < TOLERANCE


def test_a_template_for_an_encoder(tmp_path: Path) -> None:
    """A template makes one text of the pair, in the frame of a single text."""
    folder, template = save_encoder(tmp_path, "roberta"), "Q: {{ instruction }} A: {{ response }}"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [f"Q: {a} A: {b}" for a, b in PAIRS]
    fit = [place for place, text in enumerate(texts) if len(tokenizer(text)["input_ids"]) <= MAX_LENGTH]
    assert len(fit) > len(PAIRS) / 2
    plain = classifier_logits(folder, (tokenizer(texts[place], return_tensors="pt") for place in fit))[:, 0]
    scored = scorer_of(folder, template=template).score_pairs(*split(PAIRS))
    assert np.abs(scored.scores[fit] - plain).max() < TOLERANCE
    assert scored.truncated.sum() == len(PAIRS) - len(fit)
