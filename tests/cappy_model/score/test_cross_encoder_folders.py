"""Folders of sentence-transformers' CrossEncoder against `CrossEncoder.predict` itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cappy_model.checkpoints import ModelError, ModelSource, find_checkpoint
from cappy_model.score.loading import settle_scorer
from cappy_model.score.scorer import Scorer
from tests.cappy_model.score.families import edit_json, save_decoder, save_encoder
from tests.cappy_model.score.pairs import long_pairs, short_pairs
from tests.cappy_model.score.references import TOLERANCE, cross_encoder_scores, encoder_logits, split

pytest.importorskip("sentence_transformers", reason="the other side of these comparisons")

from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import Dense, LogitScore, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

PAIRS = short_pairs()[::2]
LONG = long_pairs(60)
CHAT = (
    "<|im_start|>system\n{{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first "
    "| default('Judge.') }}<|im_end|>\n<|im_start|>user\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def scorer_of(folder: Path, **options: Any) -> Scorer:
    return Scorer.from_pretrained(str(folder), device="cpu", dtype="float32", **options)


def saved(folder: Path, modules: Sequence[torch.nn.Module] | Path, **options: Any) -> Path:
    """Save a CrossEncoder of modules, or of a folder of transformers, as its makers do."""
    given = {"modules": list(modules)} if not isinstance(modules, Path) else {"model_name_or_path": str(modules)}
    CrossEncoder(**given, device="cpu", **options).save_pretrained(str(folder))
    return folder


def check(folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS, **options: Any) -> np.ndarray:
    """Compare with CrossEncoder, which has no activation; return the scores."""
    wanted = cross_encoder_scores(folder, pairs)
    assert wanted.std() > 0.05
    for tokens in (64, 4096):
        found = scorer_of(folder, tokens_per_batch=tokens, **options).score(*split(pairs))
        assert np.abs(found - wanted).max() < TOLERANCE
    return wanted


@pytest.mark.parametrize("family", ["roberta", "bert", "xlm-roberta", "deberta-v2", "electra", "modernbert", "mpnet"])
def test_a_plain_folder(family: str, tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "base", family)
    folder = saved(tmp_path / "saved", base)
    wanted = check(folder, [*PAIRS, *LONG])
    assert np.abs(wanted - encoder_logits(base, [*PAIRS, *LONG], 64)[:, 0]).max() < TOLERANCE


def test_a_stored_length_is_obeyed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", save_encoder(tmp_path / "base", "roberta"), max_length=20)
    check(folder, LONG)
    scored = scorer_of(folder).score_pairs(*split(LONG))
    assert scored.num_tokens.max() == 20 and scored.truncated.any()


def test_the_default_prompt_stands_before_the_instruction(tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "base", "roberta")
    prompts = {"judge": "Judge the answer: ", "other": "no "}
    with_prompt = check(saved(tmp_path / "default", base, prompts=prompts, default_prompt_name="judge"))
    without = check(saved(tmp_path / "none", base, prompts=prompts))
    assert np.abs(with_prompt - without).min() > TOLERANCE
    found = scorer_of(tmp_path / "default", template="none").score(*split(PAIRS))
    assert np.abs(found - without).max() < TOLERANCE


@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), torch.nn.Identity(), torch.nn.Tanh()])
def test_scores_are_taken_before_the_stored_activation_which_is_named(
    activation: torch.nn.Module, tmp_path: Path
) -> None:
    base = save_encoder(tmp_path / "base", "bert")
    folder = saved(tmp_path / "saved", base, activation_fn=activation)
    check(folder)
    settled = settle_scorer(find_checkpoint(ModelSource(str(folder))))
    assert type(activation).__name__ in str(settled.described["named_activation"])


def test_an_activation_of_older_folders_is_named(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "bert")
    edit_json(folder / "config.json", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    assert "Identity" in str(settle_scorer(find_checkpoint(ModelSource(str(folder)))).described["named_activation"])
    check(folder)


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("prompt", [None, "Is it right?"])
def test_scores_from_the_logits_of_words(second: bool, prompt: str | None, tmp_path: Path) -> None:
    base = save_decoder(tmp_path / "base", "qwen3", kind="causal", chat_template=CHAT)
    reader = Transformer(str(base), transformer_task="text-generation")
    yes, no = reader.tokenizer.convert_tokens_to_ids(["yes", "no"])
    stored = {"prompts": {"q": prompt}, "default_prompt_name": "q"} if prompt else {}
    folder = saved(tmp_path / "saved", [reader, LogitScore(yes, no if second else None)], **stored)
    wanted = check(folder)
    if second and prompt is None:
        found = scorer_of(folder, head="no,yes").score(*split(PAIRS))
        assert np.abs(found + wanted).max() < TOLERANCE


@pytest.mark.parametrize("template", [None, CHAT])
def test_a_decoder_with_one_logit(template: str | None, tmp_path: Path) -> None:
    """Without a chat template a CrossEncoder reads the plain pair, and its folder says so."""
    base = save_decoder(tmp_path / "base", "qwen2", chat_template=template)
    pairs = [pair for pair in PAIRS if any(pair)]
    check(saved(tmp_path / "saved", base), pairs)


POOLINGS = {"roberta": ("cls", "mean", "max"), "qwen3": ("lasttoken", "mean")}


@pytest.mark.parametrize(("family", "pooling"), [(family, one) for family, all_ in POOLINGS.items() for one in all_])
@pytest.mark.parametrize("layers", [1, 2])
def test_heads_in_dense_modules(family: str, pooling: str, layers: int, tmp_path: Path) -> None:
    save = save_encoder if family == "roberta" else save_decoder
    base = save(tmp_path / "base", family, **({} if family == "roberta" else {"chat_template": None}))
    torch.manual_seed(1)
    inner = [Dense(32, 32, activation_function=torch.nn.GELU(), use_residual=True)] * (layers - 1)
    head = Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    for module in (*inner, head):
        torch.nn.init.normal_(module.linear.weight, std=0.3)
    encoder = Transformer(str(base), transformer_task="feature-extraction")
    folder = saved(tmp_path / "saved", [encoder, Pooling(32, pooling_mode=pooling), *inner, head])
    check(folder, [pair for pair in PAIRS if any(pair)])


def test_dense_heads_with_several_outputs_need_a_head(tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoder = Transformer(str(save_encoder(tmp_path / "base", "roberta")), transformer_task="feature-extraction")
    head = Dense(32, 3, activation_function=torch.nn.Identity(), module_output_name="scores")
    folder = saved(tmp_path / "saved", [encoder, Pooling(32, pooling_mode="cls"), head])
    with pytest.raises(ModelError, match="3 logits"):
        scorer_of(folder)
    wanted = cross_encoder_scores(folder, PAIRS)[:, 2]
    assert np.abs(scorer_of(folder, head="2").score(*split(PAIRS)) - wanted).max() < TOLERANCE


def test_modules_that_no_scorer_has_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path, save_encoder(tmp_path / "base", "roberta"))
    modules = json.loads((folder / "modules.json").read_text())
    strange = {"idx": 1, "name": "1", "path": "1_Strange", "type": "my_package.Strange"}
    (folder / "modules.json").write_text(json.dumps([*modules, strange]))
    with pytest.raises(ModelError, match="Strange"):
        scorer_of(folder)
