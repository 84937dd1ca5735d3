"""`cappy score`, by its command, over small data: every row and column, in order, with the scorer's own numbers."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from cappy_model.score.scorer import Scorer
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import SHARED, cappy, data_bytes, manifest_of, metrics_of, needs_shared, rows_of, sentence
from tests.end_to_end.inputs import (
    ALL_MAY_FAIL,
    ONE_PROCESS,
    PORTABLE,
    TWO_PROCESSES,
    TWO_THREADS,
    json_lines,
    parquet,
    said,
    settled,
)

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp("model"))


def some_rows(count: int, start: int = 0) -> Rows:
    return [
        {"id": i, "instruction": sentence(i // 4, 6), "response": sentence(i, 1 + i % 9), "tags": ["a", str(i % 3)]}
        for i in range(start, start + count)
    ]


def score(content: bytes | Rows | Path, model: Path, output: Path, *flags: object, name: str = "rows.parquet") -> int:
    """`cappy score` over one file, which is written beside the output folder; its exit status."""
    path = content if isinstance(content, Path) else output.parent / name
    if not isinstance(content, Path):
        path.write_bytes(content if isinstance(content, bytes) else parquet(content))
    given = settled("--input", path, "--model", model, "--output", output, "--device", "cpu", *flags)
    return cappy("score", *given)


def table_of(output: Path) -> pa.Table:
    return ds.dataset(sorted(map(str, output.glob("rows/part-*.parquet"))), format="parquet").to_table()


def check_accounts(output: Path) -> dict[str, Any]:
    """Recounts what a manifest says from the files themselves."""
    manifest, rows = manifest_of(output), table_of(output)
    totals = manifest["totals"]
    assert totals["rows"] == rows.num_rows + len(rows_of(output / "rejects"))
    assert totals["scored"] == sum(manifest["scores"]["all"].values()) == len(rows) - rows["score"].null_count
    assert totals["unscored"] == sum(manifest["errors"].values()) == len(rows) - rows["score_error"].null_count
    assert totals["truncated"] == sum(rows["truncated"].to_pylist())
    assert sum(manifest["lengths"]["pairs"]) == totals["scored"]
    assert {file["path"] for file in manifest["files"]} == set(data_bytes(output))
    assert cappy("verify", output) == 0
    return manifest


def test_every_row_and_column_in_order_with_the_scorers_numbers(model: Path, tmp_path: Path) -> None:
    rows = some_rows(300)
    assert score(rows, model, tmp_path / "out", "--dtype", "float32") == 0
    found = table_of(tmp_path / "out")
    assert found.select(["id", "instruction", "response", "tags"]).to_pylist() == rows
    scorer = Scorer.from_pretrained(str(model), device="cpu", dtype="float32")
    wanted = scorer.score_pairs([row["instruction"] for row in rows], [row["response"] for row in rows])
    assert np.array_equal(found["score"].to_numpy(), wanted.scores)
    assert np.array_equal(found["num_tokens"].to_numpy(), wanted.num_tokens)
    assert np.array_equal(found["truncated"].to_numpy(), wanted.truncated)
    assert found.schema.field("score").type == pa.float32()
    manifest = check_accounts(tmp_path / "out")
    assert manifest["totals"]["distinct"] == wanted.work.distinct
    assert manifest["tokens"]["real"] == wanted.work.tokens
    assert manifest["model"]["dtype"] == "float32"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "300 pairs scored in 300 rows" in page


@pytest.mark.parametrize("flags", [ONE_PROCESS, TWO_THREADS, TWO_PROCESSES, PORTABLE], ids=lambda flags: flags[-1])
def test_same_bytes_whatever_the_workers(flags: list[str], model: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.parquet").write_bytes(parquet(some_rows(80, start=80 * number), row_group_size=30))
    settled = ["--dtype", "float32", "--tokens-per-batch", 300]
    pattern = tmp_path / "*.parquet"
    assert score(pattern, model, tmp_path / "plain", *settled, *ONE_PROCESS) == 0
    assert score(pattern, model, tmp_path / "other", *settled, *flags) == 0
    assert data_bytes(tmp_path / "plain") == data_bytes(tmp_path / "other")
    assert table_of(tmp_path / "other")["id"].to_pylist() == list(range(240))


def test_json_lines_and_compressed_csv(model: Path, tmp_path: Path) -> None:
    rows = [{"id": row["id"], "instruction": row["instruction"], "response": row["response"]} for row in some_rows(50)]
    assert score(json_lines(*rows), model, tmp_path / "jsonl", name="rows.jsonl") == 0
    lines = ["id,instruction,response", *(f"{r['id']},{r['instruction']},{r['response']}" for r in rows)]
    assert score(gzip.compress("\n".join(lines).encode()), model, tmp_path / "csv", name="rows.csv.gz") == 0
    assert score(rows, model, tmp_path / "parquet") == 0
    assert table_of(tmp_path / "jsonl").equals(table_of(tmp_path / "csv"))
    assert table_of(tmp_path / "jsonl").equals(table_of(tmp_path / "parquet"))


def test_two_other_columns_and_several_scorers_into_one_table(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["instruction"], "answer": row["response"]} for row in some_rows(40)]
    columns = ["--instruction-column", "prompt", "--response-column", "answer"]
    assert score(rows, model, tmp_path / "one", *columns, "--score-column", "first") == 0
    second = save_tiny_scorer(tmp_path / "bert", "bert", seed=1)
    pattern = tmp_path / "one" / "rows" / "*.parquet"
    assert score(pattern, second, tmp_path / "two", *columns, "--score-column", "second") == 0
    found = table_of(tmp_path / "two")
    assert found.column_names == [
        "prompt", "answer", "first", "first_error", "first_num_tokens", "first_truncated",
        "second", "second_error", "second_num_tokens", "second_truncated",
    ]  # fmt: skip
    assert found["first"].to_pylist() == table_of(tmp_path / "one")["first"].to_pylist()
    assert found["first"].to_pylist() != found["second"].to_pylist()


def test_a_list_of_responses_gives_a_list_of_scores(model: Path, tmp_path: Path) -> None:
    choices: list[list[str | None] | None] = [["yes", "no"], [], None, ["yes", None, "maybe"]]
    rows = [{"instruction": f"Is it {i}?", "choices": options} for i, options in enumerate(choices)]
    schema = pa.schema([("instruction", pa.string()), ("choices", pa.list_(pa.string()))])
    content = parquet(pa.Table.from_pylist(rows, schema))
    assert score(content, model, tmp_path / "out", "--response-column", "choices", *ALL_MAY_FAIL) == 0
    found = table_of(tmp_path / "out").to_pylist()
    assert [row["score"] if row["score"] is None else len(row["score"]) for row in found] == [2, 0, None, 3]
    assert [score is None for score in found[3]["score"]] == [False, True, False]
    assert found[3]["score_error"] == [None, "null response", None]
    long = [{"instruction": f"Is it {i}?", "response": text} for i in (0, 3) for text in choices[i] or () if text]
    assert score(long, model, tmp_path / "long") == 0
    flat = [number for row in found for number in row["score"] or () if number is not None]
    assert flat == table_of(tmp_path / "long")["score"].to_pylist()


def test_rows_that_cannot_be_scored_keep_their_place(model: Path, tmp_path: Path) -> None:
    rows = some_rows(20)
    rows[3]["response"] = rows[7]["instruction"] = None
    rows[9]["response"] = ""
    assert score(rows, model, tmp_path / "out", "--max-reject-rate", 0.2) == 0
    found = table_of(tmp_path / "out").to_pylist()
    assert [row["id"] for row in found] == list(range(20))
    errors = {row["id"]: row["score_error"] for row in found if row["score"] is None}
    assert errors == {3: "null response", 7: "null instruction"}
    assert all((row["num_tokens"], row["truncated"]) == (0, False) for row in found if row["score"] is None)
    manifest = check_accounts(tmp_path / "out")
    assert manifest["rejects"]["rate"] == 0.1
    assert score(rows, model, tmp_path / "strict", *ONE_PROCESS) == 1
    assert "10.00% of the rows" in json.loads((tmp_path / "strict" / "failure.json").read_text())["reason"]


def test_lines_that_cannot_be_read_are_rejects(model: Path, tmp_path: Path) -> None:
    good = json_lines(*({k: row[k] for k in ("instruction", "response")} for row in some_rows(30)))
    bad = b'{"instruction": "x", "response": "\n[1, 2]\n{"instruction": "a", "response": "b", "late": 1}\n'
    assert score(good * 400 + bad, model, tmp_path / "out", name="rows.jsonl") == 0
    assert [row["reason"] for row in rows_of(tmp_path / "out" / "rejects")] == [
        "broken_json", "broken_json", "does_not_fit",
    ]  # fmt: skip
    assert check_accounts(tmp_path / "out")["totals"]["rows"] == 12_003


def test_ten_megabytes_of_text(model: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "the fox " * 1_250_000, "response": "yes"}, *some_rows(3)]
    rows = [{"instruction": row["instruction"], "response": row["response"]} for row in rows]
    assert score(rows, model, tmp_path / "out") == 0
    first = table_of(tmp_path / "out").slice(0, 1).to_pylist()[0]
    assert (first["num_tokens"], first["truncated"], len(first["instruction"])) == (64, True, 10_000_000)
    assert (tmp_path / "out" / "manifest.json").stat().st_size < 100_000


def test_a_finished_folder_is_left_alone_and_another_run_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = some_rows(30)
    assert score(rows, model, tmp_path / "out") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert score(rows, model, tmp_path / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    other = save_tiny_scorer(tmp_path / "other", seed=5)
    said(capsys)
    for changed, difference in (
        ((rows, other), "holds another run: the model (the content of its files) has changed"),
        ((some_rows(31), model), "its input has changed: rows.parquet has another size ("),
        ((rows, model, "--tokens-per-batch", 99), "holds another run: model.tokens_per_batch: 2048 -> 99"),
        ((rows, model, "--max-length", 32), "holds another run: model.max_length: 64 -> 32"),
    ):
        content, name, *flags = changed
        assert score(content, name, tmp_path / "out", *flags) == 1
        assert difference in said(capsys)
    assert score(rows, other, tmp_path / "out", "--overwrite") == 0


def refused(capsys: pytest.CaptureFixture[str], status: int, wanted: int, *messages: str) -> None:
    words = said(capsys)
    assert status == wanted, words
    assert all(message in words for message in messages), words


def test_columns_that_cannot_be(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out = some_rows(5), tmp_path / "out"
    missing = score(rows, model, out, "--response-column", "output")
    refused(capsys, missing, 1, "--response-column output: there is no such column", "id, instruction, response, tags")
    refused(capsys, score(rows, model, out, "--instruction-column", "tags"), 1, "--instruction-column tags: is list<")
    scored = [{**row, "score_error": "?"} for row in rows]
    refused(capsys, score(scored, model, out), 1, "'score_error' exists already", "--score-column")
    assert not out.exists()


def test_models_and_devices_that_cannot_be(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    rows, out = some_rows(5), tmp_path / "out"
    refused(capsys, score(rows, tmp_path / "gone", out), 1, "gone: no such folder")
    refused(capsys, score(rows, Path("nobody/nothing"), out), 1, "nobody/nothing: no such folder here", "model hub")
    refused(capsys, score(rows, model, out, "--dtype", "int4"), 2, "unknown dtype 'int4'")
    refused(capsys, score(rows, model, out, "--device", "cuda"), 2, "device cuda is not available")
    refused(capsys, score(rows, model, out, *PORTABLE), 2, "--device and --dtype must be named")
    assert not out.exists()


def test_a_broken_model_is_an_error_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_scorer(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.out_proj.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    status = score(some_rows(5), folder, tmp_path / "out")
    refused(capsys, status, 1, "the model gives nan for the instruction", "its weights are broken")
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_dry_run_and_limit(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(some_rows(500), model, tmp_path / "out", "--limit", 100, "--dry-run") == 0
    words = capsys.readouterr().out
    assert (
        "1 file" in words and "100 rows" in words and "by scoring 64 rows here: about" in words and "roberta" in words
    )
    assert not (tmp_path / "out").exists()
    assert score(some_rows(500), model, tmp_path / "out", "--limit", 100) == 0
    assert table_of(tmp_path / "out")["id"].to_pylist() == list(range(100))


def test_rerank_with_a_model_scores_first(model: Path, tmp_path: Path) -> None:
    rows = some_rows(120)
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet(rows))
    flags = ["--model", model, "--device", "cpu", "--group-column", "instruction", "--top-k", 2]
    assert cappy("rerank", "--input", path, "--output", tmp_path / "out", *flags, *ONE_PROCESS) == 0
    scored = table_of(tmp_path / "out" / "scored").to_pandas()
    best = scored.sort_values("score", ascending=False, kind="stable").groupby("instruction").head(2)
    found = rows_of(tmp_path / "out")
    assert {(r["instruction"], r["response"], r["score"]) for r in found} == set(
        best[["instruction", "response", "score"]].itertuples(index=False, name=None)
    )
    before = data_bytes(tmp_path / "out")
    assert cappy("rerank", "--input", path, "--output", tmp_path / "out", *flags, *ONE_PROCESS) == 0
    assert cappy("rerank", "--input", path, "--output", tmp_path / "out", *flags, "--overwrite", *ONE_PROCESS) == 0
    assert data_bytes(tmp_path / "out") == before
    assert cappy("verify", tmp_path / "out") == 0


def test_rerank_with_a_model_picks_from_lists(model: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Which one, {i}?", "choices": [sentence(i + j, 2) for j in range(4)]} for i in range(25)]
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet(rows))
    flags = ["--model", model, "--device", "cpu", "--dtype", "float32", "--response-column", "choices"]
    assert cappy("rerank", "--input", path, "--output", tmp_path / "out", *flags, *ONE_PROCESS) == 0
    scorer = Scorer.from_pretrained(str(model), device="cpu", dtype="float32")
    wanted = {row["instruction"]: scorer.rank(row["instruction"], row["choices"])[0].response for row in rows}
    assert {row["instruction"]: row["response"] for row in rows_of(tmp_path / "out")} == wanted


def test_from_python(model: Path, tmp_path: Path) -> None:
    from beam_pipelines.jobs.score import ScoreConfig, run
    from beam_pipelines.runners.options import beam_options

    (tmp_path / "rows.parquet").write_bytes(parquet(some_rows(10)))
    config = ScoreConfig(input=str(tmp_path / "*.parquet"), model=str(model), output=str(tmp_path / "out"))
    assert run(config, beam_options([], local_mode="multi_threading")).manifest["totals"]["scored"] == 10


@needs_shared
@pytest.mark.slow
def test_all_answers_of_alpaca_eval(tmp_path: Path) -> None:
    """20,929 real answers of 26 models, many of them longer than the limit: every row and column is there."""
    source = SHARED / "data" / "candidates" / "alpaca_eval.parquet"
    model = save_tiny_scorer(tmp_path / "model")
    assert score(source, model, tmp_path / "out") == 0
    found, wanted = table_of(tmp_path / "out"), pq.read_table(source)
    assert found.select(wanted.column_names).equals(wanted)
    assert check_accounts(tmp_path / "out")["totals"]["scored"] == 20_929


def test_scored_choices_are_evaluated(model: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Which one, {i}?", "choices": (texts := [sentence(i + j, 2) for j in range(4)]),
         "references": [texts[i % 4]]}
        for i in range(25)
    ]  # fmt: skip
    assert score(rows, model, tmp_path / "scored", "--dtype", "float32", "--response-column", "choices") == 0
    flags = ["--task", "classification", "--response-column", "choices", *ONE_PROCESS]
    pattern = tmp_path / "scored" / "rows" / "*.parquet"
    assert cappy("evaluate", "--input", pattern, "--output", tmp_path / "out", *flags) == 0
    scorer = Scorer.from_pretrained(str(model), device="cpu", dtype="float32")
    right = [scorer.rank(row["instruction"], row["choices"])[0].response == row["references"][0] for row in rows]
    content = metrics_of(tmp_path / "out")
    methods = content["measures"]["accuracy"]["macro"]["methods"]
    assert methods["scorer:score"]["value"] == pytest.approx(np.mean(right)) and methods["random"]["value"] == 0.25
