"""Models that cannot score: what is said of each, before its weights are loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, BertForMaskedLM, BertModel, RobertaForTokenClassification

from cappy_model.checkpoints import (
    ModelError,
    ModelSource,
    check_has_head,
    find_checkpoint,
    load_config,
    load_generator,
    refuse_unsuitable,
)
from cappy_model.score.loading import load_scorer, settle_scorer
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer, tiny_tokenizer


def stored(folder: Path, config: dict[str, Any], **permissions: bool) -> Any:
    """A checkpoint with this configuration; its weights are never read."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    return find_checkpoint(ModelSource(str(folder), **permissions))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"ranker_type": "pairranker", "model_type": "deberta"}, "deberta is a pairwise model"),
        ({"architectures": ["DebertaV2PairRM"], "model_type": "deberta-v2"}, "DebertaV2PairRM is a pairwise model"),
        ({"architectures": ["LlamaForPairwiseReward"], "model_type": "llama"}, "a pairwise model: it compares two"),
        ({"architectures": ["JinaForRanking"], "model_type": "qwen3"}, "JinaForRanking is a listwise model"),
        ({"architectures": ["ListConRankerModel"], "model_type": "bert"}, "a listwise model: its score of a response"),
        ({"architectures": ["JinaVLForRanking"], "model_type": "qwen2_vl"}, "JinaVLForRanking is a multimodal"),
        ({"architectures": ["Qwen2ForProcessRewardModel"], "model_type": "qwen2"}, "is a process reward model"),
        ({"architectures": ["Qwen2ForPrm"], "model_type": "qwen2"}, "Qwen2ForPrm is a process reward model"),
        ({"architectures": ["SkyworkPRMModel"], "model_type": "qwen2"}, "is a process reward model"),
        ({"architectures": ["Qwen2VLForSequenceClassification"], "model_type": "qwen2_vl"}, "is a multimodal model"),
        (
            {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "vision_config": {"a": 1}},
            r"LlavaForConditionalGeneration is a multimodal model \(vision_config in its config\.json\)",
        ),
        (
            {"architectures": ["Qwen2AudioForConditionalGeneration"], "audio_config": {"a": 1}},
            r"a multimodal model \(audio_config in its config\.json\)",
        ),
        ({"model_type": "retnet-9"}, "is of the type 'retnet-9', which transformers .* does not know"),
        (
            {"model_type": "theirs", "auto_map": {"AutoConfig": "configuration_theirs.TheirConfig"}},
            r"needs its own code \(configuration_theirs\.py\).*--trust-remote-code",
        ),
        (
            {
                "model_type": "llama",
                "architectures": ["LlamaForRewardModelWithGating"],
                "auto_map": {"AutoModelForSequenceClassification": "them/theirs--modeling_custom.LlamaGating"},
            },
            r"needs its own code \(modeling_custom\.py\).*--trust-remote-code",
        ),
    ],
)
def test_refused_by_name(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=f"^{tmp_path}/model: .*{reason}"):
        refuse_unsuitable(stored(tmp_path / "model", config))


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["RobertaForSequenceClassification"], "model_type": "roberta"},
        {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
        {"architectures": ["BertModel"], "model_type": "bert", "vision_config": None},
        {"architectures": None, "model_type": "bert"},
        # Transformers has this class of its own now, and runs no code of the model.
        {
            "architectures": ["Phi3ForSequenceClassification"],
            "model_type": "phi3",
            "auto_map": {"AutoModelForSequenceClassification": "modeling_phi3.Phi3ForSequenceClassification"},
        },
    ],
)
def test_not_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    refuse_unsuitable(stored(tmp_path / "model", config))


def test_own_code_with_permission(tmp_path: Path) -> None:
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "configuration_theirs.TheirConfig"}}
    refuse_unsuitable(stored(tmp_path / "model", config, trust_remote_code=True))


def test_what_trl_writes_for_a_process_reward_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("roberta")
    scorer = save_tiny_scorer(tmp_path / "scorer")
    model = RobertaForTokenClassification.from_pretrained(scorer, num_labels=2)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="RobertaForTokenClassification is a process reward model: it has a score for"):
        refuse_unsuitable(find_checkpoint(ModelSource(str(tmp_path / "model"))))


def test_a_damaged_configuration(tmp_path: Path) -> None:
    checkpoint = stored(tmp_path / "model", {})
    for content, reason in (("{", "is not JSON"), ("[]", "holds no JSON object")):
        (tmp_path / "model" / "config.json").write_text(content)
        with pytest.raises(ModelError, match=f"model: cannot be loaded: its config.json {reason}"):
            refuse_unsuitable(checkpoint)


def test_unknown_types_are_told_when_generating_as_well(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of the type 'retnet-9', which transformers"):
        load_config(stored(tmp_path / "model", {"model_type": "retnet-9"}))


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_an_encoder_without_a_head(tmp_path: Path, kind: Any) -> None:
    folder = save_tiny_scorer(tmp_path / "model", "bert")
    kind.from_pretrained(folder).save_pretrained(folder)
    checkpoint = find_checkpoint(ModelSource(str(folder)))
    config, _ = load_config(checkpoint)
    remedy = f"has no scoring head, it is {kind.__name__}; `cappy train --model {folder}` gives it one"
    with pytest.raises(ModelError, match=remedy):
        check_has_head(checkpoint, config)


def test_a_language_model_without_a_head(tmp_path: Path) -> None:
    folder = save_tiny_generator(tmp_path / "model")
    checkpoint = find_checkpoint(ModelSource(str(folder)))
    config, _ = load_config(checkpoint)
    with pytest.raises(ModelError, match=r"is a language model \(LlamaForCausalLM\).*--head yes,no.*--template"):
        check_has_head(checkpoint, config)
    config.architectures = ["GPT2LMHeadModel"]
    with pytest.raises(ModelError, match=r"is a language model \(GPT2LMHeadModel\)"):
        check_has_head(checkpoint, config)


@pytest.mark.parametrize("architectures", [None, [], ["BertForSequenceClassification"], ["OurOwnScorer"]])
def test_architectures_of_which_only_weights_tell(tmp_path: Path, architectures: list[str] | None) -> None:
    folder = save_tiny_scorer(tmp_path / "model", "bert")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": architectures}))
    checkpoint = find_checkpoint(ModelSource(str(folder)))
    check_has_head(checkpoint, AutoConfig.from_pretrained(folder))
    assert load_scorer(settle_scorer(checkpoint), torch.float32).model.config.num_labels == 1


def test_a_classifier_does_not_generate(tmp_path: Path) -> None:
    checkpoint = find_checkpoint(ModelSource(str(save_tiny_scorer(tmp_path / "model"))))
    with pytest.raises(ModelError, match="is RobertaForSequenceClassification, which generates no text"):
        load_generator(checkpoint, torch.float32)
