"""Decoders, with one logit and as language models that answer yes or no, against transformers' plain forward."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from cappy_model.checkpoints import ModelError, ModelSource, find_checkpoint
from cappy_model.score.layouts import LastToken
from cappy_model.score.loading import settle_scorer
from cappy_model.score.scorer import Scorer
from tests.cappy_model.score.families import DECODERS, save_decoder
from tests.cappy_model.score.pairs import TextPair, long_pairs, short_pairs
from tests.cappy_model.score.references import TOLERANCE, chat_ids, chat_logits, split, word_logits

PAIRS = [*short_pairs(), *long_pairs(40)]
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": 48,
    "short_factor": [1.0] * 4,
    "long_factor": [1.5, 2.0, 3.0, 4.0],
}
_ENDS_WITH_TOKEN_0 = {
    "tokens": {"pad_token": None},
    "chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ bos_token }}{% endfor %}",
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in DECODERS},
    # A classifier reads the last token that is not the padding token: here the one before the end.
    "llama-pad-is-end": ("llama", {"tokens": {"pad_token": "<|eot_id|>"}}),
    "mistral-pad-is-end": ("mistral", {"tokens": {"pad_token": "</s>"}}),
    # Without one in its config, it reads the last token, whatever the tokenizer pads with.
    "llama-no-pad-in-config": ("llama", {"tokens": {"pad_token": "<|eot_id|>"}, "pad_token_id": None}),
    "gpt2-no-pad-in-config": ("gpt2", {"pad_token_id": None}),
    "qwen2-left": ("qwen2", {"tokens": {"padding_side": "left"}}),
    "gpt2-left": ("gpt2", {"tokens": {"padding_side": "left"}}),
    "qwen2-windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    # Rotations that depend on the longest text of a batch, here on whether it has more than 48 tokens.
    "llama-longrope": ("llama", {"rope_parameters": _LONGROPE}),
    "llama-longrope-no-pad": ("llama", {"rope_parameters": _LONGROPE, "pad_token_id": None, **_ENDS_WITH_TOKEN_0}),
}


class Tiny(NamedTuple):
    """A model, and the scores of `PAIRS` by transformers alone."""

    folder: Path
    plain: np.ndarray


def scorer_of(folder: Path, **options: Any) -> Scorer:
    return Scorer.from_pretrained(str(folder), device="cpu", dtype="float32", **options)


def encoder_of(folder: Path, **options: Any) -> Any:
    return settle_scorer(find_checkpoint(ModelSource(str(folder))), **options).encoder


def tokens_of(encoded: Any) -> list[list[int]]:
    """Return the token ids of each encoded pair."""
    return [ids.tolist() for ids in np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])]


@pytest.fixture(scope="module", params=VARIANTS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    family, changes = VARIANTS[request.param]
    folder = save_decoder(tmp_path_factory.mktemp(request.param), family, **changes)
    return Tiny(folder, chat_logits(folder, PAIRS)[:, 0])


@pytest.mark.parametrize("tokens", [64, 4096])
@pytest.mark.parametrize("shares", [True, False])
def test_scores_equal_the_plain_forward_over_the_chat_template(tiny: Tiny, tokens: int, shares: bool) -> None:
    found = scorer_of(tiny.folder, tokens_per_batch=tokens, share_prefixes=shares, max_length=512).score(*split(PAIRS))
    assert tiny.plain.std() > 0.1 and len(np.unique(tiny.plain.round(4))) > len(PAIRS) / 2
    assert np.abs(found - tiny.plain).max() < TOLERANCE


def test_token_ids_are_those_of_apply_chat_template(tiny: Tiny) -> None:
    encoded = encoder_of(tiny.folder, max_length=512).encode(*split(PAIRS))
    assert not encoded.truncated.any()
    assert tokens_of(encoded) == chat_ids(tiny.folder, PAIRS)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "gpt2"])
def test_pairs_that_share_an_instruction_share_its_tokens(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_decoder(tmp_path, family)
    pairs = [("What is the answer? " * 20, f"yes {number}") for number in range(17)]
    embed, computed = torch.nn.Embedding.forward, [0]

    def counting(layer: torch.nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        computed[0] += tokens.numel()
        return embed(layer, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", counting)
    found, work = [], []
    for shares in (True, False):
        computed[0] = 0
        scorer = scorer_of(folder, share_prefixes=shares, tokens_per_batch=4096)
        found.append(scorer.score_pairs(*split(pairs)))
        work.append(computed[0])
    assert found[1].scores.std() > 0.01
    assert np.abs(found[0].scores - found[1].scores).max() < TOLERANCE
    assert (found[0].num_tokens == found[1].num_tokens).all()
    assert work[0] * 6 < work[1]


# What comes before, between and after the two texts in the makers' templates, where contents are not changed.
FRAMES = {
    "qwen2": (
        "<|im_start|>system\nYou judge.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "gpt2": ("user: ", "<|endoftext|>assistant: ", "<|endoftext|>"),
}
TEXTS = st.text(st.sampled_from("abc yes no\n.,你好é🦊"), max_size=150)


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_decoder(tmp_path_factory.mktemp(family), family) for family in FRAMES}


def is_cut_of(part: str, whole: str) -> bool:
    """Return whether `part` is a head and a tail of `whole`."""
    return any(whole.startswith(part[:k]) and whole[k:].endswith(part[k:]) for k in range(len(part) + 1))


@pytest.mark.parametrize("family", FRAMES)
@given(instruction=TEXTS, response=TEXTS, max_length=st.integers(60, 160))
@settings(max_examples=40)
@example(instruction="no " * 100, response="yes", max_length=64)
@example(instruction="no", response="你好 " * 100, max_length=64)
@example(instruction="", response="🦊" * 100, max_length=64)
def test_cuts_leave_the_frame_and_the_end_of_the_response(
    framed: dict[str, Path], family: str, instruction: str, response: str, max_length: int
) -> None:
    encoded = encoder_of(framed[family], max_length=max_length).encode([instruction], [response])
    (whole,) = chat_ids(framed[family], [(instruction, response)])
    assert len(encoded.tokens) == encoded.lengths[0] <= max_length
    assert bool(encoded.truncated[0]) == (len(whole) > max_length)
    if not encoded.truncated[0]:
        assert encoded.tokens.tolist() == whole
        return
    before, between, after = FRAMES[family]
    text = AutoTokenizer.from_pretrained(framed[family]).decode(encoded.tokens)
    assert text.startswith(before) and text.endswith(after) and text.count(between) == 1
    first, second = text[len(before) : len(text) - len(after)].split(between)
    assert is_cut_of(first, instruction) and is_cut_of(second, response)
    if second != response:  # the instruction goes first, but for a last token at the edge
        assert len(first) <= 4 and second and response.endswith(second[-1])
    # No more is cut than has to be: texts that are cut can be tokenized otherwise at the cut.
    assert len(encoded.tokens) >= max_length - 8


def test_a_cut_pair_is_scored_as_what_is_left_of_it(tmp_path: Path) -> None:
    folder, pairs = save_decoder(tmp_path, "llama"), long_pairs(120)
    scored = scorer_of(folder, max_length=80).score_pairs(*split(pairs))
    assert scored.truncated.tolist() == [True, True, True, True, False] and scored.num_tokens.max() <= 80
    encoded = encoder_of(folder, max_length=80).encode(*split(pairs))
    texts = AutoTokenizer.from_pretrained(folder).batch_decode(
        np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])
    )
    left = [text.removesuffix("<|eot_id|>").split("<|eot_id|>") for text in texts]
    pairs_left = [tuple(part.partition("<|end_header_id|>\n\n")[2] for part in parts) for parts in left]
    assert np.abs(scored.scores - chat_logits(folder, pairs_left)[:, 0]).max() < TOLERANCE


# Yes or no: the prompt of Qwen3-Reranker's makers as the docs have it, and a prompt that ends in a question.
DOCS = Path(__file__).parents[3] / "docs" / "models.md"
QWEN_RERANKER = re.findall(r"```jinja\n(.*?)```", DOCS.read_text(), re.DOTALL)[0]
QUESTION = "{{ bos_token }}A: {{ instruction }}\nB: {{ response }}\nYes or No?"
READERS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "qwen3": ("qwen3", {}, QWEN_RERANKER, "yes,no"),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True}, QWEN_RERANKER, "yes,no"),
    "qwen2-one-word": ("qwen2", {}, QWEN_RERANKER, "yes"),
    "gemma": ("gemma", {}, QUESTION, "Yes"),
    "gemma2-softcap": ("gemma2", {"final_logit_softcapping": 2.0}, QUESTION, "Yes,No"),
    "gemma3": ("gemma3", {}, QUESTION, "yes,no"),
    "mistral": ("mistral", {"tokens": {"pad_token": "</s>"}}, QUESTION, "▁yes,▁no"),
    "gpt2": ("gpt2", {}, QUESTION.replace("{{ bos_token }}", ""), "yes,no"),
}


def test_the_prompt_in_the_docs_is_that_of_its_makers() -> None:
    (prompt,) = rendered(QWEN_RERANKER, [("q", "d")], "")
    task = "Given a web search query, retrieve relevant passages that answer the query"
    assert f"<|im_start|>user\n<Instruct>: {task}\n<Query>: q\n<Document>: d<|im_end|>\n" in prompt
    assert prompt.startswith("<|im_start|>system\nJudge whether the Document meets the requirements")
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


def rendered(template: str, pairs: Iterable[TextPair], bos: str) -> list[str]:
    """Render without jinja; jinja drops one newline at the end of a template."""
    text = template.removesuffix("\n").replace("{{ bos_token }}", bos)
    before, between, after = text.replace("{{ response }}", "{{ instruction }}").split("{{ instruction }}")
    return [before + instruction + between + response + after for instruction, response in pairs]


@pytest.mark.parametrize("name", READERS)
def test_yes_or_no_is_the_difference_of_two_logits_at_the_last_position(name: str, tmp_path: Path) -> None:
    family, changes, template, head = READERS[name]
    folder = save_decoder(tmp_path, family, kind="causal", chat_template=None, **changes)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = word_logits(folder, rendered(template, PAIRS, tokenizer.bos_token or ""), head.split(","))
    plain = logits[:, 0] - (logits[:, 1] if "," in head else 0)
    assert plain.std() > 0.1
    for shares, tokens in ((True, 4096), (False, 64)):
        options = {"share_prefixes": shares, "tokens_per_batch": tokens, "max_length": 512}
        found = scorer_of(folder, head=head, template=template, **options).score(*split(PAIRS))
        assert np.abs(found - plain).max() < TOLERANCE


def test_a_chat_template_of_query_and_document(tmp_path: Path) -> None:
    template = (
        "{% set q = messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first %}"
        "{% set d = messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first %}"
        "<|im_start|>user\n{{ q }}\n{{ d }}<|im_end|>\n<|im_start|>assistant\n"
    )
    folder = save_decoder(tmp_path, "qwen3", kind="causal", chat_template=template)
    prompts = [f"<|im_start|>user\n{a}\n{b}<|im_end|>\n<|im_start|>assistant" for a, b in PAIRS]
    logits = word_logits(folder, prompts, ["yes", "no"])
    found = scorer_of(folder, head="yes,no").score(*split(PAIRS))
    assert np.abs(found - (logits[:, 0] - logits[:, 1])).max() < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_decoder_with_several_logits(family: str, tmp_path: Path) -> None:
    labels = {0: "bad", 1: "good"}
    names = {"id2label": labels, "label2id": {"bad": 0, "good": 1}, "num_labels": 2}
    folder = save_decoder(tmp_path, family, **names)
    plain = chat_logits(folder, PAIRS)
    assert np.abs(scorer_of(folder, head="good").score(*split(PAIRS)) - plain[:, 1]).max() < TOLERANCE


def test_template_none_is_the_plain_pair_and_chat_the_makers_template(tmp_path: Path) -> None:
    folder, pairs = save_decoder(tmp_path, "llama"), PAIRS[:20]
    assert (
        np.abs(scorer_of(folder, template="chat").score(*split(pairs)) - chat_logits(folder, pairs)[:, 0]).max() < 1e-5
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = encoder_of(folder, template="none").encode(*split(pairs))
    wanted = [tokenizer([a], [b])["input_ids"][0] for a, b in pairs]
    assert tokens_of(encoded) == wanted


# Bad inputs.
def refusal(folder: Path, **options: Any) -> str:
    """Return the sentence by which a model is refused."""
    with pytest.raises(ModelError) as error:
        scorer_of(folder, **options)
    return str(error.value)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("reward"), "qwen2")


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that does not say how it reads a pair."""
    return save_decoder(tmp_path_factory.mktemp("silent"), "gpt2", chat_template=None)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if instruction %}{{ response }}", "jinja"),
        ("{{ instruction }", "jinja"),
        ("{{ instruction }}", "ignores the response"),
        ("{{ response }}", "ignores the instruction"),
        ("", "ignores"),
        ("{{ prompt }} {{ response }}", "prompt"),
        ("{{ ''.__class__.__mro__ }}{{ instruction }}{{ response }}", "template"),
        ("{{ cycler.__init__.__globals__ }}{{ instruction }}{{ response }}", "template"),
        ("{{ instruction }}{{ response }}{% for i in range(10**12) %}{% endfor %}", "template"),
    ],
)
def test_templates_that_are_no_use_are_refused(reward: Path, template: str, reason: str) -> None:
    assert reason in refusal(reward, template=template)


def test_a_decoder_that_says_nothing_is_refused_by_the_name_of_the_flag(silent: Path) -> None:
    assert "--template" in refusal(silent) and "chat template" in refusal(silent)
    assert "--template" in refusal(silent, template="chat")
    assert np.isfinite(scorer_of(silent, template="none").score(["a"], ["b"])).all()


def test_words_that_are_no_single_token_are_refused(tmp_path: Path) -> None:
    folder = save_decoder(tmp_path, "qwen3", kind="causal")
    for head in ("yessir,no", "yes,nope", "yes,no,maybe", "yes,", ",", "", "你,no"):
        said = refusal(folder, head=head)
        assert "--head" in said and head in said
    assert "--head" in refusal(folder)  # a language model has no score of its own


def test_a_pair_without_a_token_is_an_error_of_its_own(silent: Path) -> None:
    pairs = [("What is it?", "yes"), ("", ""), ("no", "maybe"), ("What is it?", "no"), ("", "yes")]
    scorer = scorer_of(silent, template="none")
    scored = scorer.score_pairs(*split(pairs))
    assert list(scored.errors) == [1] and "token" in scored.errors[1]
    kept = [pair for pair in pairs if any(pair)]
    assert np.isnan(scored.scores[1])
    assert np.abs(np.delete(scored.scores, 1) - scorer.score(*split(kept))).max() < TOLERANCE


def test_a_pair_that_the_template_cannot_render_is_an_error_of_its_own(reward: Path) -> None:
    template = "{{ instruction }}: {{ response }}{% if 'boom' in response %}{{ 1 / 0 }}{% endif %}"
    pairs = [("What is it?", text) for text in ("yes", "no", "boom", "maybe")]
    scored = scorer_of(reward, template=template).score_pairs(*split(pairs))
    assert list(scored.errors) == [2] and "division" in scored.errors[2]
    kept = scorer_of(reward, template="{{ instruction }}: {{ response }}").score(*split(pairs))
    assert np.abs(np.delete(scored.scores - kept, 2)).max() < TOLERANCE


def test_out_of_memory_halves_a_batch_of_shared_instructions(reward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [f"Which animal is quick, number {number}? " * 8 for number in range(6)]
    pairs = [(instruction, f"the fox {row}") for instruction in asked for row in range(17)]
    wanted = scorer_of(reward, tokens_per_batch=4096, max_length=512).score(*split(pairs))
    scorer, compute = scorer_of(reward, tokens_per_batch=4096, max_length=512), LastToken.logits

    def with_little_memory(layout: LastToken, model: Any, batch: Any, device: Any) -> torch.Tensor:
        if len(batch.lengths) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(layout, model, batch, device)

    monkeypatch.setattr(LastToken, "logits", with_little_memory)
    found = scorer.score_pairs(*split(pairs))
    assert np.abs(found.scores - wanted).max() < TOLERANCE and not found.errors
    assert found.work.out_of_memory > 0 and scorer.tokens_per_batch < 4096
    assert scorer.score_pairs(*split(pairs)).work.out_of_memory < found.work.out_of_memory


@pytest.mark.parametrize("shares", [True, False])
def test_one_pair_that_makes_the_model_fail_is_one_error(
    reward: Path, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [("What is the answer? " * 9, text) for text in ("yes", "no", "7", "maybe", "yes no", "the fox")]
    options = {"tokens_per_batch": 4096, "share_prefixes": shares}
    wanted = scorer_of(reward, **options).score(*split(pairs))
    embed, unlucky = torch.nn.Embedding.forward, AutoTokenizer.from_pretrained(reward).convert_tokens_to_ids("7")

    def failing(layer: torch.nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if bool((tokens == unlucky).any()):
            raise ValueError("unlucky")
        return embed(layer, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", failing)
    found = scorer_of(reward, **options).score_pairs(*split(pairs))
    assert list(found.errors) == [2] and "unlucky" in found.errors[2] and np.isnan(found.scores[2])
    assert np.abs(np.delete(found.scores - wanted, 2)).max() < TOLERANCE
