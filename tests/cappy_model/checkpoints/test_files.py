"""The files that name a model's content: every one that shapes what it does, and no other."""

import hashlib
import json
import uuid
from pathlib import Path

import fsspec
import pytest

from cappy_model.checkpoints import Checkpoint, ModelError, ModelSource, find_checkpoint, load_config
from schemas.ids import digest
from tests.cappy_model.checkpoints.hub_stub import files_in
from tests.cappy_model.models import save_tiny_scorer


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_scorer(tmp_path / "model")


def in_memory(folder: Path) -> str:
    """Copy a folder to a file system in memory and return its URL."""
    root = f"/models/{uuid.uuid4().hex}/{folder.name}"
    for name, content in files_in(folder).items():
        fsspec.filesystem("memory").pipe_file(f"{root}/{name}", content)
    return f"memory:/{root}"


def found(folder: Path, **permissions: bool) -> Checkpoint:
    """Find a model by its folder and by a URL, which have the same content; return the copy of the URL."""
    local = find_checkpoint(ModelSource(str(folder), **permissions))
    remote = find_checkpoint(ModelSource(in_memory(folder), **permissions))
    assert local.content == remote.content == find_checkpoint(ModelSource(f"file://{folder}", **permissions)).content
    return remote


def write(folder: Path, name: str, content: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def test_content_of_a_plain_folder_is_as_it_was_in_earlier_runs(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    write(folder, "config.json", "{}")
    write(folder, "model.safetensors", "weights")
    expected = hashlib.blake2b(digest_size=16)
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"weights")):
        expected.update(digest(name, str(len(content))).encode() + content)
    assert found(folder).content == expected.hexdigest() == "23d61fd47986f05276352df8705e8ece"


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja", "spiece.model", "added_tokens.json"]
)
def test_files_that_shape_what_a_model_does(model: Path, name: str) -> None:
    contents = {found(model).content}
    for text in ("one", "two"):
        write(model, name, text)
        checkpoint = found(model)
        contents.add(checkpoint.content)
        assert (checkpoint.folder / name).read_text() == text
    assert len(contents) == 3


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "pytorch_model.bin", "optimizer.pt", "own.py", "run.json", "manifest.json", "metrics.json"),
        *("checkpoint-500/model.safetensors", "onnx/config.json", "1_Dense/config.json", "evaluation/scores.json"),
    ],
)
def test_files_that_are_no_part_of_a_model(model: Path, name: str) -> None:
    before = found(model).content
    write(model, name, "something else")
    checkpoint = found(model)
    assert checkpoint.content == before
    assert name not in files_in(checkpoint.folder)


def test_files_by_permission(model: Path) -> None:
    for name, permission in (("pytorch_model.bin", "allow_pickle"), ("own.py", "trust_remote_code")):
        before = found(model, **{permission: True}).content
        write(model, name, "something else")
        assert found(model, **{permission: True}).content != before


def test_folders_of_modules(model: Path) -> None:
    modules = [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Dense"}, {"idx": 2, "path": "2_Router/deep"}]
    write(model, "modules.json", json.dumps(modules))
    contents = {found(model).content}
    for name in ("1_Dense/config.json", "1_Dense/model.safetensors", "2_Router/deep/er/config.json"):
        write(model, name, "part of it")
        checkpoint = found(model)
        contents.add(checkpoint.content)
        assert (checkpoint.folder / name).read_text() == "part of it"
    write(model, "1_Dense/README.md", "no part of it")
    write(model, "2_Router/other/config.json", "no part of it")
    contents.add(found(model).content)
    assert len(contents) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "its modules.json is no list of modules with a `path` each"),
        ('[{"idx": 0}]', "its modules.json is no list of modules with a `path` each"),
        ('[{"path": "../elsewhere"}]', r"its modules.json names '\.\./elsewhere', which is not below"),
        ('[{"path": "/etc"}]', "its modules.json names '/etc', which is not below"),
    ],
)
def test_a_list_of_modules_that_cannot_be_used(model: Path, content: str, message: str) -> None:
    write(model, "modules.json", content)
    for name in (str(model), f"file://{model}"):
        with pytest.raises(ModelError, match=message):
            find_checkpoint(ModelSource(name))


def test_a_chat_template_comes_with_a_url(model: Path) -> None:
    write(model, "chat_template.jinja", "{{ messages[0].content }}")
    assert load_config(found(model))[1].chat_template == "{{ messages[0].content }}"


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_a_chat_template_of_a_processor(model: Path, name: str) -> None:
    write(model, name, json.dumps({"chat_template": "{{ messages[0].content }}"}))
    assert load_config(found(model))[1].chat_template == "{{ messages[0].content }}"
    write(model, "chat_template.jinja", "the tokenizer's own")
    assert load_config(found(model))[1].chat_template == "the tokenizer's own"


def test_a_processor_without_a_chat_template(model: Path) -> None:
    write(model, "processor_config.json", "{}")
    assert not load_config(found(model))[1].chat_template
    write(model, "chat_template.json", "[]")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_config(found(model))


def test_a_folder_with_brackets_in_its_name(tmp_path: Path) -> None:
    folder = save_tiny_scorer(tmp_path / "run [v1]")
    assert found(folder).content == found(folder).content


@pytest.mark.parametrize("url", [False, True], ids=["folder", "url"])
def test_weights_of_other_formats(tmp_path: Path, url: bool) -> None:
    write(tmp_path / "model", "config.json", "{}")
    write(tmp_path / "model", "onnx/model.onnx", "weights")
    write(tmp_path / "model", "training_args.bin", "no weights")
    name = in_memory(tmp_path / "model") if url else str(tmp_path / "model")
    with pytest.raises(ModelError, match=r"has no weights \(\*\.safetensors\), only onnx/model\.onnx; give a model"):
        find_checkpoint(ModelSource(name, allow_pickle=True))
    write(tmp_path / "model", "pytorch_model.bin", "weights")
    name = in_memory(tmp_path / "model") if url else name
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model\.bin\).* \(there is onnx/model\.onnx, too\)"):
        find_checkpoint(ModelSource(name))


def test_weights_without_a_configuration(tmp_path: Path) -> None:
    write(tmp_path / "model", "model.Q4_K_M.gguf", "weights")
    with pytest.raises(ModelError, match=r"has no config\.json, only model\.Q4_K_M\.gguf; give a folder"):
        find_checkpoint(ModelSource(str(tmp_path / "model")))
