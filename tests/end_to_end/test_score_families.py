"""`cappy score` with an encoder-decoder, a reward model and a yes/no reranker: scores, resuming, the manifest."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cappy_model.score.scorer import Scorer
from tests.cappy_model.models import save_tiny_scorer
from tests.cappy_model.score.families import save_decoder, save_encoder
from tests.cappy_model.score.references import TOLERANCE, chat_logits, encoder_logits, word_logits
from tests.conftest import cappy, data_bytes, manifest_of, rows_of, sentence
from tests.end_to_end.inputs import ONE_PROCESS, TWO_THREADS, json_lines, said, settled

torch.set_num_threads(1)

PROMPT = "Q: {{ instruction }}\nA: {{ response }}\nRight? "
FILES, CANDIDATES = 4, 6


class Case(NamedTuple):
    """A model, the flags that it needs, its scores of (instruction, response) by transformers, and its meaning."""

    model: Path
    flags: list[str]
    plain: Callable[[list[tuple[str, str]]], np.ndarray]
    meaning: dict[str, str]


@pytest.fixture(scope="module", params=["t5", "reward", "reranker"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    model = folder / "model"
    if request.param == "t5":
        save_encoder(model, "t5")
        plain = lambda pairs: encoder_logits(model, pairs, 64)[:, 0]  # noqa: E731
        return Case(model, [], plain, {"head": "logit", "template": "none", "activation": "identity"})
    if request.param == "reward":
        save_decoder(model, "qwen2")
        plain = lambda pairs: chat_logits(model, pairs)[:, 0]  # noqa: E731
        return Case(model, [], plain, {"head": "logit", "template": "chat", "activation": "identity"})
    save_decoder(model, "qwen3", kind="causal")
    (folder / "prompt.jinja").write_text(f"{PROMPT}\n")  # as editors end a file; jinja drops that newline
    flags = ["--head", "yes,no", "--template", str(folder / "prompt.jinja")]

    def difference(pairs: list[tuple[str, str]]) -> np.ndarray:
        prompts = [f"Q: {a}\nA: {b}\nRight? " for a, b in pairs]
        return np.subtract(*word_logits(model, prompts, ["yes", "no"]).T)

    return Case(model, flags, difference, {"head": "yes,no", "template": "file", "activation": "identity"})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one unit each, with six candidates to an instruction."""
    folder = tmp_path_factory.mktemp("in")
    for number in range(FILES):
        rows = [
            {"instruction": sentence(number * 5 + row // CANDIDATES, 9), "response": sentence(row, 3)}
            for row in range(18)
        ]
        (folder / f"{number}.jsonl").write_bytes(json_lines(*rows))
    return folder


def score(case: Case, inputs: Path, output: Path, *more: object) -> int:
    flags = ["--input", inputs / "*.jsonl", "--model", case.model, "--output", output, *case.flags]
    return cappy("score", *settled(*flags, "--device", "cpu", "--dtype", "float32", *more))


def test_scores_are_the_plain_ones_and_the_manifest_says_what_they_are(
    case: Case, inputs: Path, tmp_path: Path
) -> None:
    assert score(case, inputs, tmp_path / "out", *ONE_PROCESS) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == FILES * 18
    found = np.array([row["score"] for row in rows])
    wanted = case.plain([(row["instruction"], row["response"]) for row in rows])
    assert wanted.std() > 0.1 and np.abs(found - wanted).max() < TOLERANCE
    manifest = manifest_of(tmp_path / "out")
    assert case.meaning.items() <= manifest["model"].items()
    assert cappy("verify", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert case.meaning["template"] in page and case.meaning["head"] in page


def test_a_resumed_run_has_the_bytes_of_an_undisturbed_one(case: Case, inputs: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert score(case, inputs, whole, *ONE_PROCESS) == 0
    shutil.copytree(whole, broken)
    for name in ("manifest.json", "report.html", "README.md"):
        (broken / name).unlink(missing_ok=True)
    parts = sorted(broken.glob("rows/part-*.parquet"))
    for part in parts[::2]:
        part.unlink()
    kept = {part: (part.stat().st_ino, part.stat().st_mtime_ns) for part in parts[1::2]}
    assert len(kept) == FILES // 2
    assert score(case, inputs, broken, *TWO_THREADS) == 0
    assert {part: (part.stat().st_ino, part.stat().st_mtime_ns) for part in kept} == kept
    assert data_bytes(broken) == data_bytes(whole)


@pytest.mark.slow
def test_a_killed_run_of_a_reward_model_goes_on(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "model", "qwen2", num_hidden_layers=6)
    (tmp_path / "in").mkdir()
    for number in range(16):
        rows = [{"instruction": sentence(row // CANDIDATES, 20), "response": sentence(row, 9)} for row in range(60)]
        (tmp_path / "in" / f"{number:02d}.jsonl").write_bytes(json_lines(*rows))
    flags = ["--input", tmp_path / "in" / "*.jsonl", "--model", model, "--device", "cpu", "--dtype", "float32"]
    command = [sys.executable, "-m", "beam_pipelines.program", "score", *map(str, flags), "--output"]
    output, seen = tmp_path / "out", 0
    for _ in range(2):
        process = subprocess.Popen([*command, str(output)], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(output.glob("rows/part-*"))) < seen + 3:
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()
        process.wait()
        seen = len(list(output.glob("rows/part-*")))
    assert 0 < seen < 16
    for folder in (output, tmp_path / "whole"):
        assert subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL).returncode == 0
    assert data_bytes(output) == data_bytes(tmp_path / "whole")


def test_another_head_or_template_is_another_run(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_decoder(tmp_path / "model", "qwen3", kind="causal")
    template = tmp_path / "prompt.jinja"
    template.write_text(PROMPT)
    flags = ["--input", inputs / "0.jsonl", "--model", model, "--output", tmp_path / "out", "--device", "cpu"]
    assert cappy("score", *flags, "--head", "yes,no", "--template", template, *ONE_PROCESS) == 0
    capsys.readouterr()
    assert cappy("score", *flags, "--head", "Yes,No", "--template", template, *ONE_PROCESS) != 0
    assert "head" in said(capsys)
    template.write_text(f"Is it so? {PROMPT}")
    assert cappy("score", *flags, "--head", "yes,no", "--template", template, *ONE_PROCESS) != 0
    assert "template" in said(capsys)


def test_a_run_json_without_head_and_template_resumes(inputs: Path, tmp_path: Path) -> None:
    """An encoder's entries are those of runs before there were heads and templates."""
    case = Case(save_tiny_scorer(tmp_path / "model"), [], lambda pairs: np.zeros(len(pairs)), {})
    assert score(case, inputs, tmp_path / "out", *ONE_PROCESS) == 0
    facts = json.loads((tmp_path / "out" / "run.json").read_text())["facts"]
    assert facts["model"].keys() == {
        *("content", "type", "dtype", "device", "max_length", "truncation", "tokens_per_batch")
    }
    part = sorted((tmp_path / "out").glob("rows/part-*.parquet"))[0]
    kept = part.read_bytes()
    for path in (part, tmp_path / "out" / "manifest.json"):
        path.unlink()
    assert score(case, inputs, tmp_path / "out", *ONE_PROCESS) == 0
    assert part.read_bytes() == kept


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--template", "none.jinja"], "no such file"),
        (["--template", "half.jinja"], "ignores the response"),
        (["--head", "good"], "--head good"),
        (["--template", "latin.jinja"], "UTF-8"),
    ],
)
def test_what_is_wrong_is_said_before_a_row_is_read(
    flags: list[str], reason: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("half.jinja").write_text("{{ instruction }}")
    Path("latin.jinja").write_bytes("{{ instruction }} é {{ response }}".encode("latin-1"))
    model = save_decoder(tmp_path / "model", "llama")
    command = ["score", "--input", inputs / "*.jsonl", "--model", model, "--output", tmp_path / "out", *flags]
    assert cappy(*command) in (1, 2)
    assert reason in said(capsys)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("rows/part-*"))


def test_python_and_the_command_agree(case: Case, inputs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    if case.flags:
        options = {"head": case.flags[1], "template": Path(case.flags[3]).read_text()}
    assert score(case, inputs, tmp_path / "out", *ONE_PROCESS) == 0
    rows = rows_of(tmp_path / "out")[:18]
    scorer = Scorer.from_pretrained(str(case.model), device="cpu", dtype="float32", **options)
    found = scorer.score([row["instruction"] for row in rows], [row["response"] for row in rows])
    assert np.array_equal(found, np.array([row["score"] for row in rows], dtype=np.float32))
