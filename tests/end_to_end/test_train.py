"""`cappy train`: its output, equal scores after loading, resume, refusals, and several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from beam_pipelines.jobs.train.files import Mirror
from beam_pipelines.runs.lock import hold
from cappy_model.score.scorer import Scorer
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.cappy_model.train.corpora import some_rows, write_corpus, write_pairs
from tests.conftest import cappy, manifest_of, metrics_of
from tests.end_to_end.inputs import json_lines, said, settled
from tests.store import Store

torch.set_num_threads(1)  # as OMP_NUM_THREADS does for the processes below: other sums, other bits

QUICK = ["--batch-size", "8", "--accumulation", "2", "--learning-rate", "1e-3", "--max-length", "60", "--device", "cpu"]
QUICK += ["--dtype", "float32", "--eval-fraction", "0.2", "--shuffle-buffer", "100"]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Return a folder with a corpus and a model."""
    write_corpus(tmp_path / "pairs", 300)
    save_tiny_scorer(tmp_path / "init")
    return tmp_path


def flags(inputs: Path, *more: object) -> list[str]:
    given = ["--corpus", inputs / "pairs" / "*.parquet", "--model", inputs / "init", *QUICK, *more]
    return ["train", *settled(*given)]


def weights(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(folder / "model.safetensors")
    return found


def same(first: Path, second: Path) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_output(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    rows = some_rows(300)
    (tmp_path / "held.jsonl").write_bytes(
        json_lines(*({"instruction": row["instruction"].upper()} for row in rows[:10]))
    )
    assert cappy(*flags(inputs, "--output", output, "--held-out", tmp_path / "held.jsonl", "--max-steps", 5)) == 0
    printed = capsys.readouterr().out
    manifest, metrics = manifest_of(output), metrics_of(output)
    assert "5 steps over" in printed and "10 pairs dropped for held-out instructions" in printed
    pairs = manifest["pairs"]
    assert pairs["read"] == 300 and pairs["held_out"] == 10 and pairs["held_out_instructions"] == 5
    assert pairs["training"] + pairs["evaluation"] == 290
    assert metrics["step"] == metrics["steps"] == 5 and metrics["evaluation"]["loss"] > 0
    assert manifest["metrics"]["evaluation"] == metrics["evaluation"]
    config = json.loads((output / "config.json").read_text())
    assert config["cappy"] == {"truncation": "keep_response", "max_length": 60}
    card = (output / "README.md").read_text()
    assert "10 were dropped for 5 held-out instructions" in card and "| things | " in card and str(tmp_path) not in card
    assert not (output / "checkpoints").exists()
    assert cappy("verify", output) == 0

    scorer = Scorer.from_pretrained(str(output), device="cpu", dtype="float32")
    assert (scorer.truncation, scorer.max_length) == ("keep_response", 60)
    by_instruction = {row["instruction"] for row in rows}
    assert len(by_instruction) == 150

    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    assert cappy(*flags(inputs, "--output", output, "--held-out", tmp_path / "held.jsonl", "--max-steps", 5)) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


def test_held_out_may_be_repeated(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    held = []
    for name, rows in (("first", some_rows(300)[:10]), ("second", some_rows(300)[10:16])):
        held += ["--held-out", tmp_path / f"{name}.jsonl"]
        held[-1].write_bytes(json_lines(*({"instruction": row["instruction"]} for row in rows)))
    assert cappy(*flags(inputs, "--output", output, "--max-steps", 1, *held)) == 0
    assert manifest_of(output)["pairs"]["held_out"] == 16
    run = json.loads((output / "run.json").read_text())
    assert run["configuration"]["held_out"] == [str(path) for path in held[1::2]]
    assert [file["name"] for file in run["facts"]["held_out"]] == ["first.jsonl", "second.jsonl"]


@pytest.fixture
def assessed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, np.ndarray]]:
    """Return a list that receives the pairs and the scores of each evaluation during training."""
    from cappy_model.train.assessment import Assessment

    seen: list[tuple[Any, np.ndarray]] = []
    score = Assessment.scores

    def record(self: Assessment, *arguments: Any) -> np.ndarray:
        seen.append((self.pairs, score(self, *arguments)))
        return seen[-1][1]

    monkeypatch.setattr(Assessment, "scores", record)
    return seen


def test_scores_are_the_same_after_loading(
    inputs: Path, tmp_path: Path, assessed: list[tuple[Any, np.ndarray]]
) -> None:
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--max-steps", 4)) == 0
    pairs, scores = assessed[-1]
    found = Scorer.from_pretrained(str(tmp_path / "out"), device="cpu", dtype="float32").score(
        pairs.instructions, pairs.responses
    )
    assert len(found) > 30 and np.abs(found - scores).max() < 1e-5
    metrics = metrics_of(tmp_path / "out")
    assert metrics["evaluation"]["loss"] == pytest.approx(float(((found - pairs.labels) ** 2).mean()), abs=1e-6)


def test_a_template_is_kept_in_the_model(
    inputs: Path, tmp_path: Path, assessed: list[tuple[Any, np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "template.jinja").write_text("What is {{ instruction }}? yes {{ response }}\n")
    given = flags(inputs, "--output", tmp_path / "out", "--max-steps", 2, "--template", tmp_path / "template.jinja")
    assert cappy(*given) == 0
    block = json.loads((tmp_path / "out" / "config.json").read_text())["cappy"]
    assert block["template"] == "What is {{ instruction }}? yes {{ response }}\n"
    pairs, scores = assessed[-1]
    load = partial(Scorer.from_pretrained, str(tmp_path / "out"), device="cpu", dtype="float32")
    found = load().score(pairs.instructions, pairs.responses)
    assert np.abs(found - scores).max() < 1e-5
    assert np.abs(load(template="none").score(pairs.instructions, pairs.responses) - scores).max() > 1e-3
    (tmp_path / "template.jinja").write_text("{{ instruction }}: {{ response }}")
    assert cappy(*given) == 1
    refusal = "holds another run: the template (--template, or the one in the model's files) has changed"
    assert refusal in capsys.readouterr().err


def test_files_of_sentence_transformers(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = [{"path": f"1_{kind}", "type": f"modules.{kind}"} for kind in ("Pooling", "Normalize")]
    (inputs / "init" / "modules.json").write_text(json.dumps([{"path": "", "type": "modules.Transformer"}, *modules]))
    stored = {"prompts": {"web": "query: "}, "default_prompt_name": "web"}
    settings = inputs / "init" / "config_sentence_transformers.json"
    settings.write_text(json.dumps({**stored, "model_type": "SentenceTransformer"}))
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--max-steps", 1)) == 0
    settings.write_text(json.dumps({**stored, "model_type": "CrossEncoder"}))
    capsys.readouterr()
    assert cappy(*flags(inputs, "--output", tmp_path / "other", "--max-steps", 1)) == 2
    assert "stores a prompt of sentence-transformers" in capsys.readouterr().err


def test_another_run_in_the_folder_and_overwrite(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert cappy(*flags(inputs, "--output", output, "--max-steps", 2)) == 0
    first = weights(output)
    assert cappy(*flags(inputs, "--output", output, "--max-steps", 2, "--learning-rate", "2e-3")) == 1
    assert "holds another run: settings.learning_rate: 0.001 -> 0.002. Give another folder" in said(capsys)
    more = ("--max-steps", 3, "--learning-rate", "2e-3", "--overwrite")
    assert cappy(*flags(inputs, "--output", output, *more)) == 0
    assert manifest_of(output)["metrics"]["steps"] == 3
    assert any(not np.array_equal(first[name], value) for name, value in weights(output).items())
    assert not (output / "checkpoints").exists()
    with hold(str(tmp_path / "held"), {}):
        assert cappy(*flags(inputs, "--output", tmp_path / "held")) == 1
    assert "another job is running in it" in said(capsys)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("all of it")
    assert cappy(*flags(inputs, "--output", tmp_path / "foreign", "--overwrite")) == 1
    assert "holds 'thesis.txt' and no run.json, so it is not a job's folder" in said(capsys)


def test_overwrite_deletes_no_input(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert cappy(*flags(inputs, "--output", output, "--max-steps", 2)) == 0
    before = weights(output)
    for model in (output, shutil.copytree(inputs / "init", output / "checkpoints" / "checkpoint-2")):
        assert cappy(*flags(inputs, "--output", output, "--max-steps", 2, "--model", model, "--overwrite")) == 2
        assert "config.json: is an input, and --overwrite would delete it; give another --output" in said(capsys)
    assert all(np.array_equal(before[name], value) for name, value in weights(output).items())


def test_weights_and_limits(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.yaml").write_text("label_source: {wrong_choice: 0.5}\ndataset: {quiz: 0.0}\n")
    more = ("--weights", tmp_path / "weights.yaml", "--max-pairs", 60, "--epochs", 2)
    assert cappy(*flags(inputs, "--output", tmp_path / "out", *more)) == 0
    manifest = manifest_of(tmp_path / "out")
    assert manifest["pairs"]["training"] == 60 and "quiz" not in manifest["made_of"]["training"]
    assert manifest["metrics"]["steps"] == 8  # two epochs of 60 pairs, 16 in a step
    for text, message in [
        ("dataset: {quiz: 2}", "dataset 'quiz' is 2; a weight is the share of the pairs that is taken"),
        ("source: {quiz: 1}", "'source' is not known; there are label_source and dataset"),
        ("- 1", "must map label_source and dataset to names"),
        ("a: [", "is not YAML"),
    ]:
        (tmp_path / "weights.yaml").write_text(text)
        assert cappy(*flags(inputs, "--output", tmp_path / "other", *more)) == 2
        assert message in said(capsys)


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--eval-fraction", "1"], 2, "--eval-fraction 1 leaves nothing to learn from"),
        (["--eval-fraction", "0", "--patience", "2"], 2, "--patience needs pairs to evaluate on"),
        (["--batches", "random", "--loss", "mse+listwise"], 2, "it needs --batches grouped"),
        (["--chosen-column", "better"], 2, "--chosen-column and --rejected-column belong together"),
        (["--chosen-column", "a", "--rejected-column", "b", "--labels", "raw"], 2, "leave out --response-column"),
        (["--max-steps", "3", "--pairs-seen", "9"], 2, "--pairs-seen and --max-steps both end training"),
        (["--chosen-column", "better", "--rejected-column", "worse"], 1, "'better' and 'worse'; name others with"),
        (["--label-column", "score"], 1, "--label-column"),
        (["--response-column", "instruction"], 2, "the column 'instruction' is named for two roles"),
        (["--dropout", "1"], 2, "1 drops everything"),
        (["--max-pairs", "1"], 1, "the first instruction drawn has more than --max-pairs 1: give more"),
        (["--dtype", "float16"], 2, "--dtype float16 is not known"),
        (["--report-to", "notepad"], 2, "--report-to notepad: notepad is not supported"),
        (["--max-length", "65"], 1, "a length of 65 tokens: the model has 64 positions"),
        (["--weights", "none.yaml"], 2, "none.yaml: there is no such file"),
        (["--runner", "FlinkRunner"], 2, "unknown flag --runner"),
        (["--held-out", "{}/pairs/*.parquet"], 1, "no pair is left for training"),
        (["--corpus", "{}/init/config.json"], 1, "config.json: has JSON objects over several lines"),
        (["--model", "{}/pairs"], 1, "has no config.json"),
        (["--model", "{}/llama", "--dry-run"], 1, "is a llama, a decoder-only language model; give an encoder"),
    ],
)
def test_errors_before_training(
    more: list[str], status: int, message: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "{}/llama" in more:
        save_tiny_generator(inputs / "llama", "llama")
    given = [each.format(inputs) for each in more]
    assert cappy(*flags(inputs, "--output", tmp_path / "out", *given)) == status
    assert message in said(capsys)


def test_invalid_corpus(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = some_rows(20)
    rows[3]["label"] = 1.25
    write_pairs(inputs / "pairs" / "wrong.parquet", rows)
    assert cappy(*flags(inputs, "--output", tmp_path / "out")) == 1
    assert "wrong.parquet#3: the label is 1.25; labels lie between 0 and 1" in said(capsys)
    pq.write_table(
        pq.read_table(inputs / "pairs" / "wrong.parquet").drop_columns("label"), inputs / "pairs" / "wrong.parquet"
    )
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--overwrite")) == 1
    assert "wrong.parquet: has no column 'label'; name others with --label-column" in said(capsys)


def test_corpus_without_pairs(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(inputs / "empty" / "none.parquet", [])
    given = ("--corpus", inputs / "empty" / "*.parquet", "--output", tmp_path / "out")
    assert cappy(*flags(inputs, *given)) == 1
    assert "empty/*.parquet: holds no pairs; give labelled pairs, as build-corpus writes them" in said(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{", "[1]", "{}"])
def test_damaged_manifest_of_the_corpus(
    content: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "pairs" / "manifest.json").write_text(content)
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--max-steps", 1)) == 0
    printed = said(capsys)
    assert "pairs/manifest.json: is damaged" in printed and "does not describe its corpus" in printed
    assert manifest_of(tmp_path / "out")["corpus"] is None


class Interrupted(BaseException):
    """Raised in place of a signal."""


def interrupt(*_: Any, **__: Any) -> None:
    raise Interrupted


def test_corpus_moved_between_launches(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = flags(inputs, "--output", tmp_path / "out", "--max-steps", 3, "--save-every", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Mirror, "push", interrupt)
        with pytest.raises(Interrupted):
            cappy(*given)
    (inputs / "pairs").rename(inputs / "moved")
    assert cappy(*settled(*given, "--corpus", inputs / "moved" / "*.parquet")) == 0
    (inputs / "moved").rename(inputs / "pairs")
    assert cappy(*flags(inputs, "--output", tmp_path / "plain", "--max-steps", 3, "--save-every", 1)) == 0
    assert same(tmp_path / "out", tmp_path / "plain")


def pushed_until(monkeypatch: pytest.MonkeyPatch, last: str = "") -> list[str]:
    """Record the names of checkpoints as they are copied; interrupt the run after the `last`."""
    names: list[str] = []
    push = Mirror.push

    def record(self: Mirror, checkpoint: Path) -> None:
        push(self, checkpoint)
        names.append(checkpoint.name)
        if checkpoint.name == last:
            raise Interrupted

    monkeypatch.setattr(Mirror, "push", record)
    return names


def test_object_store(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--max-steps", 4, "--save-every", 1)) == 0
    for path in (tmp_path / "init").iterdir():
        store.pipe_file(f"/store/init/{path.name}", path.read_bytes())
    more = ("--model", "store://store/init", "--output", "store://store/out", "--max-steps", 4, "--save-every", 1)
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "first"))
    with monkeypatch.context() as patched:
        pushed_until(patched, "checkpoint-3")
        with pytest.raises(Interrupted):
            cappy(*flags(inputs, *more))
    names = {name.split("/")[4] for name in store.find("/store/out/checkpoints")}
    assert names == {"checkpoint-2", "checkpoint-3"}
    # Another machine, with an empty cache, resumes from the checkpoints in the store.
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "second"))
    with monkeypatch.context() as patched:
        pushed = pushed_until(patched)
        assert cappy(*flags(inputs, *more)) == 0
    assert pushed == ["checkpoint-4"]
    store.get("/store/out", str(tmp_path / "fetched"), recursive=True)
    assert same(tmp_path / "out", tmp_path / "fetched")
    assert not store.find("/store/out/checkpoints")
    assert not list((tmp_path / "second" / "training").iterdir())


def test_overwrite_on_an_object_store_starts_again(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "cache"))
    given = flags(inputs, "--output", "store://again/out", "--max-steps", 3, "--save-every", 1)
    for last in ("checkpoint-2", "checkpoint-3"):
        with monkeypatch.context() as patched:
            pushed_until(patched, last)
            with pytest.raises(Interrupted):
                cappy(*given)
    pushed = pushed_until(monkeypatch)
    assert cappy(*given, "--overwrite") == 0
    assert pushed == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_logs_of_experiment_trackers_stay(inputs: Path, tmp_path: Path) -> None:
    logs = tmp_path / "out" / "checkpoints" / "runs"
    with hold(str(tmp_path / "out"), {}):
        logs.mkdir(parents=True)
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--max-steps", 1)) == 0
    assert list((tmp_path / "out" / "checkpoints").iterdir()) == [logs]


def test_dry_run(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy(*flags(inputs, "--output", tmp_path / "out", "--dry-run")) == 0
    printed = capsys.readouterr().out
    assert "3 files, 300 pairs" in printed and "at least 19 steps over at most 16 pairs each" in printed
    assert not (tmp_path / "out").exists()


def command(arguments: list[str], *launcher: str) -> list[str]:
    return [sys.executable, "-m", *launcher, "beam_pipelines.program", *arguments]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_it_and_the_same_command_resumes(
    number: signal.Signals, status: int, inputs: Path, tmp_path: Path
) -> None:
    arguments = flags(inputs, "--output", tmp_path / "out", "--max-steps", 30, "--save-every", 1)
    process = subprocess.Popen(
        command(arguments),
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out" / "checkpoints").glob("*/whole")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status and b"Traceback" not in error, error
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert cappy(*arguments) == 0
    plain = flags(inputs, "--output", tmp_path / "plain", "--max-steps", 30, "--save-every", 1)
    assert cappy(*plain) == 0
    assert same(tmp_path / "out", tmp_path / "plain")


@pytest.mark.slow
def test_full_disk(inputs: Path, tmp_path: Path) -> None:
    """Limit the size of files, which needs no privileges and fails as a full disk does."""
    import resource

    arguments = flags(inputs, "--output", tmp_path / "out", "--max-steps", 4)
    for limit, place in ((300, "rows"), (60_000, "checkpoint-1"), (250_000, "checkpoint-1")):
        limited = subprocess.run(
            command(arguments),
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert limited.returncode == 1 and "Traceback" not in limited.stderr, limited.stderr
        assert "cannot be written: " in limited.stderr and "--debug shows" not in limited.stderr, limited.stderr
        assert place in limited.stderr or place == "rows"
    assert cappy(*arguments) == 0
    assert cappy(*flags(inputs, "--output", tmp_path / "plain", "--max-steps", 4)) == 0
    assert same(tmp_path / "out", tmp_path / "plain")


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_accumulation(inputs: Path, tmp_path: Path) -> None:
    save_tiny_scorer(inputs / "init", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sizes = [(3, 0), (5, 1_000), (11, 2_000), (1, 3_000)]  # so that batches have different numbers of pairs
    rows = [row for size, first in sizes for row in some_rows(size * 20, first=first * size, responses=size)]
    write_pairs(inputs / "pairs" / "more.parquet", rows)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    two = flags(inputs, "--output", tmp_path / "two", "--max-steps", 6, "--patience", 9)
    done = subprocess.run(command(two, *launcher), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 steps over") == 1
    one = flags(inputs, "--output", tmp_path / "one", "--max-steps", 6, "--patience", 9, "--accumulation", 4)
    assert cappy(*one) == 0
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    start = weights(inputs / "init")
    # The true gradient of a key's bias is zero; Adam amplifies its rounding errors.
    names = [name for name in ours if not name.endswith("key.bias")]
    moved = max(float(np.abs(theirs[name] - start[name]).max()) for name in names)
    assert max(float(np.abs(ours[name] - theirs[name]).max()) for name in names) < 1e-5 < moved / 100
    metrics = [metrics_of(tmp_path / name)["evaluation"] for name in ("two", "one")]
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], abs=1e-5)
