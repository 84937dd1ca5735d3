"""Folders of the older form, data files beside run.json: finished ones are read and recognised, begun ones refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from tests.conftest import build, cappy, manifest_of, rows_of
from tests.end_to_end.inputs import ALL_MAY_FAIL, PLAIN, good, json_lines, mixture_of, said

OLDER = Path(__file__).parents[1] / "fixtures" / "older"
FINISHED = ("score", "generate", "rerank", "best")
MAP_JOBS = ("score", "generate")
EARLIER = "earlier version of cappy"

Command = Callable[..., list[str]]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLDER, tmp_path / "older", ignore=shutil.ignore_patterns("make.py")))


@pytest.fixture
def command(older: Path) -> Command:
    """Return the words of the command that made a folder, here into `output`."""
    flags = json.loads((older / "flags.json").read_text())
    pairs = ["--input", older / "candidates" / "*.jsonl", "--model", older / "models" / "scorer", *flags["score"]]
    prompts = ["--input", older / "instructions" / "*.jsonl", "--model", older / "models" / "generator"]
    words: dict[str, list[Any]] = {
        "score": ["score", *pairs],
        "generate": ["generate", *prompts, *flags["generate"]],
        "rerank": ["rerank", "--input", older / "score" / "part-*.parquet", *flags["rerank"]],
        "best": ["rerank", *pairs, *flags["rerank"]],
    }

    def made_by(name: str, output: Path | None = None) -> list[str]:
        return [*map(str, words[name]), "--output", str(output or older / name)]

    return made_by


def files_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def places(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What rows are of, without the numbers and texts of a model, which differ between processors."""
    return [(row["instruction_id"], row["instruction"], row.get("decoding", row["response"])) for row in rows]


def values(files: list[Path]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset([*map(str, sorted(files))], format="parquet").to_table().to_pylist()
    return rows


@pytest.mark.parametrize("name", FINISHED)
def test_the_same_command_says_that_a_finished_run_is_done(
    older: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(older / name)
    assert cappy(*command(name)) == 0
    assert f"{older / name}: already finished" in said(capsys)
    after = files_of(older / name)
    reports = {folder / "report.html" for folder in (older / name, older / name / "scored") if folder.is_dir()}
    assert after.keys() - before.keys() == reports & after.keys() and older / name / "report.html" in after
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("name", [*FINISHED, "best/scored"])
def test_finished_runs_are_verified_and_reported(older: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("verify", older / name) == 0 and cappy("report", older / name) == 0
    assert (older / name / "report.html").stat().st_size > 1_000
    said(capsys)
    lost = next((older / name).glob("*.parquet"))
    lost.write_bytes(lost.read_bytes()[:-1] + b"?")
    assert cappy("verify", older / name) == 1
    assert f"{lost.name}: its digest is " in "".join(capsys.readouterr())


def test_rerank_reads_scored_rows(older: Path, command: Command, tmp_path: Path) -> None:
    assert cappy(*command("rerank", tmp_path / "out")) == 0
    now = rows_of(tmp_path / "out")
    assert now == values([*(older / "rerank").glob("shard-*.parquet")])
    assert now == values([*(older / "best").glob("shard-*.parquet")])


def test_evaluate_reads_scored_rows(older: Path, tmp_path: Path) -> None:
    assert cappy("evaluate", "--input", older / "score" / "part-*.parquet", "--output", tmp_path / "out") == 0
    assert manifest_of(tmp_path / "out")["totals"]["examples"] == 8


def test_build_corpus_reads_candidates(older: Path, tmp_path: Path) -> None:
    """No instruction of the mixture has any of these candidates: each of them is read, and a reject."""
    mixture = mixture_of(tmp_path / "mixture", {"d": ({"d.jsonl": json_lines(*good(4))}, PLAIN)})
    flags = ["--candidates", older / "generate" / "part-*.parquet", *ALL_MAY_FAIL]
    assert build(mixture, tmp_path / "out", *flags) == 0
    rejects = [row for row in rows_of(tmp_path / "out" / "rejects") if row["source"].startswith("candidates/")]
    assert len(rejects) == manifest_of(older / "generate")["totals"]["candidates"] == 40


@pytest.mark.parametrize("name", FINISHED)
def test_export_writes_the_table(older: Path, name: str, tmp_path: Path) -> None:
    assert cappy("export", older / name, tmp_path / "rows.jsonl") == 0
    exported = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    pattern = "part-*.parquet" if name in MAP_JOBS else "shard-*.parquet"
    wanted = values([*(older / name).glob(pattern)])
    assert [row["instruction"] for row in exported] == [row["instruction"] for row in wanted]


@pytest.mark.parametrize("folder", ["score", "best/scored"])
def test_score_reuses_scored_rows(older: Path, command: Command, folder: str, tmp_path: Path) -> None:
    assert cappy(*command("score", tmp_path / "out"), "--reuse", older / folder) == 0
    assert manifest_of(tmp_path / "out")["totals"]["reused"] == 24
    assert rows_of(tmp_path / "out") == values([*(older / "score").glob("part-*.parquet")])


def refuse(words: list[str], capsys: pytest.CaptureFixture[str], *quoted: object) -> None:
    """Run a command that must be refused, with all of `quoted` in its message."""
    assert cappy(*words) == 1
    message = said(capsys)
    for text in map(str, quoted):
        assert text in message, message


@pytest.mark.parametrize("name", MAP_JOBS)
def test_a_begun_run_is_refused(older: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = older / "begun" / name / "run"
    before = files_of(run)
    others = [[job, str(run)] for job in ("verify", "report")] + [["export", str(run), str(older / "rows.jsonl")]]
    for words in (command(name, run), [*command(name, run), "--dry-run"], *others):
        refuse(words, capsys, run, EARLIER, "finish it with that version", "another folder", "--overwrite")
    assert files_of(run) == before
    assert cappy(*command(name, run), "--overwrite") == 0
    assert not [*run.glob("*.parquet"), *run.glob(".*")] and cappy("verify", run) == 0
    assert places(rows_of(run)) == places(values([*(older / name).glob("part-*.parquet")]))


@pytest.mark.parametrize("name", MAP_JOBS)
def test_new_files_are_not_added_to_a_finished_run(
    older: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = older / ("candidates" if name == "score" else "instructions")
    shutil.copy(inputs / "0.jsonl", inputs / "new.jsonl")
    before = files_of(older / name)
    for words in (command(name), [*command(name), "--dry-run"]):
        refuse(words, capsys, older / name, EARLIER, "new.jsonl", "another folder")
    assert files_of(older / name) == before


def test_new_files_are_not_added_to_scored_candidates(
    older: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(older / "candidates" / "0.jsonl", older / "candidates" / "new.jsonl")
    assert cappy(*command("best")) == 1
    error = said(capsys)
    assert "new.jsonl is new; give another folder, or --overwrite to begin again" in error and "takes new" not in error


@pytest.mark.parametrize("name", MAP_JOBS)
def test_lost_units_are_not_made_again(
    older: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (older / name / "part-00002-00000-00000.parquet").unlink()
    before = files_of(older / name)
    refuse(command(name), capsys, EARLIER, "part-00002-00000-00000.parquet is missing", "another folder", "--overwrite")
    assert files_of(older / name) == before
    assert cappy("report", older / name) == 0
    assert "what is lost cannot be rebuilt" in said(capsys)
    refuse(["export", str(older / name), str(older / "rows.jsonl")], capsys, "is missing", "cannot be rebuilt")


@pytest.mark.parametrize("name", FINISHED)
def test_another_run_is_refused_by_its_difference(
    older: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(older / name)
    refuse([*command(name), "--limit", "1"], capsys, older / name, "limit")
    assert files_of(older / name) == before


def test_a_run_is_replaced_with_overwrite(older: Path, command: Command) -> None:
    assert cappy(*command("score"), "--overwrite") == 0
    assert not [*(older / "score").glob("*.parquet")] and cappy("verify", older / "score") == 0
    assert places(rows_of(older / "score")) == places(values([*(OLDER / "score").glob("part-*.parquet")]))
