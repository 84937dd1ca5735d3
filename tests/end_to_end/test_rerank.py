"""`cappy rerank`, by its command, over small data: what it writes, and that the numbers add up."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs import rerank
from beam_pipelines.runners.options import beam_options
from schemas.ids import digest
from schemas.records import SELECTION
from tests.conftest import cappy, data_bytes, manifest_of, rows_of
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, json_lines, parquet, said

GENERATORS = ("t5", "gpt2", "opt")
Rows = list[dict[str, Any]]


def scored(groups: int = 60, *, each: int = 6) -> Rows:
    """Candidates of a few groups, in turns, with ties."""
    return [
        {
            "instruction_id": digest("task", str(group)),
            "instruction": f"Task number {group}",
            "response": f"response {turn} to {group}",
            "score": float((group * 7 + turn * 5) % 11) / 8 - 0.5,
            "generator": GENERATORS[turn % 3],
            "turn": turn,
        }
        for turn in range(each)
        for group in range(groups)
        if turn <= group % each
    ]


def run_over(content: bytes | Rows, output: Path, *arguments: object, name: str = "scored.parquet") -> int:
    """`cappy rerank` over one file, which is written beside the output folder; its exit status."""
    path = output.parent / name
    path.write_bytes(content if isinstance(content, bytes) else parquet(content))
    return cappy("rerank", "--input", path, "--output", output, "--direct_num_workers=1", *arguments)


def check_accounts(output: Path) -> dict[str, Any]:
    """Recounts what a manifest says from the files themselves."""
    manifest = manifest_of(output)
    totals, rows, rejects = manifest["totals"], rows_of(output), rows_of(output / "rejects")
    best, score = [row for row in rows if row["rank"] == 1], manifest["configuration"]["columns"]["score"]
    assert totals["selected"] == len(rows) and totals["groups"] == len(best)
    assert totals["candidates"] == totals["compared"] + totals["rejected"]
    assert totals["compared"] == sum(row["num_candidates"] for row in best)
    assert totals["unscored"] == sum(row["reason"] == "unscored" for row in rejects)
    assert manifest["rejects"]["rows"] == len(rejects)
    assert sum(manifest["scores"]["best"].values()) == len(best)
    gain = manifest["gain"]
    assert sum(entry["groups"] for entry in gain["by_size"]) == gain["all"]["groups"] == len(best)
    assert gain["all"]["best"] == pytest.approx(sum(row[score] for row in best) / len(best), abs=1e-5)
    assert {entry["path"] for entry in manifest["files"]} == set(data_bytes(output))
    return manifest


def best_by_pandas(rows: Rows, top_k: int) -> list[tuple[str, int, str]]:
    frame = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    frame["rank"] = frame.groupby("instruction_id").cumcount() + 1
    frame = frame[frame["rank"] <= top_k]
    return sorted(zip(frame["instruction_id"], frame["rank"], frame["response"], strict=True))


def selections_of(output: Path) -> list[tuple[str, int, str]]:
    return sorted((row["instruction_id"], row["rank"], row["response"]) for row in rows_of(output))


@pytest.mark.parametrize("name", ["scored.parquet", "scored.jsonl", "scored.jsonl.gz"])
def test_writes_the_best_of_each_group(name: str, tmp_path: Path) -> None:
    rows, output = scored(), tmp_path / "out"
    content = parquet(rows) if name.endswith("parquet") else json_lines(*rows)
    content = gzip.compress(content) if name.endswith("gz") else content
    assert run_over(content, output, "--top-k", 2, "--shards", 3, name=name) == 0
    assert selections_of(output) == best_by_pandas(rows, 2)
    manifest = check_accounts(output)
    assert manifest["totals"]["rows"] == len(rows) and manifest["rejects"]["rows"] == 0
    schema = pq.read_schema(output / "selections" / "shard-00001-of-00003.parquet")
    assert schema.names == [*SELECTION.names, "generator", "turn"]
    assert schema.field("score").type == pa.float32()
    given = {(row["instruction"], row["response"]): row for row in rows}
    for row in rows_of(output):
        origin = given[row["instruction"], row["response"]]
        assert {name: row[name] for name in origin} == origin
    assert (output / "report.html").stat().st_size > 10_000
    assert cappy("verify", output) == 0


def test_several_files_are_one_input_whatever_their_order(tmp_path: Path) -> None:
    rows = scored()
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jsonl").write_bytes(json_lines(*rows[number * 60 : number * 60 + 60]))
    (tmp_path / "in" / "3.parquet").write_bytes(parquet(rows[180:]))
    flags = ["--input", tmp_path / "in" / "*", "--output", tmp_path / "many", "--direct_num_workers=1"]
    assert cappy("rerank", *flags) == 0
    assert run_over(rows, tmp_path / "one") == 0
    assert data_bytes(tmp_path / "many") == data_bytes(tmp_path / "one")


def test_lists_of_candidates(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Pick one, {i}", "choices": [f"{c} {i}" for c in "abc"], "marks": [0.1, 0.9, 0.9], "answer": i}
        for i in range(20)
    ]
    rows[0]["marks"] = [0.5, None, 0.5]
    rows[1]["marks"] = [0.5]
    flags = ["--response-column", "choices", "--score-column", "marks", *ALL_MAY_FAIL]
    assert run_over(rows, tmp_path / "out", *flags) == 0
    manifest = check_accounts(tmp_path / "out")
    assert manifest["rejects"]["by_reason"] == {"read": {"lists_differ": 1, "unscored": 1}}
    found = {row["answer"]: row for row in rows_of(tmp_path / "out")}
    assert set(found) == set(range(20)) - {1}
    assert (found[0]["response"], found[0]["num_candidates"]) == ("a 0", 2)
    assert (found[2]["response"], found[2]["num_candidates"]) == ("b 2", 3)
    assert found[2]["instruction_id"] == digest("Pick one, 2")
    assert set(found[0]) == {*SELECTION.names, "answer"} - {"score"} | {"marks"}


def test_a_selection_keeps_the_name_of_the_score_and_its_other_scores(tmp_path: Path) -> None:
    rows = [{**row, "cappy": -row["score"]} for row in scored()]
    output, evaluation = tmp_path / "best", tmp_path / "evaluation"
    assert run_over(rows, output, "--score-column", "cappy", "--shards", 2) == 0
    check_accounts(output)
    assert set(rows_of(output)[0]) == {*rows[0], *SELECTION.names}
    assert all(row["cappy"] == -row["score"] for row in rows_of(output))
    assert "`cappy` is the raw output" in (output / "README.md").read_text()
    assert "compared by the column cappy" in (output / "report.html").read_text()
    flags = ["--task", "ranking", "--label-column", "score", "--score-column", "cappy", *ONE_PROCESS]
    assert cappy("evaluate", "--input", output / "selections" / "*.parquet", "--output", evaluation, *flags) == 0


def test_order_column_decides_between_equal_scores(tmp_path: Path) -> None:
    rows = [{"instruction": "i", "response": str(n), "score": 1.0, "sample_index": index} for n, index in
            enumerate([None, 7, 3, 3])]  # fmt: skip
    assert run_over(rows, tmp_path / "out", "--order-column", "sample_index", "--top-k", 9) == 0
    assert [row["response"] for row in rows_of(tmp_path / "out")] == ["2", "3", "1", "0"]
    assert run_over(rows, tmp_path / "place", "--top-k", 9) == 0
    assert [row["response"] for row in rows_of(tmp_path / "place")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
        ["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
    ],
    ids=["processes", "threads"],
)
def test_same_bytes_whatever_the_workers(flags: list[str], tmp_path: Path) -> None:
    rows = [*scored(), {**scored(1)[0], "instruction": "Another task"}, {**scored(2)[1], "score": None}]
    settings = ["--shards", "3", "--top-k", "2", *ALL_MAY_FAIL]
    assert run_over(rows, tmp_path / "one", *settings) == 0
    command = [sys.executable, "-m", "beam_pipelines.jobs.rerank", "--input", tmp_path / "scored.parquet"]
    command += ["--output", tmp_path / "other", *settings, *flags]
    subprocess.run([*map(str, command)], check=True, timeout=300)
    expected = data_bytes(tmp_path / "one")
    assert len(expected) == 3 + 2, "three shards, the rejects of a unit, and those of a shard"
    assert data_bytes(tmp_path / "other") == expected
    one, other = manifest_of(tmp_path / "one"), manifest_of(tmp_path / "other")
    for name in ("totals", "gain", "scores", "rejects", "samples", "files", "fingerprint"):
        assert other[name] == one[name]


def test_a_finished_run_is_recognised_and_another_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run_over(scored(), output) == 0
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    assert run_over(scored(), output) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")} == before
    assert run_over(scored(), output, "--top-k", 2) == 1
    assert "settings.top_k: 1 -> 2" in said(capsys)
    assert run_over(scored(), output, "--group-column", "instruction") == 1
    assert 'settings.columns.group: "instruction_id" -> "instruction"' in said(capsys)
    assert run_over(scored(30), output) == 1
    assert "its input has changed: scored.parquet has another size" in said(capsys)
    assert run_over(scored(), output, "--top-k", 2, "--overwrite") == 0
    assert manifest_of(output)["totals"]["selected"] == len(best_by_pandas(scored(), 2))


def test_a_group_of_ten_thousand_and_many_of_one(tmp_path: Path) -> None:
    large = [
        {"id": 0, "instruction": "large", "response": str(n), "score": float(n * 7919 % 10_007)} for n in range(10_000)
    ]
    small = [{"id": n, "instruction": f"small {n}", "response": "only", "score": -1.0} for n in range(1, 20_000)]
    rows = [row for pair in zip(large, small, strict=False) for row in pair] + small[len(large) :]
    assert run_over(rows, tmp_path / "out", "--group-column", "id") == 0
    check_accounts(tmp_path / "out")
    (winner,) = (row for row in rows_of(tmp_path / "out") if row["id"] == 0)
    assert winner["num_candidates"] == 10_000
    assert winner["score"] == max(row["score"] for row in large)
    sizes = manifest_of(tmp_path / "out")["gain"]["by_size"]
    assert [(entry["from"], entry["to"], entry["groups"]) for entry in sizes] == [(1, 1, 19_999), (8193, 16384, 1)]


def test_limit_and_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_over(scored(), tmp_path / "out", "--limit", 60, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "1 file, 60 rows" in printed and "each group by 'instruction_id'" in printed and "1 shard of" in printed
    work = r"about [\d.]+ s of one core's work, after about [\d,]+ s of start-up; about [\d.]+ kB"
    assert re.search(f"measured by selecting from 60 rows here: {work}", printed)
    assert not (tmp_path / "out").exists()
    assert run_over(scored(), tmp_path / "out", "--limit", 60) == 0
    assert manifest_of(tmp_path / "out")["totals"]["candidates"] == 60


def test_python_call_report_and_card(tmp_path: Path) -> None:
    (tmp_path / "scored.parquet").write_bytes(parquet(scored()))
    config = rerank.RerankConfig(input=str(tmp_path / "*.parquet"), output=str(tmp_path / "out"), top_k=2)
    result = rerank.run(config, beam_options(["--direct_num_workers=1"], local_mode="multi_processing"))
    manifest = result.manifest
    assert result.folder == str(tmp_path / "out")
    assert result.table().num_rows == manifest["totals"]["selected"]
    assert manifest == manifest_of(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    assert cappy("report", tmp_path / "out") == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == page
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == manifest["totals"]["selected"]


ROW = {"id": 1, "instruction": "i", "response": "r", "score": 0.5}
LAUNCH_ERRORS: list[tuple[dict[str, Any], Sequence[str], str]] = [
    (
        {"grade": 0.5},
        ["--score-column", "scores"],
        "no column 'scores'; there are id, instruction, response, score, grade",
    ),
    ({}, ["--group-column", "nothing"], "--group-column: the input has no column 'nothing'"),
    ({}, ["--group-column", "score"], "column 'score' is double and must be text, integers or booleans"),
    ({"response": {"a": 7}}, [], "column 'response' is struct<a: int64> and must be text"),
    ({"score": "high"}, [], "column 'score' is string and must be numbers"),
    ({"score": [0.5]}, [], "'score' is list<item: double> and column 'response' is string"),
    ({"rank": 1}, [], "a column 'rank', and the selection writes one of that name itself; rename"),
]


@pytest.mark.parametrize(("change", "flags", "message"), LAUNCH_ERRORS)
def test_columns_that_cannot_serve_stop_the_launch(
    change: dict[str, Any], flags: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_over(json_lines({**ROW, **change}), tmp_path / "out", *flags, name="a.jsonl") == 1
    assert message in said(capsys)
    assert not (tmp_path / "out").exists()


def test_nan_fails_the_job_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*scored(), {**scored()[0], "score": float("nan")}]
    assert run_over(json_lines(*rows), tmp_path / "out", name="a.jsonl") == 1
    error = said(capsys)
    place = len(json_lines(*rows[:-1]))
    assert f"a.jsonl: @{place}: score is NaN" in error and "score the candidates again" in error
    assert not rows_of(tmp_path / "out") and not (tmp_path / "out" / "manifest.json").exists()


def test_candidates_that_cannot_be_compared_are_counted_and_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, Any] | bytes] = [
        {**ROW, "score": None, "score_error": "more tokens than fit"},
        {**ROW, "id": None},
        {**ROW, "response": None},
        {**ROW, "instruction": None},
        {**ROW, "id": 2, "instruction": "one"},
        {**ROW, "id": 2, "instruction": "another"},
        {**ROW, "id": 3, "score": None},
        {**ROW, "id": 4, "unknown": 1},
        b'{"id": 5, ',
    ]
    # The first 10,000 rows decide which columns there are.
    content = json_lines(*lines[:-2], *[{**ROW, "id": 100 + n} for n in range(10_000)], *lines[-2:])
    output = tmp_path / "out"
    assert run_over(content, output, "--group-column", "id", "--max-reject-rate", 0.0005, name="a.jsonl") == 1
    assert "0.09% of the candidates were rejected" in said(capsys)
    assert run_over(content, output, "--group-column", "id", name="a.jsonl") == 0
    manifest = check_accounts(output)
    assert manifest["rejects"]["by_reason"] == {
        "read": {"broken_json": 1, "does_not_fit": 1, "null_group": 1, "null_value": 2, "unscored": 2},
        "select": {"mixed_instructions": 1},
    }
    assert manifest["totals"]["rejected"] == 9 and manifest["totals"]["candidates"] == 10_009
    unscored = [row["detail"] for row in rows_of(output / "rejects") if row["reason"] == "unscored"]
    assert unscored == ["more tokens than fit", "null in score"]
    (mixed,) = (row for row in rows_of(output / "rejects") if row["reason"] == "mixed_instructions")
    assert mixed["position"] == f"@{content.index(json.dumps(lines[4]).encode())}"
    assert "2 candidates with id 2 have different instructions" in mixed["detail"]


def test_infinite_scores_win_and_lose(tmp_path: Path) -> None:
    rows = [{**ROW, "response": str(score), "score": score} for score in (1.0, float("inf"), float("-inf"))]
    assert run_over(rows, tmp_path / "out", "--top-k", 3, "--group-column", "id") == 0
    assert [row["response"] for row in rows_of(tmp_path / "out")] == ["inf", "1.0", "-inf"]
    assert manifest_of(tmp_path / "out")["gain"]["all"]["measured"] == 0
    assert "No group could be measured" in (tmp_path / "out" / "report.html").read_text()


def test_a_text_of_ten_megabytes(tmp_path: Path) -> None:
    rows = [{**ROW, "response": "x" * 10_000_000, "score": 0.9}, ROW]
    assert run_over(rows, tmp_path / "out") == 0
    assert len(rows_of(tmp_path / "out")[0]["response"]) == 10_000_000


def test_an_input_without_rows_makes_an_empty_selection(tmp_path: Path) -> None:
    empty = parquet(pa.Table.from_pylist([], pa.Table.from_pylist([ROW]).schema))
    assert run_over(empty, tmp_path / "out") == 0
    assert manifest_of(tmp_path / "out")["totals"]["selected"] == 0
    assert pq.read_table(tmp_path / "out" / "selections" / "shard-00000-of-00001.parquet").num_rows == 0
