"""`cappy generate` with real architectures: tiny T5, BART and Llama of random weights."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.jobs.generate import GenerateConfig, run
from beam_pipelines.runners.options import beam_options
from cappy_model.generate.decodings import PAPER, Drawing, decodings_named
from cappy_model.generate.generator import Generator
from schemas.ids import seed_for
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import build, cappy, data_bytes, manifest_of, sentence
from tests.end_to_end.inputs import ONE_PROCESS, PORTABLE, TWO_THREADS, parquet, said, settled
from tests.end_to_end.test_generate import candidates_of, check_accounts, some_rows, table

FAMILIES = ("t5", "bart", "llama")
CPU = ["--device", "cpu", "--dtype", "float32", "--tokens-per-batch", 2000]
SHORT = ["--max-new-tokens", 12]


def generate(path: Path, model: Path, output: Path, *flags: object) -> int:
    return cappy("generate", *settled("--input", path, "--model", model, "--output", output, *CPU, *SHORT, *flags))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write a file of 50 instructions in three templates."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet(table(some_rows(50))))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_are_the_generators_own(family: str, rows: Path, tmp_path: Path) -> None:
    model = save_tiny_generator(tmp_path / "tiny", family)
    assert generate(rows, model, tmp_path / "out", "--seed", 3, *TWO_THREADS) == 0
    drawing = Drawing(decodings_named(PAPER, {}), max_new_tokens=12)
    own = Generator.from_pretrained(str(model), drawing, device="cpu", dtype="float32", tokens_per_batch=2000)
    found, given = candidates_of(tmp_path / "out"), some_rows(50)
    drawn = own.draw([row["instruction"] for row in given], [seed_for(3, row["instruction_id"]) for row in given])
    wanted = [(s.decoding, s.sample_index, s.response, s.finish_reason) for one in drawn for s in one.samples]
    names = ("decoding", "sample_index", "response", "finish_reason")
    assert [tuple(row[name] for name in names) for row in found] == wanted
    sums = [sample.log_likelihood_sum for one in drawn for sample in one.samples]
    assert [row["log_likelihood_sum"] for row in found] == pytest.approx(sums, abs=1e-4)
    manifest = check_accounts(tmp_path / "out", 50)
    assert manifest["model"]["type"] == family and {row["generator"] for row in found} == {"tiny"}
    assert manifest["tokens"]["real"] == sum(sample.num_tokens for one in drawn for sample in one.samples)


@pytest.mark.parametrize("flags", [TWO_THREADS, PORTABLE], ids=["threads", "portable"])
def test_same_bytes_whatever_the_workers_and_after_a_rerun(flags: list[str], rows: Path, tmp_path: Path) -> None:
    model, units = save_tiny_generator(tmp_path / "tiny"), ["--unit-rows", 9, "--per-template", 10]
    assert generate(rows, model, tmp_path / "one", *units, *ONE_PROCESS) == 0
    assert generate(rows, model, tmp_path / "two", *units, *flags) == 0
    expected = data_bytes(tmp_path / "one")
    assert len(expected) == 6 and data_bytes(tmp_path / "two") == expected
    for path in (*sorted((tmp_path / "two").glob("candidates/part-*"))[1:3], tmp_path / "two" / "manifest.json"):
        path.unlink()
    assert generate(rows, model, tmp_path / "two", *units, *TWO_THREADS) == 0
    assert data_bytes(tmp_path / "two") == expected


def test_prompts_that_are_cut_are_counted(rows: Path, tmp_path: Path) -> None:
    model, cut = save_tiny_generator(tmp_path / "tiny"), ["--max-prompt-tokens", 16, "--truncation-side", "right"]
    assert generate(rows, model, tmp_path / "out", *cut, "--decodings", "greedy") == 0
    manifest = check_accounts(tmp_path / "out", 50)
    assert manifest["totals"]["prompts_truncated"] == 50 and manifest["tokens"]["prompt"] == 50 * 16
    assert (manifest["model"]["max_prompt_tokens"], manifest["model"]["truncation_side"]) == (16, "right")


def refused(capsys: pytest.CaptureFixture[str], status: int, wanted: int, message: str) -> None:
    assert (status, message in (words := said(capsys))) == (wanted, True), words


def test_models_that_cannot_be(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, model = tmp_path / "out", save_tiny_generator(tmp_path / "tiny", "t5")
    scorer = save_tiny_scorer(tmp_path / "scorer")
    refused(capsys, generate(rows, scorer, out), 1, "which generates no text; give a decoder-only or")
    refused(capsys, generate(rows, tmp_path / "gone", out), 1, "gone: no such folder")
    refused(capsys, generate(rows, model, out, "--dtype", "int4"), 2, "unknown dtype 'int4'")
    refused(capsys, generate(rows, model, out, "--device", "cuda:7"), 2, "device cuda:7 is not available")
    assert not out.exists()


def test_as_a_call(rows: Path, tmp_path: Path) -> None:
    model = save_tiny_generator(tmp_path / "tiny")
    settled: dict[str, Any] = {"device": "cpu", "decodings": ("greedy", "topk40"), "max_new_tokens": 5}
    config = GenerateConfig(input=str(rows), model=str(model), output=str(tmp_path / "out"), **settled)
    manifest = run(config, beam_options([], local_mode="multi_threading")).manifest
    assert manifest["totals"]["candidates"] == 250 == len(candidates_of(tmp_path / "out"))


def test_dry_run_generates_for_a_few_rows(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_generator(tmp_path / "tiny", "bart")
    assert generate(rows, model, tmp_path / "out", "--fraction", 0.5, "--dry-run") == 0
    words = capsys.readouterr().out
    assert (
        "bart" in words
        and "about 25 of them to generate for" in words
        and "measured by generating for 4 rows here" in words
    )
    assert not (tmp_path / "out").exists()


def test_three_commands_make_a_corpus(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "instructions", "--instructions-only") == 0
    pattern = tmp_path / "instructions" / "instructions" / "*.parquet"
    model = save_tiny_generator(tmp_path / "tiny")
    assert generate(pattern, model, tmp_path / "candidates", "--per-template", 5, "--distinct") == 0
    check_accounts(tmp_path / "candidates", 640)
    assert build(corpus, tmp_path / "corpus", "--candidates", tmp_path / "candidates" / "candidates" / "*.parquet") == 0
    manifest = manifest_of(tmp_path / "corpus")
    assert manifest["totals"]["candidates"] == len(candidates_of(tmp_path / "candidates"))
    assert manifest["rejects"]["rows"] == 0 and manifest["generators"].keys() == {"tiny"}


def command_of(rows: Path, model: Path, output: Path) -> list[str]:
    flags = ["--input", rows, "--model", model, "--output", output, *CPU, *SHORT, "--unit-rows", 2]
    return [sys.executable, "-m", "beam_pipelines.program", "generate", *map(str, flags)]


def parts(output: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.glob("candidates/part-*.parquet")
    }


@pytest.mark.slow
def test_killed_and_rerun_no_unit_is_made_twice(tmp_path: Path) -> None:
    output, model = tmp_path / "out", save_tiny_generator(tmp_path / "tiny")
    rows = [{**row, "instruction": sentence(i, 12)} for i, row in enumerate(some_rows(120))]
    (tmp_path / "rows.parquet").write_bytes(parquet(table(rows)))
    command = command_of(tmp_path / "rows.parquet", model, output)
    seen: dict[str, tuple[int, int]] = {}
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        wanted, deadline = len(seen) + 5, time.monotonic() + 120
        while process.poll() is None and len(parts(output)) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (-number, 128 + number) and b"Traceback" not in error, error
        found = parts(output)
        assert {name: found[name] for name in seen} == seen
        seen = found
    assert 0 < len(seen) < 60
    assert subprocess.run(command).returncode == 0
    assert {name: parts(output)[name] for name in seen} == seen
    plain = command_of(tmp_path / "rows.parquet", model, tmp_path / "plain")
    assert subprocess.run(plain).returncode == 0
    assert data_bytes(output) == data_bytes(tmp_path / "plain")
    assert check_accounts(output, 120)["totals"]["generated"] == 120
