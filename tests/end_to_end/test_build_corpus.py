"""`cappy build-corpus` over small data: its files, their bytes, and the counts of its manifest."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rouge_score.rouge_scorer import RougeScorer

from beam_pipelines.jobs import build_corpus
from beam_pipelines.runners.options import beam_options
from schemas.ids import pair_ids
from schemas.records import CANDIDATE, INSTRUCTION, LABELLED_PAIR
from tests.conftest import (
    COLOURS,
    NOTES,
    TOPICS,
    build,
    cappy,
    data_bytes,
    edit_mixture,
    manifest_of,
    rows_of,
    write_templates,
)
from tests.end_to_end.inputs import ONE_PROCESS, PORTABLE, TWO_PROCESSES, TWO_THREADS, check_accounts


def test_files_have_their_schemas_and_counts(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert build(corpus, output) == 0
    manifest = check_accounts(output)
    assert manifest["totals"] == {
        "rows": 360,
        "instructions": 120 + 120 + 40 + 120 + 240,
        "sampled_out": 0,
        "not_applicable": 80,
        "rejected": 0,
        "candidates": 0,
        "pairs": len(rows_of(output / "pairs")),
    }
    for folder, schema in (("instructions", INSTRUCTION), ("pairs", LABELLED_PAIR)):
        for path in (output / folder).glob("*.parquet"):
            assert pq.read_schema(path).remove_metadata().equals(schema), path
    assert sorted(path.name for path in (output / "pairs").iterdir()) == ["shard-00000-of-00001.parquet"]
    assert (output / "report.html").stat().st_size > 10_000
    assert cappy("verify", output) == 0


def test_labels_follow_references_and_choices(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert build(corpus, output) == 0
    instructions = {row["instruction_id"]: row for row in rows_of(output / "instructions")}
    pairs = rows_of(output / "pairs")
    assert len({row["pair_id"] for row in pairs}) == len(pairs)
    for pair in pairs:
        origin = instructions[pair["instruction_id"]]
        assert pair["instruction"] == origin["instruction"]
        assert pair["pair_id"] == pair_ids(pair["instruction"])(pair["response"])
        right = pair["response"] in origin["references"]
        assert right == (pair["label_source"] == "ground_truth") == (pair["label"] == 1.0)
        assert (pair["label_source"] == "wrong_choice") == (origin["choices"] is not None and not right)
        if pair["label_source"] == "mismatch":
            rouge = RougeScorer(["rougeL"], use_stemmer=True).score(origin["references"][0], pair["response"])
            assert rouge["rougeL"].fmeasure < 0.5
    wrong = Counter(row["instruction_id"] for row in pairs if row["label_source"] == "wrong_choice")
    assert max(wrong.values()) == 2
    colour = [row for row in pairs if row["instruction"].startswith("What colour")]
    assert {row["response"] for row in colour} == set(COLOURS)


@pytest.mark.parametrize("flags", [TWO_PROCESSES, TWO_THREADS, PORTABLE], ids=["processes", "threads", "portable"])
def test_same_bytes_whatever_the_workers(corpus: Path, tmp_path: Path, flags: list[str]) -> None:
    assert build(corpus, tmp_path / "only", "--instructions-only") == 0
    notes = [row for row in rows_of(tmp_path / "only" / "instructions") if row["dataset"] == "notes"]
    for number in range(2):
        # Each file has rows for every shard, some of which are rejected there.
        rows = [{**row, "instruction_id": "0" * 32} if i % 3 else row for i, row in enumerate(notes[number::2])]
        write_candidates(rows, tmp_path / f"candidates-{number}.parquet")
    given = ["--shards", 3, "--candidates", tmp_path / "candidates-*.parquet", "--max-reject-rate", 1]
    assert build(corpus, tmp_path / "one", *given) == 0
    command = [sys.executable, "-m", "beam_pipelines.program", "build-corpus", "--mixture", corpus, *given]
    subprocess.run([*map(str, command), "--output", str(tmp_path / "other"), *flags], check=True, timeout=300)
    expected = data_bytes(tmp_path / "one")
    assert len(expected) == 3 + 3 + 3, "instructions, pairs and rejects"
    assert data_bytes(tmp_path / "other") == expected
    assert manifest_of(tmp_path / "other")["samples"] == manifest_of(tmp_path / "one")["samples"]


def test_same_bytes_again_and_another_seed_other_bytes(corpus: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        assert build(corpus, tmp_path / name, "--seed", seed) == 0
    assert data_bytes(tmp_path / "one") == data_bytes(tmp_path / "again")
    assert data_bytes(tmp_path / "one") != data_bytes(tmp_path / "other")


def test_instructions_only_makes_no_pairs(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(corpus, tmp_path / "all") == 0
    assert build(corpus, tmp_path / "only", "--instructions-only") == 0
    assert rows_of(tmp_path / "only" / "instructions") == rows_of(tmp_path / "all" / "instructions")
    assert not (tmp_path / "only" / "pairs").exists()
    assert manifest_of(tmp_path / "only")["pairs"] == {}
    said = capsys.readouterr().out.splitlines()
    assert re.search(r"^640 instructions and [\d,]+ pairs from 360 source rows, 0 reject rows, in ", said[0])
    assert re.search(r"^640 instructions from 360 source rows, 0 reject rows, in ", said[2])


def columns_of(card: str, name: str) -> list[str]:
    return re.findall(r"^\| `(\w+)`", card.split(f"## Columns of `{name}`")[1].split("##")[0], re.M)


def test_the_card_describes_the_files_that_exist(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "only", "--instructions-only", "--seed", 7) == 0
    card = (tmp_path / "only" / "README.md").read_text()
    assert "pairs" not in card and "rejects" not in card and "Labels" not in card
    notes = [row for row in rows_of(tmp_path / "only" / "instructions") if row["dataset"] == "notes"]
    notes[0]["instruction_id"] = "0" * 32
    write_candidates(notes, tmp_path / "candidates.parquet")
    assert build(corpus, tmp_path / "all", "--candidates", tmp_path / "*.parquet", "--seed", 7) == 0
    card, manifest = (tmp_path / "all" / "README.md").read_text(), manifest_of(tmp_path / "all")
    assert columns_of(card, "pairs") == LABELLED_PAIR.names and columns_of(card, "instructions") == INSTRUCTION.names
    for said in ("`rejects/*.parquet`", "seed 7", manifest["fingerprint"], "is it; only blue", "quiz/easy:train"):
        assert said in card
    for source, counts in manifest["pairs"].items():
        assert f"| `{source}` | {counts['written']:,} |" in card
    written = sum(row["generator"] == "tiny-lm" for row in rows_of(tmp_path / "all" / "pairs"))
    assert manifest["generators"] == {"tiny-lm": written} and f"tiny-lm ({written:,} pairs)" in card


def test_a_template_without_wrong_responses_is_a_warning(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = [{**NOTES[0], "jinja": "Read: {{ note }}|||It is about a note"}, NOTES[1]]
    write_templates(tmp_path / "templates", "notes", every)
    warning = "notes:train headline: 120 of 120 instructions have no wrong response (overlap_limit 0.5)"
    assert build(corpus, tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines()[1] == f"warning: {warning}"
    assert warning in (tmp_path / "out" / "report.html").read_text()
    without = manifest_of(tmp_path / "out")["datasets"]["notes:train"]["templates"]
    wrong = {row["instruction_id"] for row in rows_of(tmp_path / "out" / "pairs") if row["label"] == 0.0}
    for identifier, template in without.items():
        rows = [row for row in rows_of(tmp_path / "out" / "instructions") if row["template_id"] == identifier]
        assert template["without_wrong"] == sum(row["instruction_id"] not in wrong for row in rows)
    edit_mixture(corpus, lambda m: m["negatives"].update(mismatched=0))
    assert build(corpus, tmp_path / "none") == 0
    assert "warning" not in capsys.readouterr().out, "none were requested"


def test_cap_samples_rows_of_each_template(corpus: Path, tmp_path: Path) -> None:
    edit_mixture(corpus, lambda m: m["datasets"][2].update(max_examples=60))
    assert build(corpus, tmp_path / "out") == 0
    manifest = check_accounts(tmp_path / "out")
    for counts in manifest["datasets"]["notes:train"]["templates"].values():
        assert counts["rendered"] + counts["sampled_out"] == 120
        assert 15 <= counts["rendered"] <= 45  # 30 expected


def test_limit_and_dry_run(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(corpus, tmp_path / "out", "--limit", 10, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "things:train" in said and "at most 60 instructions" in said and "1 shard of" in said
    assert re.search(r"about [\d.]+ s of one core's work", said)
    assert not (tmp_path / "out").exists()
    assert build(corpus, tmp_path / "out", "--limit", 10) == 0
    assert manifest_of(tmp_path / "out")["totals"]["rows"] == 30


DECODINGS = [("sampling", 0), ("sampling", 1), ("beam4", 0), ("beam4", 1), ("topk40", 0)]


def write_candidates(instructions: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    rows = []
    for row in instructions:
        reference = row["references"][0]
        texts = [
            f" {reference} ",
            " ".join([*reference.split()[:2], "of", "something"]),
            "nothing like it",
            "  ",
            "你好",
        ]
        for text, (decoding, index) in zip(texts, DECODINGS, strict=True):
            rows.append(
                {"instruction_id": row["instruction_id"], "instruction": row["instruction"], "response": text,
                 "generator": "tiny-lm", "decoding": decoding, "sample_index": index}
            )  # fmt: skip
    table = pa.Table.from_pylist([{**dict.fromkeys(CANDIDATE.names), **row} for row in rows], CANDIDATE)
    pq.write_table(table, path)
    return rows


def test_candidates_are_labelled_by_rouge_and_merged(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "only", "--instructions-only") == 0
    notes = [row for row in rows_of(tmp_path / "only" / "instructions") if row["dataset"] == "notes"]
    candidates = write_candidates(notes, tmp_path / "candidates.parquet")
    assert build(corpus, tmp_path / "out", "--candidates", tmp_path / "*.parquet", "--shards", 2) == 0
    manifest = check_accounts(tmp_path / "out")
    assert manifest["totals"]["candidates"] == len(candidates) == 5 * 240
    assert manifest["notes"]["empty_generations"] == manifest["notes"]["no_rouge_tokens"] == 240
    made = manifest["pairs"]["generated"]
    assert made["made"] == 4 * 240 and made["merged"] == 240, "each perfect one became its ground truth"
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    references = {row["instruction_id"]: row["references"][0] for row in notes}
    generated = [row for row in rows_of(tmp_path / "out" / "pairs") if row["generator"]]
    for row in generated:
        assert row["generator"] == "tiny-lm"
        if row["label_source"] == "ground_truth":
            assert row["label"] == 1.0
        else:
            expected = scorer.score(references[row["instruction_id"]], row["response"])["rougeL"].fmeasure
            assert row["label"] == pa.scalar(expected, pa.float32()).as_py()
    assert Counter(row["label_source"] for row in generated) == {"ground_truth": 240, "generated": 720}


def test_candidates_of_unknown_instructions_are_rejects(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "only", "--instructions-only") == 0
    notes = [row for row in rows_of(tmp_path / "only" / "instructions") if row["dataset"] == "notes"]
    notes[0]["instruction_id"] = "0" * 32
    notes[1]["instruction"] = "Another text"
    write_candidates(notes, tmp_path / "candidates.parquet")
    flags = ["--candidates", tmp_path / "candidates.parquet", "--max-reject-rate", 0.1]
    assert build(corpus, tmp_path / "out", *flags) == 0
    manifest = check_accounts(tmp_path / "out")
    assert manifest["rejects"]["by_reason"] == {"label": {"unknown_instruction": 10}}
    assert {row["source"] for row in rows_of(tmp_path / "out" / "rejects")} == {"candidates/candidates.parquet"}


def test_finished_run_is_recognised_and_another_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert build(corpus, output) == 0
    everything = [output, *output.rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in everything}
    capsys.readouterr()
    assert build(corpus, output) == 0
    finished = manifest_of(output)["finished"]
    assert f"{output}: already finished at {finished}; --overwrite runs it again" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in everything} == before, "a finished folder may be read-only"
    assert build(corpus, output, "--seed", 1) == 1
    assert "settings.seed: 0 -> 1" in capsys.readouterr().err
    assert build(corpus, output, "--seed", 1, "--overwrite") == 0
    assert manifest_of(output)["configuration"]["seed"] == 1
    edit_mixture(corpus, lambda m: m["negatives"].update(wrong_choices=1))
    assert build(corpus, output, "--seed", 1) == 1
    assert "negatives.wrong_choices: 2 -> 1" in capsys.readouterr().err


def test_order_of_datasets_and_templates_is_part_of_the_fingerprint(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(corpus, tmp_path / "out") == 0
    edit_mixture(corpus, lambda m: m["datasets"].reverse())
    assert build(corpus, tmp_path / "out") == 1
    assert "holds another run: datasets: different order." in capsys.readouterr().err
    edit_mixture(corpus, lambda m: m["datasets"].reverse())
    write_templates(tmp_path / "templates", "things", [*TOPICS[1:], {**TOPICS[0], "id": "t-9"}])
    assert build(corpus, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "datasets[things:train].templates: different order" in error
    assert "template 'colour' of things:train has another id" in error
    renamed = {**TOPICS[2], "name": "blue"}
    write_templates(tmp_path / "templates", "things", [{**TOPICS[0], "jinja": "{{ thing }}|||red"}, TOPICS[1], renamed])
    assert build(corpus, tmp_path / "out") == 1
    assert (
        "holds another run: template 'only blue' of things:train was removed; template 'blue' of things:train was "
        "added; template 'colour' of things:train has changed. Give another folder"
    ) in capsys.readouterr().err


def test_killed_run_is_repeated_to_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "whole") == 0
    output = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "beam_pipelines.program",
        "build-corpus",
        "--mixture",
        str(corpus),
        "--output",
        str(output),
    ]
    process = subprocess.Popen([*command, "--direct_num_workers=1"])
    while process.poll() is None and not list(output.rglob("*.parquet")):
        pass
    process.kill()
    process.wait()
    (output / "instructions" / ".part-00000-00000-00000.parquet.0123.tmp").write_bytes(b"left over")
    (output / "instructions" / "part-00009-00000-00000.parquet").write_bytes(b"of a program that numbered otherwise")
    assert build(corpus, output) == 0
    assert data_bytes(output) == data_bytes(tmp_path / "whole")
    assert not list(output.rglob("*.tmp"))


def test_python_call_and_report_and_verify(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = build_corpus.BuildCorpusConfig(mixture=str(corpus), output=str(tmp_path / "out"))
    manifest = build_corpus.run(config, beam_options(ONE_PROCESS, local_mode="multi_processing")).manifest
    assert manifest == manifest_of(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    assert cappy("report", tmp_path / "out") == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == page
    victim = next((tmp_path / "out" / "pairs").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    (tmp_path / "out" / "instructions" / "part-99999-00000-00000.parquet").write_bytes(b"")
    capsys.readouterr()
    assert cappy("verify", tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert f"pairs/{victim.name}: its digest is" in said and "is not in the manifest" in said


def test_folder_loads_as_a_dataset(corpus: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert build(corpus, tmp_path / "out") == 0
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == manifest_of(tmp_path / "out")["totals"]["pairs"]
    loaded = datasets.load_dataset(str(tmp_path / "out"), "instructions", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == manifest_of(tmp_path / "out")["totals"]["instructions"]


def test_run_json_holds_no_credentials(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "out", "--storage-options", json.dumps({"secret": "hunter2"})) == 0
    for path in tmp_path.joinpath("out").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path
