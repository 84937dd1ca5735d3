"""`cappy adapt`: its stages, their resume, and unusable candidates."""

import json
import sys
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import dynamic_module_utils

from beam_pipelines.jobs.adapt import AdaptConfig, run
from beam_pipelines.runners.options import beam_options
from schemas.errors import UsageError
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import WORDS, cappy, data_bytes, manifest_of, rows_of
from tests.end_to_end.inputs import ONE_PROCESS, PORTABLE, TWO_PROCESSES, json_lines, said, settled


def candidates(count: int, *, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "instruction_id": f"i{number}",
            "instruction": f"Repeat {WORDS[number % 11]} {number}",
            "dataset": "d",
            "references": [f"{WORDS[number % 11]} {number}"],
            "response": response,
            "generator": "lm",
            "decoding": "sample",
            "sample_index": index,
            **more,
        }
        for number in range(first, first + count)
        for index, response in enumerate([f"{WORDS[number % 11]} {number}", f"{WORDS[(number + 1) % 11]}", "no idea"])
    ]


def save_with_code(folder: Path) -> None:
    """Save a scorer whose architecture is in a Python file in its folder."""
    save_tiny_scorer(folder)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "theirs.Config", "AutoModelForSequenceClassification": "theirs.Scorer"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "theirs", "auto_map": own}))
    (folder / "theirs.py").write_text(THEIR_CODE)


THEIR_CODE = """
from transformers import RobertaConfig, RobertaForSequenceClassification

class Config(RobertaConfig):
    model_type = "theirs"

class Scorer(RobertaForSequenceClassification):
    config_class = Config
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_bytes(json_lines(*candidates(30)))
    (tmp_path / "validation.jsonl").write_bytes(json_lines(*candidates(10, first=30)))
    save_tiny_scorer(tmp_path / "scorer")
    return tmp_path


def flags(inputs: Path, output: Path, *more: object) -> list[str]:
    given = ["--train", inputs / "train.jsonl", "--validation", inputs / "validation.jsonl", "--output", output]
    given += [
        "--model",
        inputs / "scorer",
        "--max-length",
        60,
        "--max-steps",
        4,
        "--batch-size",
        8,
        "--accumulation",
        1,
    ]
    return ["adapt", *settled(*given, "--device", "cpu", "--dtype", "float32", *ONE_PROCESS, *more)]


def test_all_stages_twice(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert cappy(*flags(inputs, output)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "120 pairs of 30 instructions" and printed[1].startswith(
        "4 steps over 32 pairs (0.27 epochs of 120)"
    )
    sources = manifest_of(output / "pairs")["pairs"]
    written = {name: counts["written"] for name, counts in sources.items()}
    assert written == {"ground_truth": 30, "generated": 60, "mismatch": 30}
    assert len(rows_of(output / "scored")) == 30 and len(rows_of(output / "selections")) == 10
    for stage in ("pairs", "scorer", "scored", "selections", "evaluation"):
        assert cappy("verify", output / stage) == 0
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    assert cappy(*flags(inputs, output)) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


def test_instructions_of_the_validation_are_excluded_from_training(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "validation.jsonl").write_bytes(
        json_lines(*({**row, "instruction": row["instruction"].upper()} for row in candidates(20, first=25)))
    )
    (inputs / "more.jsonl").write_bytes(json_lines(*candidates(2)))
    output = tmp_path / "out"
    assert cappy(*flags(inputs, output, "--held-out", inputs / "more.jsonl")) == 0
    assert "epochs of 92), weights of step 4; 28 pairs dropped for held-out instructions" in capsys.readouterr().out
    assert manifest_of(output / "scorer")["pairs"]["held_out_instructions"] == 7
    (inputs / "others.jsonl").write_bytes(json_lines(*candidates(3, first=2)))
    held = ("--held-out", inputs / "more.jsonl", "--held-out", inputs / "others.jsonl")
    assert cappy(*flags(inputs, tmp_path / "two", *held)) == 0
    assert manifest_of(tmp_path / "two" / "scorer")["pairs"]["held_out_instructions"] == 10
    (inputs / "validation.jsonl").write_bytes(json_lines(*candidates(30)))
    assert cappy(*flags(inputs, tmp_path / "all")) == 1
    assert "no pair is left for training: of 120 read, 120 have a held-out instruction" in said(capsys)


def test_missing_wrong_responses_are_reported(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inputs / "train.jsonl").write_bytes(json_lines(*candidates(30, references=["yes"])))
    assert cappy(*flags(inputs, tmp_path / "out")) == 0
    printed = capsys.readouterr().out.splitlines()[0]
    assert printed == ("120 pairs of 30 instructions; 30 wrong responses could not be drawn: too few references differ")


def test_lost_stages_are_rebuilt(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert cappy(*flags(inputs, output)) == 0
    bytes_before = data_bytes(output)
    (output / "selections" / "manifest.json").unlink()
    (output / "scorer" / "manifest.json").unlink()
    assert cappy(*flags(inputs, output)) == 0
    assert data_bytes(output) == bytes_before


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"references": None}, 1, "no_references: the candidate has no reference that it could be compared with"),
        ({"references": {"a": "text"}}, 1, "--train: has no column 'references' (text, or lists of it), it is struct"),
        ({"response": None}, 1, "cannot be used"),
        ({"sample_index": "x"}, 1, "--train: column 'sample_index' is string and must be int32"),
    ],
)
def test_unusable_candidates(
    change: dict[str, Any], status: int, message: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = candidates(29) + candidates(1, first=29, **change)
    if change.get("references") or "sample_index" in change:
        rows = candidates(30, **change)
    (inputs / "train.jsonl").write_bytes(json_lines(*rows))
    assert cappy(*flags(inputs, tmp_path / "out")) == status
    assert message in said(capsys)


def test_candidates_without_references(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{name: value for name, value in row.items() if name != "references"} for row in candidates(5)]
    (inputs / "train.jsonl").write_bytes(json_lines(*rows))
    assert cappy(*flags(inputs, tmp_path / "out")) == 1
    error = said(capsys)
    assert "--train: has no column 'references' (text, or lists of it); candidates are labelled by their" in error
    assert "There are instruction_id, instruction, dataset, response" in error


def test_no_candidates(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inputs / "train.jsonl").unlink()
    empty = pa.Table.from_pylist(candidates(1)).slice(0, 0)
    pq.write_table(empty, inputs / "train.parquet")
    given = [str(word).replace("train.jsonl", "train.parquet") for word in flags(inputs, tmp_path / "out")]
    assert cappy(*given) == 1
    assert "train.parquet: holds no candidate; give files of candidates" in said(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 0.5}, "--validation: column 'score' exists already"),
        ({"rank": 1}, "--validation: the input has a column 'rank'"),
        ({"references": None}, "--validation: column 'references' is null"),
        ({"references": {"a": 1}}, "--validation: column 'references' is struct<a: int64>"),
        ({"response": ["a", "b"]}, "--validation: column 'decoding' is string and column 'response' is list"),
    ],
)
def test_columns_are_checked_for_all_stages_before_training(
    change: dict[str, Any], message: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "validation.jsonl").write_bytes(json_lines(*candidates(10, first=30, **change)))
    assert cappy(*flags(inputs, tmp_path / "out")) == 1
    error = said(capsys)
    assert message in error and "generate writes: rename or drop" in error and "-column" not in error
    assert not (tmp_path / "out").exists()


def test_validation_is_checked_first(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (inputs / "validation.jsonl").write_bytes(json_lines({"instruction": "x"}))
    assert cappy(*flags(inputs, tmp_path / "out")) == 1
    assert "--validation: there is no column 'response'; there are instruction" in said(capsys)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cappy(*flags(inputs, tmp_path / "out")) == 2
    assert "adapt runs in one process" in said(capsys)


def with_chinese(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with one text as reference, in Chinese, as most responses are."""
    translation = {ord(letter): chr(0x4E00 + number) for number, letter in enumerate(ascii_lowercase + digits)}
    texts = [row["references"][0].translate(translation) for row in rows]
    return [
        {**row, "references": text, "response": row["response"].translate(translation)}
        for row, text in zip(rows, texts, strict=True)
    ]


def test_rouge_in_chinese(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inputs / "train.jsonl").write_bytes(json_lines(*with_chinese(candidates(30))))
    (inputs / "validation.jsonl").write_bytes(json_lines(*with_chinese(candidates(10, first=30))))
    assert cappy(*flags(inputs, tmp_path / "parity")) == 0
    told = said(capsys)
    assert "responses (100%) get the label 0, since" in told and "responses (100%) are worth 0, since" in told
    assert told.count("--rouge unicode reads all of them") == 2
    assert cappy(*flags(inputs, tmp_path / "unicode", "--rouge", "unicode")) == 0
    assert "--rouge" not in said(capsys)
    generated = [row["label"] for row in rows_of(tmp_path / "unicode" / "pairs") if row["label_source"] == "generated"]
    assert any(0 < label < 1 for label in generated)
    assert manifest_of(tmp_path / "unicode" / "evaluation")["configuration"]["rouge"] == "unicode"
    macro = manifest_of(tmp_path / "unicode" / "evaluation")["results"]["measures"]["rouge_l"]["macro"]
    assert macro["methods"]["oracle"]["value"] == 1
    # The tokenizer of earlier versions has no entry of its own, so that their folders stay finished.
    assert "rouge" not in json.loads((tmp_path / "parity" / "pairs" / "run.json").read_text())["facts"]["settings"]


def test_lost_files_of_the_stages(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert cappy(*flags(inputs, output)) == 0
    before = data_bytes(output)
    (output / "pairs" / "shard-00000-of-00001.parquet").unlink()
    (output / "evaluation" / "metrics.parquet").write_bytes(b"")
    capsys.readouterr()
    assert cappy(*flags(inputs, output)) == 0
    told = said(capsys)
    assert "shard-00000-of-00001.parquet is missing; the pairs are rebuilt" in told
    assert "metrics.parquet has 0 bytes" in told and data_bytes(output) == before
    (output / "scorer" / "model.safetensors").unlink()
    assert cappy(*flags(inputs, output)) == 1
    assert "model.safetensors is missing; copy the scorer's files back, or give --overwrite" in said(capsys)


def test_how_files_are_read_reaches_every_stage(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, first, count in (("train", 0, 30), ("validation", 30, 10)):
        (inputs / f"{name}.jsonl").unlink()
        rows = [{**row, "references": row["references"][0], name: "1.50"} for row in candidates(count, first=first)]
        lines = [";".join(map(str, line)) for line in (rows[0], *(row.values() for row in rows))]
        (inputs / f"{name}.csv").write_text("\n".join(lines), "utf-16")
    given = [word.replace(".jsonl", ".csv") for word in flags(inputs, tmp_path / "out")]
    given += ["--csv-delimiter", ";", "--encoding", "utf-16"]
    assert cappy(*given, "--text-columns", "absent,train") == 1
    assert "--text-columns absent: neither --train nor --validation has such a column" in said(capsys)
    assert cappy(*given, "--text-columns", "train,validation") == 0
    assert {row["validation"] for row in rows_of(tmp_path / "out" / "selections")} == {"1.50"}
    assert manifest_of(tmp_path / "out" / "evaluation")["totals"]["examples"] == 10


def test_an_output_in_memory_is_refused_before_training(inputs: Path) -> None:
    config = AdaptConfig(train="a", validation="b", model="m", output="memory://out")
    for flags_of in (TWO_PROCESSES, PORTABLE):
        with pytest.raises(UsageError, match="memory://out: is in the memory of this process, which the job's workers"):
            run(config, beam_options(flags_of, local_mode="multi_processing"))


def test_there_are_no_epochs(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy(*flags(inputs, tmp_path / "out", "--epochs", 2)) == 2
    assert "unknown flag --epochs" in said(capsys)


def test_model_with_its_own_code(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    save_with_code(inputs / "scorer")
    output = tmp_path / "out"
    assert cappy(*flags(inputs, output)) == 1
    assert cappy(*flags(inputs, output, "--trust-remote-code")) == 0
    assert len(rows_of(output / "scored")) == 30


def test_dry_run(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy(*flags(inputs, tmp_path / "out", "--dry-run")) == 0
    assert "learn from 90 candidates in 4 steps, then choose among 30 candidates" in capsys.readouterr().out


def test_more_validation_candidates_are_refused_before_they_are_scored(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = flags(inputs, output, "--validation", inputs / "validation*.jsonl")
    assert cappy(*command) == 0
    before = data_bytes(output)
    (inputs / "validation-2.jsonl").write_bytes(json_lines(*candidates(10, first=60)))
    said(capsys)
    assert cappy(*command) == 1
    words = "selections: is made of 1 file, and validation-2.jsonl is new; give another --output, or --overwrite"
    assert words in said(capsys) and data_bytes(output) == before
