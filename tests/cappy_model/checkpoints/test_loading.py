"""Finding and loading checkpoints: what is accepted, and what each refusal says."""

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from cappy_model.checkpoints import ModelError, ModelSource, find_checkpoint
from cappy_model.devices import CPU_TOKENS, settle_device, settle_dtype, settle_tokens_per_batch
from cappy_model.score.loading import load_scorer, settle_scorer
from cappy_model.score.scorer import Scorer
from schemas.errors import UsageError
from tests.cappy_model.models import save_tiny_scorer


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "cache"))


def content(folder: Path) -> str:
    return find_checkpoint(ModelSource(str(folder))).content


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = load_scorer(settle_scorer(find_checkpoint(ModelSource(str(folder)))), torch.float32).model
    return model


def test_content_is_named_by_what_is_in_the_files(tmp_path: Path) -> None:
    first = save_tiny_scorer(tmp_path / "a")
    shutil.copytree(first, tmp_path / "b")
    (tmp_path / "b" / "optimizer.pt").write_bytes(b"not part of the model")
    assert content(first) == content(tmp_path / "b")
    assert content(save_tiny_scorer(tmp_path / "c", seed=1)) != content(first)


def test_a_url_is_copied_once_and_scores_the_same(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path / "model")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/models/tiny", recursive=True)
    here = Scorer.from_pretrained(str(folder), device="cpu", dtype="float32")
    there = Scorer.from_pretrained("memory://models/tiny", device="cpu", dtype="float32")
    pair = (["What?"], ["the fox"])
    assert np.array_equal(here.score(*pair), there.score(*pair))
    first = find_checkpoint(ModelSource("memory://models/tiny"))
    assert first.content == content(folder)
    assert find_checkpoint(ModelSource("memory://models/tiny")).folder == first.folder
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "no such folder, and not a hub id"),
        ("nobody/nothing", "no such folder here, and it cannot be fetched from the model hub"),
        ("nobody/nothing@main", "cannot be fetched from the model hub"),
        ("memory://nowhere", "has no model files"),
        ("foo://bucket/model", "cannot be fetched: ValueError"),
    ],
)
def test_models_that_are_nowhere(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_checkpoint(ModelSource(name))


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        find_checkpoint(ModelSource(str(tmp_path)))
    folder = save_tiny_scorer(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        find_checkpoint(ModelSource(str(folder)))


def test_pickled_weights_have_to_be_asked_for(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = save_tiny_scorer(tmp_path / "model")
    wanted = Scorer.from_pretrained(str(folder), device="cpu", dtype="float32").score(["a"], ["b"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model\.bin\).*--allow-pickle"):
        Scorer.from_pretrained(str(folder))
    scorer = Scorer.from_pretrained(str(folder), device="cpu", dtype="float32", allow_pickle=True)
    # Memory that a pickle fills is aligned otherwise, which moves the last bit.
    assert np.allclose(scorer.score(["a"], ["b"]), wanted, atol=1e-6)


def test_a_head_of_several_logits(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path, num_labels=3)
    with pytest.raises(ModelError, match=r"has a head of 3 logits \(LABEL_0, LABEL_1, LABEL_2\); name the one"):
        load(folder)


def test_a_model_without_its_head(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_scorer(tmp_path)
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("classifier")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights \(classifier\."):
        load(folder)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    save_tiny_scorer(tmp_path, vocab_size=100)
    with pytest.raises(ModelError, match="its model 100: they do not match"):
        Scorer.from_pretrained(str(tmp_path), device="cpu")


def test_damaged_files(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path / "weights")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)
    folder = save_tiny_scorer(tmp_path / "config")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)
    folder = save_tiny_scorer(tmp_path / "tokenizer")
    (folder / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_code_of_the_model_is_not_run_unasked(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text("raise SystemExit('their code ran')")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load(folder)


def test_a_device_that_is_asked_for_and_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="device cuda is not available.*finds 0 GPUs"):
        settle_device("cuda")
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        settle_device("tpu")
    assert settle_device("auto") == "cpu"


def test_dtype_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        settle_dtype("int8", "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert settle_dtype("auto", "cpu") == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert settle_dtype("auto", "cpu") == "float32"
    model = load(save_tiny_scorer(tmp_path))
    assert settle_tokens_per_batch(model.config, "cpu", "float32") == CPU_TOKENS
    tokens = {}
    for free in (2**20, 2**24, 2**36):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**37))
        tokens[free] = settle_tokens_per_batch(model.config, "cuda", "bfloat16")
    assert tokens == {2**20: 512, 2**24: 8192, 2**36: 65536}
