"""Models on a hub, which a stub on the loopback serves: downloads, revisions, and what messages say."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from cappy_model.checkpoints import ModelError, ModelSource, find_checkpoint
from cappy_model.score.scorer import Scorer
from tests.cappy_model.checkpoints.hub_stub import Repository, commit_of, files_in, hub_environment, serving, use_hub
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import cappy, rows_of

ROOT = Path(__file__).resolve().parents[3]
PAIRS = (["What is it?", "Which one?"], ["the fox", "the dog"])
Serve = Callable[[dict[str, Repository]], str]


def released(folder: Path) -> Repository:
    """A repository as the released scorer's: pickled and Flax weights; safetensors in its first pull request."""
    save_tiny_scorer(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"of no use")
    safe = files_in(folder)
    weights = safe.pop("model.safetensors")
    main = safe | {"flax_model.msgpack": b"flax", "README.md": b"about it"}
    other = main | {"README.md": b"a typing error less"}
    return {"main": main, "refs/pr/1": main | {"model.safetensors": weights}, "refs/pr/2": other}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with ExitStack() as stack:

        def started(repositories: dict[str, Repository]) -> str:
            endpoint = stack.enter_context(serving(repositories, gated=["their/gated"]))
            use_hub(endpoint, tmp_path / "hub", monkeypatch)
            return endpoint

        yield started


def scores(name: str, **permissions: bool) -> np.ndarray:
    return Scorer.from_pretrained(name, device="cpu", dtype="float32", **permissions).score(*PAIRS)


def message_of(name: str, **permissions: bool) -> str:
    with pytest.raises(ModelError) as caught:
        find_checkpoint(ModelSource(name, **permissions))
    return str(caught.value)


def test_pickled_weights_and_a_revision_with_safetensors(tmp_path: Path, serve: Serve) -> None:
    serve({"btan2/cappy-large": released(tmp_path / "model")})
    assert message_of("btan2/cappy-large") == (
        "btan2/cappy-large: its weights are pickled (pytorch_model.bin), which can run any code (there is "
        "flax_model.msgpack, too); give btan2/cappy-large@refs/pr/1, which has safetensors (a pull request, so see who "
        "has opened it), or give --allow-pickle (allow_pickle=True) if you trust their source"
    )
    wanted = scores(str(tmp_path / "model"))
    assert np.array_equal(scores("btan2/cappy-large@refs/pr/1"), wanted)
    # Memory that a pickle fills is aligned otherwise, which moves the last bit.
    assert np.allclose(scores("btan2/cappy-large", allow_pickle=True), wanted, atol=1e-6)


def test_a_branch_with_safetensors_comes_before_pull_requests(tmp_path: Path, serve: Serve) -> None:
    repository = dict(released(tmp_path / "model"))
    serve({"a/model": repository | {"safe": repository["refs/pr/1"]}})
    assert "give a/model@safe, which has safetensors, or give --allow-pickle" in message_of("a/model")


def test_weights_of_other_formats(serve: Serve) -> None:
    names = ["model.Q4_K_M.gguf", "onnx/model.onnx", "onnx/model_int8.onnx", "tf_model.h5"]
    files = dict.fromkeys(names, b"weights")
    serve({"a/model": {"main": {"config.json": b"{}", **files}}, "a/bare": {"main": {"config.json": b"{}"}}})
    found = "has no weights (*.safetensors), only model.Q4_K_M.gguf, onnx/model.onnx, onnx/model_int8.onnx and 1 more"
    assert found in message_of("a/model")
    assert "a/bare: has no weights (*.safetensors); give a model" in message_of("a/bare")


def test_a_hub_that_does_not_answer_hides_no_message(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    serve({"a/model": released(tmp_path / "model")})
    message_of("a/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "a/model: has no weights (*.safetensors); give a model" in message_of("a/model")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody/nothing", "it has no public model of this name; for a private one, log in"),
        ("their/gated", "its makers ask for an agreement; accept it on the page of the model, then log in"),
        ("their/model@v9", "the model has no such revision"),
    ],
)
def test_models_that_the_hub_does_not_give(tmp_path: Path, serve: Serve, name: str, reason: str) -> None:
    files = files_in(save_tiny_scorer(tmp_path / "model"))
    serve({"their/gated": {"main": files}, "their/model": {"main": files}})
    assert f"{name}: no such folder here, and it cannot be fetched from the model hub: {reason}" in message_of(name)


def test_what_is_fetched(tmp_path: Path, serve: Serve) -> None:
    files = files_in(save_tiny_scorer(tmp_path / "model"))
    files["modules.json"] = b'[{"path": ""}, {"path": "1_Dense"}]'
    fetched = dict.fromkeys(
        ["1_Dense/config.json", "additional_chat_templates/tool.jinja", "chat_template.jinja", "README.md"], b"x"
    )
    left = dict.fromkeys(["checkpoint-500/model.safetensors", "onnx/config.json", "own.py"], b"y")
    serve({"a/model": {"main": files | fetched | left}})
    found = find_checkpoint(ModelSource("a/model"))
    assert found.content == commit_of(files | fetched | left)
    assert files_in(found.folder) == files | fetched


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = serve({"btan2/cappy-large": released(tmp_path / "model")})
    readme = (ROOT / "README.md").read_text()
    block = next(text for text in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL) if "score --input" in text)
    commands = [shlex.split(line, comments=True) for line in block.splitlines() if line.startswith(".venv/bin/cappy ")]
    assert any("--model btan2/cappy-large" in shlex.join(command) for command in commands)
    (tmp_path / "outputs").mkdir()
    rows = [
        {"instruction": f"Which animal is it, {row}?", "response": response, "references": ["the fox"]}
        for row in range(3)
        for response in ("the fox", "the lazy dog")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "outputs" / "a.parquet")
    doctor, score, *others = commands
    environment = hub_environment(endpoint, tmp_path / "hub") | {"PYTHONPATH": str(ROOT)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "beam_pipelines.program", *command[1:]]
        return subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)

    examined = run(*doctor)
    assert examined.returncode == 0, examined.stderr
    assert "No fault of btan2/cappy-large@refs/pr/1 was found; unknown: " in examined.stdout
    done = run(*score, "--direct_num_workers=1")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    (rerank, evaluate, export) = others
    assert [cappy(*command[1:], "--direct_num_workers=1") for command in (rerank, evaluate)] == [0, 0]
    assert cappy(*export[1:]) == 0 and (tmp_path / "best.csv").is_file()
    assert len(rows_of(tmp_path / "scored")) == 6
    assert len(rows_of(tmp_path / "best")) == 3


def test_the_python_of_the_readme_names_models_that_load(tmp_path: Path, serve: Serve) -> None:
    serve({"btan2/cappy-large": released(tmp_path / "model")})
    names = set(re.findall(r"""btan2/cappy-large[\w@/.-]*(?=["'\s])""", (ROOT / "README.md").read_text()))
    for name in names:
        assert len(scores(name)) == 2


def test_a_chat_template_in_a_file(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "cache"))
    folder = save_tiny_generator(tmp_path / "model")
    assert (folder / "chat_template.jinja").is_file()
    serve({"a/chat": {"main": files_in(folder)}})
    pq.write_table(pa.table({"instruction": ["the fox", "the dog"]}), tmp_path / "in.parquet")
    options = [f"--input={tmp_path / 'in.parquet'}", "--chat", "--decodings=greedy", "--max-new-tokens=4"]
    candidates = {}
    for place, name in (("folder", str(folder)), ("url", f"file://{folder}"), ("from_hub", "a/chat")):
        output = tmp_path / place
        assert cappy("generate", *options, f"--model={name}", f"--output={output}", "--direct_num_workers=1") == 0
        candidates[place] = [row["response"] for row in rows_of(output)]
    assert candidates["folder"] == candidates["url"] == candidates["from_hub"]
    assert len(candidates["from_hub"]) == 2
