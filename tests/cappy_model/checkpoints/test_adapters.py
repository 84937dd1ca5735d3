"""PEFT adapters over their base: merged weights, and what takes the place of the base's files."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    RobertaForSequenceClassification,
)

from cappy_model.checkpoints import (
    Checkpoint,
    ModelError,
    ModelSource,
    check_has_head,
    find_checkpoint,
    load_config,
    load_generator,
    load_model,
)
from cappy_model.train.start import load_to_train
from tests.cappy_model.checkpoints.hub_stub import files_in, serving, use_hub
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import cappy, rows_of

TEXTS = ["the quick brown fox", "What is the answer?", "yes no maybe"]


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "cache"))


def adapted(folder: Path, base: Any, config: peft.PeftConfig, base_name: str) -> Any:
    """Save an adapter with random weights over a model, and return the two, unmerged."""
    torch.manual_seed(1)
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_", "modules_to_save", "ia3_", "hada_", "lokr_")):
            torch.nn.init.normal_(parameter, std=0.1)
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(folder)
    return model.eval()


def lora(task: str | None, **changes: Any) -> peft.LoraConfig:
    return peft.LoraConfig(task_type=task, r=4, lora_alpha=8, **{"target_modules": ["query", "value"], **changes})


def source(folder: Path | str, **permissions: bool) -> ModelSource:
    return ModelSource(str(folder), **permissions)


def loaded(
    folder: Path | str, loader: Any = AutoModelForSequenceClassification, dtype: torch.dtype = torch.float32
) -> Any:
    checkpoint = find_checkpoint(source(folder))
    config, tokenizer = load_config(checkpoint)
    return load_model(checkpoint, loader, config, tokenizer, dtype), tokenizer


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits.flatten()[-8:] for text in TEXTS]
    return torch.stack(rows)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A RoBERTa without a head that anybody has trained."""
    return save_tiny_scorer(tmp_path / "base", num_labels=2)


def over_roberta(base: Path, folder: Path, base_name: str | None = None) -> Any:
    model = RobertaForSequenceClassification.from_pretrained(base, num_labels=1, ignore_mismatched_sizes=True)
    return adapted(folder, model, lora("SEQ_CLS"), base_name or str(base))


def test_the_merged_model_is_the_base_with_its_adapter(tmp_path: Path, base: Path) -> None:
    unmerged = over_roberta(base, tmp_path / "adapter")
    model, tokenizer = loaded(tmp_path / "adapter")
    assert type(model) is RobertaForSequenceClassification and not model.training
    assert model.config.num_labels == 1 and tokenizer.get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()
    wanted = logits(unmerged, tokenizer)
    assert torch.allclose(logits(model, tokenizer), wanted, atol=1e-5, rtol=0)
    plain = RobertaForSequenceClassification.from_pretrained(base)
    assert not torch.allclose(logits(plain, tokenizer)[:, :1], wanted, atol=0.01)
    assert not any("lora" in name or "modules_to_save" in name for name in model.state_dict())
    assert loaded(tmp_path / "adapter", dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_head_of_several_logits(tmp_path: Path, base: Path) -> None:
    model = RobertaForSequenceClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    adapted(tmp_path / "adapter", model, lora("SEQ_CLS"), str(base))
    assert load_config(find_checkpoint(source(tmp_path / "adapter")))[0].num_labels == 3
    assert logits(*loaded(tmp_path / "adapter")).shape == (3, 3)


def test_an_adapter_without_a_head_keeps_that_of_its_base(tmp_path: Path) -> None:
    base = save_tiny_scorer(tmp_path / "base")
    unmerged = adapted(
        tmp_path / "adapter", RobertaForSequenceClassification.from_pretrained(base), lora(None), str(base)
    )
    model, tokenizer = loaded(tmp_path / "adapter")
    assert torch.allclose(logits(model, tokenizer), logits(unmerged, tokenizer), atol=1e-5, rtol=0)


def test_a_reward_model_over_a_language_model(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "base")
    config = lora("SEQ_CLS", target_modules=["q_proj", "v_proj"])
    reward = LlamaForSequenceClassification.from_pretrained(base, num_labels=1)
    unmerged = adapted(tmp_path / "adapter", reward, config, str(base))
    checkpoint = find_checkpoint(source(tmp_path / "adapter"))
    settled, _ = load_config(checkpoint)
    assert (settled.architectures, settled.num_labels) == (["LlamaForSequenceClassification"], 1)
    check_has_head(checkpoint, settled)
    model, tokenizer = loaded(tmp_path / "adapter")
    assert torch.allclose(logits(model, tokenizer), logits(unmerged, tokenizer), atol=1e-5, rtol=0)


def test_a_language_model(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "base")
    config = lora("CAUSAL_LM", target_modules="all-linear")
    unmerged = adapted(tmp_path / "adapter", LlamaForCausalLM.from_pretrained(base), config, str(base))
    model, tokenizer = load_generator(find_checkpoint(source(tmp_path / "adapter")), torch.float32)
    assert type(model) is LlamaForCausalLM
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    assert torch.allclose(logits(model, tokenizer), logits(unmerged, tokenizer), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        lora("CAUSAL_LM", target_modules=["q_proj"], use_dora=True, use_rslora=True),
        peft.IA3Config(
            task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
        peft.LoHaConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]),
    ],
    ids=["dora", "ia3", "loha"],
)
def test_other_kinds_of_adapters(tmp_path: Path, config: peft.PeftConfig) -> None:
    base = save_tiny_generator(tmp_path / "base")
    unmerged = adapted(tmp_path / "adapter", LlamaForCausalLM.from_pretrained(base), config, str(base))
    model, tokenizer = loaded(tmp_path / "adapter", AutoModelForCausalLM)
    wanted = logits(unmerged, tokenizer)
    assert torch.allclose(logits(model, tokenizer), wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(logits(LlamaForCausalLM.from_pretrained(base), tokenizer), wanted, atol=0.01)


def test_tokens_that_were_added_for_the_adapter(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>"]})
    model = LlamaForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer))
    config = lora("CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    unmerged = adapted(tmp_path / "adapter", model, config, str(base))
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged, own = loaded(tmp_path / "adapter", AutoModelForCausalLM)
    ids = own("<|user|>the fox<|end|>", return_tensors="pt")
    assert int(ids["input_ids"].max()) == len(own) - 1 == merged.config.vocab_size - 1
    with torch.no_grad():
        assert torch.allclose(merged(**ids).logits, unmerged(**ids).logits, atol=1e-5, rtol=0)


def test_what_stands_beside_the_adapter_replaces_that_of_the_base(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "adapter"
    over_roberta(base, folder)
    before = find_checkpoint(source(folder))
    assert load_config(before)[1].chat_template is None
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with_template = find_checkpoint(source(folder))
    assert load_config(with_template)[1].chat_template == "{{ messages }}"
    stored = json.loads((base / "config.json").read_text()) | {"cappy": {"template": "none"}}
    (folder / "config.json").write_text(json.dumps(stored))
    with_config = find_checkpoint(source(folder))
    assert load_config(with_config)[0].cappy == {"template": "none"}
    assert len({before.content, with_template.content, with_config.content}) == 3


def test_content_is_that_of_the_adapter_and_of_its_base(tmp_path: Path, base: Path) -> None:
    over_roberta(base, tmp_path / "adapter")
    shutil.copytree(tmp_path / "adapter", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("about it")
    first = find_checkpoint(source(tmp_path / "adapter")).content
    assert find_checkpoint(source(tmp_path / "copy")).content == first
    save_tiny_scorer(base, num_labels=2, seed=1)
    assert find_checkpoint(source(tmp_path / "adapter")).content != first


def test_where_a_base_is(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmerged = over_roberta(base, tmp_path / "runs" / "adapter", "../../base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    wanted = logits(unmerged, tokenizer)
    memory = fsspec.filesystem("memory")
    memory.put(str(base), "/store/base", recursive=True)
    memory.put(str(tmp_path / "runs"), "/store/beside/runs", recursive=True)
    memory.put(str(tmp_path / "runs"), "/store/runs", recursive=True)
    places: list[Checkpoint] = [find_checkpoint(source(tmp_path / "runs" / "adapter"))]
    places.append(find_checkpoint(source("memory://store/runs/adapter")))
    over_roberta(base, tmp_path / "by_url", "memory://store/base")
    places.append(find_checkpoint(source(tmp_path / "by_url")))
    over_roberta(base, tmp_path / "by_id", "an/encoder")
    with serving({"an/encoder": {"main": files_in(base)}, "an/adapter": {"main": files_in(tmp_path / "by_id")}}) as hub:
        use_hub(hub, tmp_path / "hub", monkeypatch)
        places.append(find_checkpoint(source("an/adapter")))
    for place in places:
        config, _ = load_config(place)
        model = load_model(place, AutoModelForSequenceClassification, config, tokenizer, torch.float32)
        assert torch.allclose(logits(model, tokenizer), wanted, atol=1e-5, rtol=0)


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_without_its_base(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "adapter"
    over_roberta(base, folder)
    for name, reason in (
        ("an/encoder", "an/encoder: no such folder here, and it cannot be fetched from the model hub"),
        ("/nowhere/base", "/nowhere/base: no such folder, and not a hub id"),
        (".", "is an adapter itself"),
    ):
        changed(folder, base_model_name_or_path=name)
        with pytest.raises(ModelError) as caught:
            find_checkpoint(source(folder))
        assert f"{folder}: is an adapter, whose base {name} cannot be used: " in str(caught.value)
        assert reason in str(caught.value)
        assert "set base_model_name_or_path in its adapter_config.json" in str(caught.value)
        assert "merge_and_unload" in str(caught.value)
    changed(folder, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="names no base: set base_model_name_or_path"):
        find_checkpoint(source(folder))


def test_a_whole_model_beside_an_adapter(tmp_path: Path, base: Path) -> None:
    over_roberta(base, tmp_path / "adapter")
    shutil.copy(base / "model.safetensors", tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"an adapter \(adapter_config.json\) beside the weights of a whole model"):
        find_checkpoint(source(tmp_path / "adapter"))


def test_pickled_adapters_have_to_be_asked_for(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "adapter"
    unmerged = over_roberta(base, folder)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled \(adapter_model\.bin\).*--allow-pickle"):
        find_checkpoint(source(folder))
    checkpoint = find_checkpoint(source(folder, allow_pickle=True))
    config, tokenizer = load_config(checkpoint)
    model = load_model(checkpoint, AutoModelForSequenceClassification, config, tokenizer, torch.float32)
    assert torch.allclose(logits(model, tokenizer), logits(unmerged, tokenizer), atol=1e-5, rtol=0)


def test_adapters_that_cannot_be_merged(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "base")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapted(tmp_path / "adapter", LlamaForCausalLM.from_pretrained(base), config, str(base))
    with pytest.raises(ModelError, match="an adapter of the kind PROMPT_TUNING, which cannot be merged into its base"):
        load_config(find_checkpoint(source(tmp_path / "adapter")))
    several = peft.PolyConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    adapted(tmp_path / "poly", LlamaForCausalLM.from_pretrained(base), several, str(base))
    with pytest.raises(ModelError, match="an adapter of the kind POLY, which cannot be merged into its base"):
        loaded(tmp_path / "poly", AutoModelForCausalLM)
    changed(tmp_path / "adapter", peft_type="SOMETHING_NEW")
    with pytest.raises(ModelError, match="adapter: cannot be loaded: .*SOMETHING_NEW"):
        load_config(find_checkpoint(source(tmp_path / "adapter")))


def test_an_adapter_of_another_model(tmp_path: Path, base: Path) -> None:
    over_roberta(base, tmp_path / "adapter")
    changed(tmp_path / "adapter", base_model_name_or_path=str(save_tiny_scorer(tmp_path / "bert", "bert")))
    with pytest.raises(ModelError, match="adapter that does not fit .*bert, loaded as BertForSeq.*: classifier"):
        loaded(tmp_path / "adapter")
    wide = save_tiny_scorer(tmp_path / "wide", hidden_size=64)
    changed(tmp_path / "adapter", base_model_name_or_path=str(wide))
    with pytest.raises(ModelError, match="adapter: cannot be loaded"):
        loaded(tmp_path / "adapter")


def test_a_head_that_neither_has(tmp_path: Path) -> None:
    base = save_tiny_scorer(tmp_path / "base", "bert")
    whole = BertForSequenceClassification.from_pretrained(base)
    adapted(tmp_path / "adapter", whole, lora(None), str(base))
    BertModel.from_pretrained(base).save_pretrained(base)
    with pytest.raises(ModelError, match=r"lacks weights \(classifier\."):
        loaded(tmp_path / "adapter")


def test_training_goes_on_from_an_adapter(tmp_path: Path, base: Path) -> None:
    unmerged = over_roberta(base, tmp_path / "adapter")
    model, tokenizer = load_to_train(find_checkpoint(source(tmp_path / "adapter")), seed=0)
    assert torch.allclose(logits(model.eval(), tokenizer), logits(unmerged, tokenizer), atol=1e-5, rtol=0)


def test_without_peft(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over_roberta(base, tmp_path / "adapter")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="needs the package peft: python -m pip install peft"):
        load_config(find_checkpoint(source(tmp_path / "adapter")))


def test_jobs_take_an_adapter_as_any_model(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "base")
    config = lora("CAUSAL_LM", target_modules=["q_proj"])
    unmerged = adapted(tmp_path / "adapter", LlamaForCausalLM.from_pretrained(base), config, str(base))
    unmerged.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    pq.write_table(pa.table({"instruction": TEXTS, "response": TEXTS[::-1]}), tmp_path / "in.parquet")
    outputs: dict[str, list[Any]] = {}
    for model in ("adapter", "merged", "base"):
        common = [f"--input={tmp_path / 'in.parquet'}", f"--model={tmp_path / model}", "--direct_num_workers=1"]
        heads = ["--head=yes,no", "--template=chat", "--dtype=float32", "--check-pairs=0"]
        decodings = ["--chat", "--decodings=greedy", "--max-new-tokens=4", "--dtype=float32"]
        assert cappy("score", *common, *heads, f"--output={tmp_path / model}_scored") == 0
        assert cappy("generate", *common, *decodings, f"--output={tmp_path / model}_generated") == 0
        scores = [row["score"] for row in rows_of(tmp_path / f"{model}_scored")]
        likelihoods = [row["log_likelihood_sum"] for row in rows_of(tmp_path / f"{model}_generated")]
        outputs[model] = [*scores, *likelihoods]
    assert outputs["adapter"] == pytest.approx(outputs["merged"], abs=1e-5)
    assert outputs["adapter"] != pytest.approx(outputs["base"], abs=0.01)
