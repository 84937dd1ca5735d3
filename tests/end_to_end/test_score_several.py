"""`cappy score --scorers`, by its command: one table of all scores, each scorer computed once and by itself."""

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from beam_pipelines.jobs.score import ScoreConfig, reuse, run
from beam_pipelines.options import beam_options
from beam_pipelines.runs.lock import hold
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import cappy, data_bytes, manifest_of, metrics_of, rows_of, sentence
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, PORTABLE, TWO_THREADS, json_lines, parquet, said, settled

FIRST, SECOND, THIRD = "first", "other/one.x", "third"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three scorers: a, b and c."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_scorer(folder / "a")
    save_tiny_scorer(folder / "b", "bert", seed=1)
    save_tiny_scorer(folder / "c", seed=2)
    return folder


def entry(models: Path, name: str, column: str, **others: Any) -> dict[str, Any]:
    return {"model": str(models / name), "column": column, **others}


def some_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "instruction": sentence(i // 4, 6),
            "response": sentence(i, 1 + i % 9),
            "references": sentence(i // 4, 3),
        }
        for i in range(start, start + count)
    ]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of two files of 60 rows each."""
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.parquet").write_bytes(parquet(some_rows(60, 60 * number), row_group_size=25))
    return tmp_path / "in"


def score(inputs: Path, output: Path, *flags: object, scorers: list[dict[str, Any]] | None = None) -> int:
    """`cappy score` over a folder's files with the scorers of a file, written beside the output unless None."""
    file = output.parent / "scorers.yaml"
    if scorers is not None:
        file.write_text(yaml.safe_dump(scorers))
    given = ("--input", inputs / "*", "--scorers", file, "--output", output, "--device", "cpu", "--dtype", "float32")
    return cappy("score", *settled(*given, "--check-pairs", 0, *ONE_PROCESS, *flags))


def table_of(output: Path) -> pa.Table:
    return ds.dataset(sorted(map(str, output.glob("rows/part-*.parquet"))), format="parquet").to_table()


def folders_of(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "scorers").iterdir())


def times_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def check_folder(output: Path) -> dict[str, Any]:
    """Check a run and its scorers' runs against their manifests, and the manifest against the table."""
    for folder in (output, *(output / "scorers").iterdir()):
        assert cappy("verify", folder) == 0 and cappy("report", folder) == 0
    manifest, rows = manifest_of(output), table_of(output)
    totals = manifest["totals"]
    assert totals["rows"] == rows.num_rows + manifest["rejects"]["rows"]
    assert totals["scored"] == sum(len(rows) - rows[name].null_count for name in manifest["scorers"])
    assert totals["unscored"] == sum(len(rows) - rows[f"{name}_error"].null_count for name in manifest["scorers"])
    return manifest


def alone(inputs: Path, output: Path, model: Path, column: str, *flags: object) -> pa.Table:
    given = ("--input", inputs / "*", "--model", model, "--score-column", column, "--output", output, "--device", "cpu")
    assert cappy("score", *settled(*given, "--dtype", "float32", "--check-pairs", 0, *ONE_PROCESS, *flags)) == 0
    return table_of(output)


def test_one_table_with_the_scores_that_each_scorer_gives_alone(models: Path, inputs: Path, tmp_path: Path) -> None:
    scorers = [entry(models, "a", FIRST), entry(models, "b", SECOND, max_length=32)]
    assert score(inputs, tmp_path / "out", scorers=scorers) == 0
    found = table_of(tmp_path / "out")
    one = alone(inputs, tmp_path / "one", models / "a", FIRST)
    two = alone(inputs, tmp_path / "two", models / "b", SECOND, "--max-length", 32)
    assert found.select(one.column_names).equals(one)
    assert found.select(two.column_names).equals(two)
    assert found.column_names == [*one.column_names, *two.column_names[4:]]
    assert [str(field) for field in found.schema] == [str(field) for field in (*one.schema, *list(two.schema)[4:])]
    assert folders_of(tmp_path / "out") == ["first", "other%2Fone%2Ex"]
    positions = pq.read_table(sorted((tmp_path / "out/scorers/first/rows").iterdir())[1])
    assert positions.column_names == ["position", FIRST, f"{FIRST}_error", f"{FIRST}_num_tokens", f"{FIRST}_truncated"]
    assert positions["position"].to_pylist() == list(range(60))
    manifest = check_folder(tmp_path / "out")
    assert list(manifest["scorers"]) == [FIRST, SECOND]
    alone_manifest = manifest_of(tmp_path / "two")
    assert manifest["scorers"][SECOND]["model"] == alone_manifest["model"]
    assert manifest["scorers"][SECOND]["totals"] == alone_manifest["totals"]
    page = (tmp_path / "out/report.html").read_text()
    assert "120 rows scored by 2 scorers" in page and "scorers/other%2Fone%2Ex/report.html" in page
    assert "other/one.x" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("flags", [TWO_THREADS, PORTABLE], ids=lambda flags: flags[-1])
def test_same_bytes_whatever_the_workers(flags: list[str], models: Path, inputs: Path, tmp_path: Path) -> None:
    scorers = [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    tokens = ("--tokens-per-batch", 300)
    assert score(inputs, tmp_path / "plain", *tokens, *ONE_PROCESS, scorers=scorers) == 0
    assert score(inputs, tmp_path / "other", *tokens, *flags) == 0
    assert data_bytes(tmp_path / "plain") == data_bytes(tmp_path / "other")


def test_a_scorer_that_is_added_is_the_only_one_computed(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, output, scorers=scorers) == 0
    before, bytes_before = times_of(output / "scorers"), data_bytes(output)
    assert score(inputs, output) == 0
    assert "already finished" in said(capsys) and data_bytes(output) == bytes_before
    more = [scorers[0], entry(models, "c", THIRD), scorers[1]]
    assert score(inputs, output, scorers=more) == 0
    text = said(capsys)
    assert text.count("already finished") == 2 and "--overwrite" not in text
    assert {path: time for path, time in times_of(output / "scorers").items() if path in before} == before
    assert list(manifest_of(output)["scorers"]) == [FIRST, THIRD, SECOND]
    check_folder(output)
    assert score(inputs, tmp_path / "fresh") == 0
    assert data_bytes(output) == data_bytes(tmp_path / "fresh")


def test_a_scorer_that_is_gone_or_another_one_is_refused_by_name(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, output, scorers=scorers) == 0
    before = data_bytes(output)
    said(capsys)
    assert score(inputs, output, scorers=scorers[:1]) == 1
    assert f"holds the scores of {SECOND!r}, which {tmp_path / 'scorers.yaml'} does not list" in said(capsys)
    assert score(inputs, output, scorers=[scorers[0], entry(models, "c", SECOND)]) == 1
    error = said(capsys)
    assert f"holds the scores of another {SECOND!r}: the model (the content" in error and "--overwrite" in error
    given = ("--input", inputs / "*", "--output", output, "--device", "cpu")
    assert cappy("score", *given, "--model", models / "a") == 1
    assert "holds the scores of several scorers" in said(capsys)
    assert data_bytes(output) == before
    alone(inputs, tmp_path / "one", models / "a", "score")
    said(capsys)
    assert score(inputs, tmp_path / "one", scorers=scorers) == 1
    assert f"--reuse {tmp_path / 'one'}" in said(capsys)


def test_an_interrupted_run_goes_on_where_it_was(models: Path, inputs: Path, tmp_path: Path) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, output, scorers=scorers) == 0
    whole = data_bytes(output)
    stage = output / "scorers" / "other%2Fone%2Ex"
    for path in (output / "run.json", *output.glob("*.*"), *output.glob("rows/*")):  # the table was not begun
        path.unlink(missing_ok=True)
    (stage / "manifest.json").unlink()
    (stage / "rows/part-00001-00000-00000.parquet").unlink()
    kept = times_of(output / "scorers")
    assert score(inputs, output) == 0
    assert data_bytes(output) == whole
    assert {path: time for path, time in times_of(output / "scorers").items() if path in kept} == kept


def test_an_unfinished_run_is_known_before_its_table(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    fails = [entry(models, "a", FIRST), entry(models, "b", SECOND, max_length=32)]
    (inputs / "1.jsonl").write_bytes(json_lines(*some_rows(3), b"no JSON"))
    assert score(inputs, output, "--max-reject-rate", 0, scorers=fails) == 1
    assert folders_of(output) == [FIRST] and (output / "run.json").exists()
    said(capsys)
    for command in ("verify", "report"):
        assert cappy(command, output) == 1
        assert "holds an unfinished run; run its command again to finish it" in said(capsys)
    given = ("--input", inputs / "*", "--output", output, "--device", "cpu")
    assert cappy("score", *given, "--model", models / "a") == 1
    assert "holds the scores of several scorers" in said(capsys)
    assert score(inputs, output, *ALL_MAY_FAIL) == 0
    assert check_folder(output)["totals"]["rows"] == 124


def test_one_command_at_a_time(models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST)]
    assert score(inputs, output, scorers=scorers) == 0
    kept = times_of(output)
    with hold(str(output), {}):
        assert score(inputs, output) == 0, "nothing to do"
        assert score(inputs, output, "--overwrite") == 1
        assert "another job is running in it" in said(capsys)
        assert score(inputs, output, scorers=[*scorers, entry(models, "b", SECOND)]) == 1
    assert times_of(output) == kept


def test_overwriting_leaves_no_scorer_that_is_not_listed(models: Path, inputs: Path, tmp_path: Path) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, output, scorers=scorers) == 0
    assert score(inputs, output, "--overwrite", scorers=scorers[1:]) == 0
    assert folders_of(output) == ["other%2Fone%2Ex"]
    check_folder(output)
    alone(inputs, output, models / "a", "score", "--overwrite")
    assert not any((output / "scorers").iterdir())
    assert cappy("verify", output) == 0


def test_added_while_the_table_was_deleted(models: Path, inputs: Path, tmp_path: Path) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST)]
    assert score(inputs, output, scorers=scorers) == 0
    (output / "manifest.json").unlink()  # killed within the deletion of the table
    assert score(inputs, output, scorers=[*scorers, entry(models, "b", SECOND)]) == 0
    assert score(inputs, tmp_path / "fresh") == 0
    assert data_bytes(output) == data_bytes(tmp_path / "fresh")
    assert json.loads((output / "run.json").read_text())["facts"]["settings"]["scorers"] == [FIRST, SECOND]


def test_grows_by_files_and_by_scorers(models: Path, inputs: Path, tmp_path: Path) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST)]
    (inputs / "0.parquet").rename(tmp_path / "later.parquet")
    assert score(inputs, output, scorers=scorers) == 0
    first = data_bytes(output)
    (tmp_path / "later.parquet").rename(inputs / "0.parquet")
    assert score(inputs, output) == 0
    grown = data_bytes(output)
    assert {path: grown[path] for path in first} == first
    assert score(inputs, output, scorers=[*scorers, entry(models, "b", SECOND)]) == 0
    found, manifest = table_of(output), check_folder(output)
    assert found["id"].to_pylist() == [*range(60, 120), *range(60)]
    assert [launch["files"] for launch in manifest["growth"]] == [1, 1]
    assert [file["name"] for file in manifest["inputs"]] == ["1.parquet", "0.parquet"]
    assert score(inputs, tmp_path / "fresh") == 0
    assert found.sort_by("id").equals(table_of(tmp_path / "fresh").sort_by("id"))


def test_positions_are_byte_offsets_and_rejects_are_counted_once(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    lines = [json_lines(row) for row in some_rows(30)]
    lines[3], lines[17] = b"{broken\n", json_lines({"id": 17, "instruction": None, "response": "x"})
    lines[20] = json_lines({**some_rows(1)[0], "id": {"not": "a number"}})  # only the table reads this column
    (tmp_path / "in" / "rows.jsonl").write_bytes(b"".join(lines))
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(tmp_path / "in", output, *ALL_MAY_FAIL, "--text-columns", "references", scorers=scorers) == 0
    manifest = check_folder(output)
    one = alone(tmp_path / "in", tmp_path / "one", models / "a", FIRST, *ALL_MAY_FAIL, "--text-columns", "references")
    assert table_of(output).select(one.column_names).equals(one)
    rejects = manifest_of(tmp_path / "one")["rejects"]
    assert manifest["rejects"]["rows"] == rejects["rows"] and manifest["rejects"]["rate"] == rejects["rate"]
    assert rows_of(output / "rejects") == rows_of(tmp_path / "one" / "rejects")
    said(capsys)
    assert score(tmp_path / "in", tmp_path / "strict") == 1
    assert f"scorer {FIRST!r}: " in said(capsys) and not (tmp_path / "strict/manifest.json").exists()


def test_lists_of_responses(models: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        {"instruction": sentence(i, 4), "response": None if i == 7 else [sentence(i + j, 3) for j in range(i % 4)]}
        for i in range(40)
    ]
    (tmp_path / "in" / "rows.parquet").write_bytes(parquet(rows))
    assert score(tmp_path / "in", tmp_path / "out", scorers=[entry(models, "a", FIRST), entry(models, "b", "b")]) == 0
    for name, column in (("a", FIRST), ("b", "b")):
        one = alone(tmp_path / "in", tmp_path / name, models / name, column)
        assert table_of(tmp_path / "out").select(one.column_names).equals(one)
    totals = manifest_of(tmp_path / "out")["totals"]
    assert totals == {"rows": 40, "scored": 2 * sum(len(row["response"] or ()) for row in rows), "unscored": 0}


def test_limit_overwrite_and_lost_files(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, scorers = tmp_path / "out", [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, output, "--limit", 7, scorers=scorers) == 0
    assert table_of(output)["id"].to_pylist() == [*range(7), *range(60, 67)]
    assert score(inputs, output) == 1
    assert "limit" in said(capsys)
    assert score(inputs, output, "--overwrite", scorers=[*scorers, entry(models, "c", THIRD)]) == 0
    whole = data_bytes(output)
    assert check_folder(output)["totals"]["rows"] == 120
    next(output.glob("rows/*.parquet")).unlink()
    next((output / "scorers" / FIRST).glob("rows/*.parquet")).unlink()
    assert score(inputs, output) == 0
    assert data_bytes(output) == whole


def test_one_model_with_two_templates_and_flags_as_defaults(models: Path, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("Rate {{ response }} for {{ instruction }}")
    scorers = {"scorers": [entry(models, "a", "plain"), entry(models, "a", "own", template="own.jinja")]}
    (tmp_path / "scorers.yaml").write_text(yaml.safe_dump(scorers))
    assert score(inputs, tmp_path / "out", "--max-length", 40) == 0
    manifest = check_folder(tmp_path / "out")
    found = {name: run["model"] for name, run in manifest["scorers"].items()}
    assert found["plain"]["template"] == "none" and found["own"]["template"] != "none"
    assert {model["max_length"] for model in found.values()} == {40}
    table = table_of(tmp_path / "out")
    assert table["plain"].to_pylist() != table["own"].to_pylist()


def test_rerank_and_evaluate_read_the_table(models: Path, inputs: Path, tmp_path: Path) -> None:
    assert score(inputs, tmp_path / "out", scorers=[entry(models, "a", FIRST), entry(models, "b", SECOND)]) == 0
    table = tmp_path / "out/rows/*.parquet"
    for column in (FIRST, SECOND):
        output = tmp_path / column.replace("/", "-")
        assert cappy("rerank", "--input", table, "--score-column", column, "--output", output, *ONE_PROCESS) == 0
        best = {row["instruction"]: row[column] for row in rows_of(output)}
        scores: dict[str, float] = {}
        for row in table_of(tmp_path / "out").to_pylist():
            scores[row["instruction"]] = max(row[column], scores.get(row["instruction"], -99.0))
        assert best == scores
    flags = ("--score-column", f"{FIRST},{SECOND}", "--task", "generation")
    assert cappy("evaluate", "--input", table, *flags, "--output", tmp_path / "evaluated", *ONE_PROCESS) == 0
    assert {FIRST, SECOND} <= {
        name.removeprefix("scorer:") for name in json.dumps(metrics_of(tmp_path / "evaluated")).split('"')
    }


def test_scores_are_reused_for_the_scorers_that_a_folder_has(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone(inputs, tmp_path / "one", models / "a", "score")
    scorers = [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, tmp_path / "out", "--reuse", tmp_path / "one", scorers=scorers) == 0
    runs = manifest_of(tmp_path / "out")["scorers"]
    assert runs[FIRST]["totals"]["reused"] == 120 and "reused" not in runs[SECOND]["totals"]
    assert manifest_of(tmp_path / "out")["totals"]["reused"] == 120
    assert f"{FIRST}: 120 pairs scored, 120 of them reused, 0 without" in capsys.readouterr().out
    assert "reused scores" in (tmp_path / "out/report.html").read_text()
    assert score(inputs, tmp_path / "again", "--reuse", tmp_path / "out") == 0
    assert [run["totals"]["reused"] for run in manifest_of(tmp_path / "again")["scorers"].values()] == [120, 120]
    assert table_of(tmp_path / "again").equals(table_of(tmp_path / "out"))


def test_one_model_is_in_memory_at_a_time(
    models: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cappy_model.score.scorer import Scorer

    loaded: list[weakref.ref[Any]] = []
    before: Callable[..., Scorer] = Scorer.from_pretrained

    def from_pretrained(*given: Any, **settings: Any) -> Scorer:
        assert not [one for one in loaded if one() is not None], "another scorer is still in memory"
        scorer = before(*given, **settings)
        loaded.append(weakref.ref(scorer))
        return scorer

    monkeypatch.setattr(Scorer, "from_pretrained", from_pretrained)
    reuse.release_scorers()
    (tmp_path / "scorers.yaml").write_text(yaml.safe_dump([entry(models, name, name) for name in "abc"]))
    config = ScoreConfig(
        input=f"{inputs}/*", scorers=str(tmp_path / "scorers.yaml"), output=str(tmp_path / "out"), device="cpu"
    )
    result = run(config, beam_options(TWO_THREADS, local_mode="multi_threading"))
    gc.collect()
    assert len(loaded) == 3 and all(one() is None for one in loaded)
    assert result.table().num_rows == 120


def test_a_dry_run_describes_each_scorer_and_writes_nothing(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorers = [entry(models, "a", FIRST), entry(models, "b", SECOND)]
    assert score(inputs, tmp_path / "out", "--dry-run", scorers=scorers) == 0
    text = capsys.readouterr().out
    assert "2 files, 120 rows; 2 scorers in turn" in text
    assert text.count("measured by scoring") == 2 and f"\n{SECOND}:\n" in text
    assert not (tmp_path / "out").exists()
    assert score(inputs, tmp_path / "out", scorers=scorers[:1]) == 0
    capsys.readouterr()
    assert score(inputs, tmp_path / "out", "--dry-run", scorers=scorers) == 0
    text = capsys.readouterr().out
    assert f"{FIRST}: {models / 'a'} has finished" in text and text.count("measured by scoring") == 1


def test_flags_that_exclude_each_other(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--input", inputs / "*", "--output", tmp_path / "out")
    assert cappy("score", *given) == 2
    assert "give --model ID, or --scorers FILE for several scorers" in said(capsys)
    assert score(inputs, tmp_path / "out", "--model", models / "a", scorers=[entry(models, "b", SECOND)]) == 2
    assert "--model and --scorers exclude each other" in said(capsys)
    assert score(inputs, tmp_path / "out", "--score-column", "x") == 2
    assert "names its `column`" in said(capsys)
    remote = ("--runner=PortableRunner", "--job_endpoint=localhost:1")
    assert cappy("score", *given, "--scorers", tmp_path / "scorers.yaml", *remote) == 2
    assert f"scorer {SECOND!r}: --device and --dtype must be named" in said(capsys)


WRONG = [
    ("- {model: m, colum: x}", ["scorer 1: unknown key 'colum'; did you mean 'column'?", "'column' is missing"]),
    ("- {model: m, column: x, head: yes}", ["scorer 1 (x): 'head' is True", "write it in quotes"]),
    ("- {model: m, column: x, max_length: 0}", ["scorer 1 (x): 'max_length' is 0"]),
    ("[]", ["is empty; list scorers, each with its `model` and `column`"]),
    ("", ["is empty; list scorers"]),
    ("scorers:", ["is empty; list scorers"]),
    ("scorers: {model: m}", ["holds {'model': 'm'}, which is no list; list scorers"]),
    ("m", ["holds 'm', which is no list"]),
    ("- {model: m, column: x}\n- m", ["scorer 2 is 'm'; list scorers, each with its `model` and `column`"]),
    ("- null", ["scorer 1 is None; list scorers"]),
    ('- {model: m, column: "\\u00e9"}\n- {model: n, column: "e\\u0301"}', ["or Unicode normalization"]),
    ("scorer: []", ["unknown key 'scorer'; did you mean 'scorers'?"]),
    ("- {model: m, column: x}\n- {model: n, column: x}", ["column 'x' is named twice"]),
    ("- {model: m, column: x}\n- {model: n, column: X}", ["columns 'x' and 'X' differ only in case"]),
    (
        "- {model: m, column: x}\n- {model: n, column: x_error}",
        ["scorers 'x' and 'x_error' both write a column 'x_error'"],
    ),
    ("- {model: m, column: position}", ["column 'position' is reserved for row positions; rename 'position'"]),
    (f"- {{model: m, column: {'x' * 201}}}", ["is too long for the name of a folder"]),
    ("- {model: m\n", ["is not YAML"]),
]


@pytest.mark.parametrize(("content", "sentences"), WRONG, ids=[content[:40] for content, _ in WRONG])
def test_faults_of_the_file(
    content: str, sentences: list[str], inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scorers.yaml").write_text(content)
    assert score(inputs, tmp_path / "out") == 2
    error = said(capsys)
    assert str(tmp_path / "scorers.yaml") in error
    assert all(sentence in error for sentence in sentences), error


def test_faults_that_are_known_before_a_row_is_scored(
    models: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, reason in (
        (entry(models, "missing", SECOND), f"scorer {SECOND!r}: "),
        (
            entry(models, "b", "id"),
            "scorer 'id': column 'id' exists already and would be overwritten; give the scorer another `column`",
        ),
        (entry(models, "b", SECOND, head="nope"), "leave `head` nope out"),
        (entry(models, "b", SECOND, template="none.jinja"), f"{tmp_path / 'none.jinja'}: there is no such file"),
        (entry(models, "b", SECOND, max_length=100_000), f"scorer {SECOND!r}: "),
    ):
        assert score(inputs, tmp_path / "out", scorers=[entry(models, "a", FIRST), wrong]) != 0
        assert reason in said(capsys)
        assert not (tmp_path / "out").exists()
    (tmp_path / "scorers.yaml").unlink()
    assert score(inputs, tmp_path / "out") == 2
    assert "--scorers requires a YAML file" in said(capsys)
