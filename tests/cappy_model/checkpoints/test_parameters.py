"""The number of parameters of a model, from the headers of its files, compared with the model itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification

from cappy_model.checkpoints import (
    ModelError,
    ModelSource,
    count_parameters,
    find_checkpoint,
    generates_by,
    load_config,
    load_model,
)
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer, tiny_tokenizer


def counted(folder: Path, *, generates: bool = False, **permitted: bool) -> int:
    checkpoint = find_checkpoint(ModelSource(str(folder), **permitted))
    config, _ = load_config(checkpoint)
    return count_parameters(checkpoint, config, generates=generates)


def embeddings_of(model: Any) -> int:
    return int(model.get_input_embeddings().weight.numel())


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_a_scorer_counts_without_its_embeddings(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForSequenceClassification

    save_tiny_scorer(tmp_path, family)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert counted(tmp_path) == sum(weight.numel() for weight in model.parameters()) - embeddings_of(model)


@pytest.mark.parametrize("family", ["t5", "bart", "llama"])
def test_the_output_layer_of_a_generator_counts(tmp_path: Path, family: str) -> None:
    save_tiny_generator(tmp_path, family)
    checkpoint = find_checkpoint(ModelSource(str(tmp_path)))
    config, tokenizer = load_config(checkpoint)
    model = load_model(checkpoint, generates_by(checkpoint, config), config, tokenizer, torch.float32)
    layers = sum(weight.numel() for weight in model.parameters()) - embeddings_of(model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    wanted = layers + (embeddings_of(model) if tied else 0)
    assert counted(tmp_path, generates=True) == pytest.approx(wanted, rel=0.01)  # files hold buffers, too


def test_parts_are_counted_once_and_pickled_weights_by_their_size(tmp_path: Path) -> None:
    whole = counted(save_tiny_scorer(tmp_path / "whole"))
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    for name in ("parts", "pickled"):
        tiny_tokenizer("roberta").save_pretrained(tmp_path / name)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    (tmp_path / "parts" / "consolidated.safetensors").write_bytes(b"\0" * 8)
    assert counted(tmp_path / "parts") == whole
    model.save_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    assert counted(tmp_path / "pickled", allow_pickle=True) == pytest.approx(whole, rel=0.5)  # with its own overhead


def test_layers_that_share_their_weights_count_as_often_as_they_are_used(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bert")
    shape = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "embedding_size": 16}
    config = AlbertConfig(vocab_size=len(tokenizer), num_hidden_layers=6, num_hidden_groups=2, num_labels=1, **shape)
    model = AlbertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert counted(tmp_path) == 3 * (sum(weight.numel() for weight in model.parameters()) - embeddings_of(model))


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_a_damaged_header_is_named(tmp_path: Path, data: bytes) -> None:
    save_tiny_scorer(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="model.safetensors is damaged"):
        counted(tmp_path)


def test_an_adapter_counts_as_its_base(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    base = save_tiny_scorer(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])).save_pretrained(
        tmp_path / "adapter"
    )
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    settings["base_model_name_or_path"] = str(base)
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    assert counted(tmp_path / "adapter") == counted(base)
