"""Where training starts: whose head is new, which weights that is, and which models are refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
)

from cappy_model.checkpoints import ModelError, ModelSource, find_checkpoint, load_config
from cappy_model.train.start import check_start, load_to_train
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer, tiny_tokenizer

_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_CONFIGS: dict[str, Any] = {
    "bert": lambda **given: BertConfig(**_SHAPE, **given),
    "roberta": lambda **given: RobertaConfig(**_SHAPE, **given),
    "distilbert": lambda **given: DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **given),
    "modernbert": lambda **given: ModernBertConfig(
        **_SHAPE, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2, **given
    ),
    "deberta-v2": lambda **given: DebertaV2Config(**_SHAPE, **given),
}
_HEADS = {
    "bert": ["classifier.weight", "classifier.bias"],
    "roberta": [f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")],
    "distilbert": ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"],
    "modernbert": ["head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"],
    "deberta-v2": ["pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"],
}
"""The weights outside of the encoder; BERT's pooler is within."""

Weights = dict[str, torch.Tensor]


def save_classifier(folder: Path, family: str, labels: int) -> Path:
    """Save a classifier whose weights all differ from what an initialisation gives."""
    tokenizer = tiny_tokenizer("roberta")
    torch.manual_seed(5)
    config = _CONFIGS[family](vocab_size=len(tokenizer), max_position_embeddings=66, pad_token_id=1, num_labels=labels)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def start(folder: Path, **given: Any) -> Any:
    return load_to_train(find_checkpoint(ModelSource(str(folder))), **{"seed": 0, **given})[0]


def differing(first: Weights, second: Weights) -> list[str]:
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.mark.parametrize("labels", [3, 1])
@pytest.mark.parametrize("family", _CONFIGS)
def test_a_new_head_over_the_encoder_of_a_classifier(
    family: str, labels: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_classifier(tmp_path / "model", family, labels)
    before = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    caplog.set_level(logging.INFO, "cappy")
    model = start(folder, new_head=True)
    head, after = _HEADS[family], model.state_dict()
    assert set(head) == {name for name in after if not name.startswith(f"{model.base_model_prefix}.")}
    assert [name for name in after if name in head or not torch.equal(before[name], after[name])] == head
    assert all(before[name].shape != after[name].shape or not torch.equal(before[name], after[name]) for name in head)
    assert f"{folder}: weights newly initialised, by seed 0: {', '.join(head)}" in caplog.text
    assert all(weight.requires_grad for weight in model.parameters())
    assert model.config.num_labels == 1 and model.config.problem_type == "regression"
    assert after["classifier.out_proj.weight" if family == "roberta" else "classifier.weight"].shape[0] == 1


def test_a_new_head_is_the_same_by_its_seed(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "model", "roberta", 3)
    first, again, other = (start(folder, seed=seed, new_head=True).state_dict() for seed in (0, 0, 1))
    assert not differing(first, again)
    assert differing(first, other) == ["classifier.dense.weight", "classifier.out_proj.weight"]


def test_an_encoder_says_which_weights_are_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer = AutoModelForSequenceClassification.from_pretrained(save_tiny_scorer(tmp_path / "scorer", "bert"))
    scorer.bert.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer("bert").save_pretrained(tmp_path / "encoder")
    caplog.set_level(logging.INFO, "cappy")
    plain, asked = start(tmp_path / "encoder").state_dict(), start(tmp_path / "encoder", new_head=True).state_dict()
    assert not differing(plain, asked)
    assert caplog.text.count("weights newly initialised, by seed 0: classifier.bias, classifier.weight\n") == 2


def test_a_scorer_keeps_its_head_and_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_classifier(tmp_path / "model", "modernbert", 1)
    caplog.set_level(logging.INFO, "cappy")
    before = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    assert not differing(before, start(folder).state_dict())
    assert "newly initialised" not in caplog.text


def test_the_first_process_alone_says_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    caplog.set_level(logging.INFO, "cappy")
    start(save_classifier(tmp_path / "model", "bert", 3), new_head=True)
    assert "newly initialised" not in caplog.text


def test_a_head_without_its_weights_can_be_replaced(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "model", "bert", 3)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder)
    classifier.bert.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    after = start(folder, new_head=True).state_dict()
    assert not differing({f"bert.{name}": weight for name, weight in classifier.bert.state_dict().items()}, after)
    assert after["classifier.weight"].shape == (1, 32)


def test_the_activation_of_an_old_head_goes_with_it(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path / "model", sentence_transformers={"activation_fn": "torch.nn.Sigmoid"})
    assert start(folder).config.sentence_transformers == {"activation_fn": "torch.nn.Sigmoid"}
    assert not hasattr(start(folder, new_head=True).config, "sentence_transformers")


def test_a_head_of_another_size_wants_the_flag(tmp_path: Path) -> None:
    checkpoint = find_checkpoint(ModelSource(str(save_classifier(tmp_path / "nli", "roberta", 3))))
    config = load_config(checkpoint)[0]
    with pytest.raises(ModelError, match="nli: has a head of 3 logits; a scorer has one. Give --new-head to train a"):
        check_start(checkpoint, config)
    check_start(checkpoint, config, new_head=True)


@pytest.mark.parametrize("new_head", [False, True])
def test_a_language_model_is_refused(new_head: bool, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a llama, a decoder-only language model; give an encoder such as"):
        start(save_tiny_generator(tmp_path), new_head=new_head)
