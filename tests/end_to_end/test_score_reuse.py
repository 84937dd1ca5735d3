"""`cappy score --reuse`: known scores are copied to the byte, the rest is computed, others are refused by name."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from cappy_model.score.check import Plain, compare
from schemas.ids import digest_of
from tests.beam_pipelines.report.pages import read
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import cappy, data_bytes, manifest_of, rows_of, sentence
from tests.end_to_end.inputs import ALL_MAY_FAIL, TWO_PROCESSES, TWO_THREADS, json_lines, parquet, said, settled

Rows = list[dict[str, Any]]
SHIFT = np.float32(100)
NEW = ["score", "score_error", "num_tokens", "truncated"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp("model"))


def some_rows(start: int, stop: int) -> Rows:
    return [
        {"id": i, "instruction": sentence(i // 4, 6), "response": sentence(i, 1 + i % 9)} for i in range(start, stop)
    ]


def command(content: Rows | bytes | Path, model: Path, output: Path, *flags: object) -> list[str]:
    """The words of `cappy score` over rows, which are written beside the output."""
    path = content if isinstance(content, Path) else output.parent / f"{output.name}.parquet"
    if not isinstance(content, Path):
        path.write_bytes(content if isinstance(content, bytes) else parquet(content))
    given = ["--input", path, "--model", model, "--output", output, "--device", "cpu", "--dtype", "float32"]
    return ["score", *settled(*given, "--direct_num_workers=1", *flags)]


def score(content: Rows | bytes | Path, model: Path, output: Path, *flags: object) -> Path:
    """Score rows; return the output folder."""
    assert cappy(*command(content, model, output, *flags)) == 0
    return output


def table_of(output: Path) -> pa.Table:
    return ds.dataset(sorted(map(str, output.glob("rows/part-*.parquet"))), format="parquet").to_table()


def alter(output: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """Change the rows of a finished run as if they had been computed so."""
    manifest = manifest_of(output)
    for entry in manifest["files"]:
        path = output / entry["path"]
        pq.write_table(change(pq.read_table(path)), path)
        entry |= {"bytes": path.stat().st_size, "digest": digest_of(path.read_bytes())}
    (output / "manifest.json").write_text(json.dumps(manifest))
    return output


def replaced(rows: pa.Table, name: str, values: Any) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)


def shifted(rows: pa.Table) -> pa.Table:
    """Scores that no model of ours gives, so that one that is copied is told from one that is computed."""
    return replaced(rows, "score", pc.add(rows["score"], pa.scalar(SHIFT, pa.float32())))


@pytest.fixture(scope="module")
def known(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over rows 0 to 199."""
    return score(some_rows(0, 200), model, tmp_path_factory.mktemp("known") / "known")


@pytest.mark.parametrize("flags", [(), TWO_THREADS, TWO_PROCESSES], ids=["one", "threads", "processes"])
def test_known_scores_are_copied_to_the_byte_and_the_rest_is_computed(
    flags: list[str], model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = alter(Path(shutil.copytree(known, tmp_path / "known")), shifted)
    output = score(some_rows(100, 300), model, tmp_path / "out", "--reuse", other, *flags)
    found, before = table_of(output), table_of(other)
    assert found.slice(0, 100).select(NEW).equals(before.slice(100).select(NEW))
    assert found.slice(0, 100)["score"].to_numpy().tobytes() == before.slice(100)["score"].to_numpy().tobytes()
    assert max(found.slice(100)["score"].to_pylist()) < float(SHIFT) / 2
    manifest = manifest_of(output)
    totals = {"rows": 200, "scored": 200, "unscored": 0, "reused": 100, "distinct": 200}
    assert {name: manifest["totals"][name] for name in totals} == totals
    assert manifest["totals"]["truncated"] == sum(found["truncated"].to_pylist())
    assert sum(manifest["scores"]["all"].values()) == sum(manifest["lengths"]["pairs"]) == 200
    assert manifest["tokens"]["real"] == sum(found.slice(100)["num_tokens"].to_pylist())
    assert all(row["score"] > SHIFT / 2 for row in manifest["samples"]["highest"])
    assert "200 pairs scored in 200 rows, 100 of them reused, 0 without" in capsys.readouterr().out
    assert "reused pairs 100 with the score of an earlier run" in read((output / "report.html").read_text()).text
    assert cappy("verify", output) == 0


def test_all_known_is_the_run_again(model: Path, known: Path, tmp_path: Path) -> None:
    output = score(some_rows(0, 200), model, tmp_path / "out", "--reuse", known)
    assert table_of(output).equals(table_of(known))
    manifest, before = manifest_of(output), manifest_of(known)
    assert manifest["totals"] == {**before["totals"], "reused": 200}
    assert manifest["tokens"]["real"] == 0
    for part in ("scores", "lengths", "errors", "samples"):
        again = json.dumps(manifest[part]).replace("out.parquet", "known.parquet")
        if part != "samples":  # which are drawn by the name of the file
            assert again == json.dumps(before[part])


def test_against_computing_anew(model: Path, tmp_path: Path) -> None:
    """Other batches give other last digits, and the same choice wherever scores differ by more."""
    dtype = ("--dtype", "bfloat16", "--tokens-per-batch")
    known = score(some_rows(0, 150), model, tmp_path / "known", *dtype, 300)
    reused = table_of(score(some_rows(50, 250), model, tmp_path / "out", *dtype, 4_000, "--reuse", known))
    anew = table_of(score(some_rows(50, 250), model, tmp_path / "anew", *dtype, 4_000))
    scores, wanted = (table["score"].to_numpy() for table in (reused, anew))
    found = compare(scores, Plain(wanted, float(np.abs(wanted).max())), "bfloat16")
    assert found.compared == 200 and found.agrees
    for name in NEW[1:]:
        assert reused[name].equals(anew[name])
    for start in range(0, 200, 4):  # the responses of one instruction
        group = slice(start, start + 4)
        second, best = np.sort(wanted[group])[-2:]
        if best - second > 2 * found.tolerance:
            assert scores[group].argmax() == wanted[group].argmax()


def test_of_equal_pairs_the_first_counts(model: Path, known: Path, tmp_path: Path) -> None:
    second = alter(score(some_rows(100, 300), model, tmp_path / "second"), shifted)
    output = score(some_rows(0, 320), model, tmp_path / "a", "--reuse", known, second)
    scores = table_of(output)["score"].to_numpy()
    assert np.array_equal(scores[:200], table_of(known)["score"].to_numpy())
    assert np.array_equal(scores[200:300], table_of(second)["score"].to_numpy()[100:])
    assert manifest_of(output)["totals"]["reused"] == 300
    turned = score(some_rows(0, 320), model, tmp_path / "b", "--reuse", second, "--reuse", known)
    assert np.array_equal(table_of(turned)["score"].to_numpy()[100:300], table_of(second)["score"].to_numpy())
    assert manifest_of(turned)["fingerprint"] != manifest_of(output)["fingerprint"]


def test_a_pair_without_a_score_is_computed_again(model: Path, known: Path, tmp_path: Path) -> None:
    def without_two(rows: pa.Table) -> pa.Table:
        scores = rows["score"].to_pylist()
        return shifted(replaced(rows, "score", pa.array([None, None, *scores[2:]], pa.float32())))

    other = alter(Path(shutil.copytree(known, tmp_path / "known")), without_two)
    output = score(some_rows(0, 200), model, tmp_path / "out", "--reuse", other)
    scores = table_of(output)["score"].to_numpy()
    assert np.all(scores[:2] < SHIFT / 2) and np.all(scores[2:] > SHIFT / 2)
    assert manifest_of(output)["totals"]["reused"] == 198


def test_lists_of_responses_and_other_columns(model: Path, tmp_path: Path) -> None:
    choices: list[list[str | None] | None] = [["yes", "no"], [], None, ["yes", None, "maybe"]]
    rows = [{"question": f"Is it {i}?", "choices": options} for i, options in enumerate(choices)]
    schema = pa.schema([("question", pa.large_string()), ("choices", pa.large_list(pa.string()))])
    columns = ("--instruction-column", "question", "--response-column", "choices", "--score-column", "mine")
    content = parquet(pa.Table.from_pylist(rows, schema))
    listed = score(content, model, tmp_path / "listed", *columns, *ALL_MAY_FAIL)
    long = [{"instruction": f"Is it {i}?", "response": text} for i in (0, 3) for text in choices[i] or () if text]
    flat = score(long, model, tmp_path / "flat", "--reuse", alter(listed, lambda rows: rows))
    assert manifest_of(flat)["totals"]["reused"] == 4
    wanted = [number for row in rows_of(listed) for number in row["mine"] or () if number is not None]
    assert table_of(flat)["score"].to_pylist() == wanted
    back = score(content, model, tmp_path / "back", *columns, *ALL_MAY_FAIL, "--reuse", alter(flat, shifted))
    assert manifest_of(back)["totals"]["reused"] == 4
    assert [number for row in rows_of(back) for number in row["mine"] or () if number is not None] == (
        table_of(flat)["score"].to_pylist()
    )


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_of_any_type(kind: pa.DataType, model: Path, known: Path, tmp_path: Path) -> None:
    """The folder has texts as its input had them, whatever their type."""
    rows = pa.Table.from_pylist(some_rows(0, 60))
    texts = [pa.array(rows[name].to_pylist(), pa.string()).cast(kind) for name in ("instruction", "response")]
    content = parquet(pa.table({"instruction": texts[0], "response": texts[1]}))
    own = score(content, model, tmp_path / "own", "--reuse", known)
    assert manifest_of(own)["totals"]["reused"] == 60
    back = score(some_rows(0, 60), model, tmp_path / "back", "--reuse", alter(own, shifted))
    assert manifest_of(back)["totals"]["reused"] == 60


def test_growing_with_known_scores(model: Path, known: Path, tmp_path: Path) -> None:
    other = alter(Path(shutil.copytree(known, tmp_path / "known")), shifted)
    (tmp_path / "in").mkdir()
    pattern = tmp_path / "in" / "*.parquet"
    (tmp_path / "in" / "b.parquet").write_bytes(parquet(some_rows(150, 220)))
    output = score(pattern, model, tmp_path / "out", "--reuse", other)
    before = data_bytes(output)
    (tmp_path / "in" / "a.parquet").write_bytes(parquet(some_rows(180, 260)))
    score(pattern, model, output, "--reuse", other)
    after = data_bytes(output)
    assert len(after) == 2 and {name: after[name] for name in before} == before
    totals = manifest_of(output)["totals"]
    assert (totals["rows"], totals["scored"], totals["reused"]) == (150, 150, 70)


def other_scorer(name: str, model: Path, folder: Path) -> tuple[Path, Sequence[object]]:
    """A model and flags of which one thing is another than in the known run."""
    if name == "content":
        return save_tiny_scorer(folder / "other", seed=1), []
    if name == "template":
        (folder / "t.jinja").write_text("{{ instruction }} => {{ response }}")
        return model, ["--template", folder / "t.jinja"]
    return model, ("--dtype", "bfloat16") if name == "dtype" else ("--max-length", 32)


@pytest.mark.parametrize(
    ("name", "told", "flag"),
    [
        ("dtype", "its dtype is float32, and here it is bfloat16", "--dtype"),
        ("max_length", "its max_length is 64, and here it is 32", "--max-length"),
        ("template", "its template is none, and here it is file", "--template"),
        ("content", "the files of its model, {model}, differ", "--model"),
    ],
)
def test_another_scorer_is_refused_by_the_difference(
    name: str, told: str, flag: str, model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used, flags = other_scorer(name, model, tmp_path)
    assert cappy(*command(some_rows(0, 4), used, tmp_path / "out", "--reuse", known, *flags)) == 1
    error = said(capsys)
    assert f"--reuse {known}: its scores are those of another scorer: " in error
    assert told.format(model=model) in error and f"give the {flag}" in error and "or leave the folder out" in error
    assert not (tmp_path / "out").exists()


def test_another_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_scorer(tmp_path / "model", num_labels=3)
    known = score(some_rows(0, 4), model, tmp_path / "known", "--head", "0")
    assert cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--head", "1", "--reuse", known)) == 1
    assert "its head is " in (error := said(capsys)) and "give the --head of that run" in error
    score(some_rows(0, 4), model, tmp_path / "out", "--head", "0", "--reuse", known, "--tokens-per-batch", 100)
    assert manifest_of(tmp_path / "out")["totals"]["reused"] == 4


def break_folder(fault: str, known: Path, folder: Path) -> Path:
    """A copy of a finished run with a fault."""
    copy = Path(shutil.copytree(known, folder / "broken"))
    if fault == "unfinished":
        (copy / "manifest.json").unlink()
    elif fault == "lost":
        next(copy.glob("rows/*")).unlink()
    elif fault == "empty":
        shutil.rmtree(copy)
    elif fault == "damaged":
        manifest = manifest_of(known)
        del manifest["model"]
        (copy / "manifest.json").write_text(json.dumps(manifest))
    elif fault == "newer":
        (copy / "manifest.json").write_text(json.dumps({**manifest_of(known), "format_version": 99}))
    return copy


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("unfinished", "holds an unfinished run; run its command again to finish it"),
        ("lost", "rows/part-00000-00000-00000.parquet is missing; run the job's command again to rebuild what is lost"),
        ("empty", "holds no manifest.json; give the output folder of a job"),
        ("damaged", "its manifest.json is damaged (KeyError: 'model')"),
        ("newer", "was written by a later version of cappy"),
    ],
)
def test_a_folder_that_cannot_be_reused_is_named(
    fault: str, told: str, model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = break_folder(fault, known, tmp_path)
    assert cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--reuse", known, broken)) == 1
    assert f"--reuse {broken}: {told}" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_another_jobs_folder_and_the_output_itself_are_refused(
    model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best"
    assert cappy("rerank", "--input", known / "rows" / "*.parquet", "--output", best, "--direct_num_workers=1") == 0
    assert cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--reuse", best)) == 1
    assert f"--reuse {best}: holds a run of rerank; give an output folder of score" in said(capsys)
    assert cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--reuse", f"{tmp_path / 'out'}/")) == 2
    assert "is the output itself, whose rows are kept anyway; leave it out" in said(capsys)


def test_a_folder_that_has_gone_or_changed_between_launches(
    model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(known, tmp_path / "known"))
    words = command(some_rows(150, 250), model, tmp_path / "out", "--reuse", other)
    assert cappy(*words) == 0
    (tmp_path / "out" / "manifest.json").unlink()
    moved = other.rename(tmp_path / "moved")
    capsys.readouterr()
    assert cappy(*words) == 1
    error = said(capsys)
    assert f"--reuse {other}: holds no manifest.json" in error
    assert f"The run in {tmp_path / 'out'} reuses its scores: bring it back, or --overwrite that run" in error
    assert cappy(*words[:-1], moved) == 0  # wherever it is
    manifest, before = manifest_of(tmp_path / "out"), data_bytes(tmp_path / "out")
    assert manifest["totals"]["reused"] == 50
    alter(moved, shifted)
    for same in ([*words[:-1], moved], words[:-2]):
        said(capsys)
        assert cappy(*same) == 0
        assert "already finished" in said(capsys)
    assert manifest_of(tmp_path / "out") == manifest and data_bytes(tmp_path / "out") == before
    assert cappy(*words) == 1
    assert f"The run in {tmp_path / 'out'} has finished, and keeps its scores without it: leave" in said(capsys)


def test_where_scores_come_from_is_fixed_until_the_run_has_finished(
    model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, output = Path(shutil.copytree(known, tmp_path / "known")), tmp_path / "out"
    words = command(some_rows(150, 250), model, output, "--reuse", other)
    assert cappy(*words) == 0
    (unit,) = output.glob("rows/*")
    content, manifest = unit.read_bytes(), (output / "manifest.json").read_bytes()
    alter(other, shifted)
    unit.unlink()
    for changed in (words, words[:-2]):
        said(capsys)
        assert cappy(*changed) == 1
        assert "is missing. The source of reused scores (--reuse, or the rows in its folders) has changed" in said(
            capsys
        )
        assert (output / "manifest.json").read_bytes() == manifest
    (output / "manifest.json").unlink()
    for changed in (words, words[:-2]):
        assert cappy(*changed) == 1
        assert "holds another run: the source of reused scores (--reuse, or the rows in its folders) has changed" in (
            said(capsys)
        )
    assert cappy(*words[:-1], known) == 0
    assert unit.read_bytes() == content


def in_months(folder: Path, **months: Rows) -> Path:
    """Write a file of rows for each month; return the pattern of all of them."""
    folder.mkdir(exist_ok=True)
    for month, rows in months.items():
        (folder / f"{month}.jsonl").write_bytes(json_lines(*rows))
    return folder / "*.jsonl"


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_the_source_grows_and_then_the_run_that_reuses_it(
    several: bool, model: Path, scorers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(rows: Path, output: Path, *flags: object) -> None:
        words = score_all(rows, scorers, output, *flags) if several else command(rows, model, output, *flags)
        said(capsys)
        assert cappy(*words) == 0, said(capsys)

    source, output, folder = tmp_path / "source", tmp_path / "out", tmp_path / "in"
    theirs = in_months(tmp_path / "theirs", may=some_rows(0, 40))
    run(theirs, source)
    ours = in_months(folder, may=some_rows(20, 60))
    run(ours, output, "--reuse", source)
    before = data_bytes(output)
    in_months(tmp_path / "theirs", june=some_rows(100, 140))
    run(theirs, source)
    run(ours, output, "--reuse", source)
    assert "already finished" in said(capsys) and data_bytes(output) == before
    in_months(folder, june=some_rows(120, 160))
    run(ours, output, "--reuse", source)
    assert before.items() <= data_bytes(output).items()
    stages = [output / "scorers" / name for name in ("first", "second")] if several else [output]
    for stage in stages:
        manifest = manifest_of(stage)
        assert (manifest["totals"]["reused"], manifest["totals"]["rows"]) == (40, 80)
        one, other = (launch["reuse"] for launch in manifest["growth"])
        assert one != other and [entry["files"] for entry in manifest["growth"]] == [1, 1]
    assert cappy("verify", output) == 0
    in_months(folder, july=some_rows(200, 210))
    run(ours, output)
    assert before.items() <= data_bytes(output).items() and manifest_of(output)["totals"]["rows"] == 90
    for stage in stages:
        assert [len(launch.get("reuse", ())) for launch in manifest_of(stage)["growth"]] == [1, 1, 0]


def test_a_dry_run_tells_the_size_of_the_index(
    model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--reuse", known, known, "--dry-run")) == 0
    assert "--reuse: 200 scored pairs in 1 folder, an index of up to 5.0 kB" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_killed_and_resumed_the_bytes_are_those_of_an_undisturbed_run(number: signal.Signals, tmp_path: Path) -> None:
    model = save_tiny_scorer(tmp_path / "model", num_hidden_layers=12)
    (tmp_path / "in").mkdir()
    for file in range(30):
        (tmp_path / "in" / f"{file:02d}.jsonl").write_bytes(json_lines(*some_rows(60 * file, 60 * file + 60)))
    known = score(some_rows(600, 1200), model, tmp_path / "known")
    pattern, temporary = tmp_path / "in" / "*.jsonl", tmp_path / "tmp"
    temporary.mkdir()
    words = [str(word) for word in command(pattern, model, tmp_path / "out", "--reuse", known)]
    program = ["env", f"TMPDIR={temporary}", sys.executable, "-m", "beam_pipelines.program", *words]
    process = subprocess.Popen(program, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list((tmp_path / "out").glob("rows/*"))) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=30)
    done = len(list((tmp_path / "out").glob("rows/part-*")))
    assert process.returncode and 12 <= done < 30 and not list(temporary.glob("tmp*"))
    assert subprocess.run(program).returncode == 0
    score(pattern, model, tmp_path / "plain", "--reuse", known)
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "plain")
    assert manifest_of(tmp_path / "out")["totals"]["reused"] == 600


@pytest.fixture
def scorers(model: Path, tmp_path: Path) -> Path:
    """A file of two scorers: that of the known run, and another one."""
    other = save_tiny_scorer(tmp_path / "other", seed=1)
    listed = [{"model": str(model), "column": "first"}, {"model": str(other), "column": "second"}]
    (tmp_path / "scorers.yaml").write_text(json.dumps(listed))
    return tmp_path / "scorers.yaml"


def score_all(rows: Rows, scorers: Path, output: Path, *flags: object) -> list[str]:
    """The words of `cappy score --scorers`."""
    words = command(rows, scorers, output, *flags)
    words[words.index("--model")] = "--scorers"
    return words


def test_several_scorers_reuse_what_is_theirs(
    scorers: Path, model: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = alter(Path(shutil.copytree(known, tmp_path / "known")), shifted)
    assert cappy(*score_all(some_rows(150, 250), scorers, tmp_path / "both", "--reuse", shown)) == 0
    both = table_of(tmp_path / "both")
    assert np.array_equal(both["first"].to_numpy()[:50], table_of(shown)["score"].to_numpy()[150:])
    assert max(both["first"].to_pylist()[50:] + both["second"].to_pylist()) < SHIFT / 2
    stage = tmp_path / "both" / "scorers" / "first"
    assert cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--reuse", stage)) == 1
    assert f"holds scores without their pairs; give the folder of the table, {tmp_path / 'both'}" in said(capsys)
    found = {name: entry["totals"] for name, entry in manifest_of(tmp_path / "both")["scorers"].items()}
    assert found["first"]["reused"] == 50 and "reused" not in found["second"]
    again = score(some_rows(150, 250), tmp_path / "other", tmp_path / "again", "--reuse", tmp_path / "both")
    assert table_of(again)["score"].equals(both["second"]) and manifest_of(again)["totals"]["reused"] == 100
    assert cappy(*score_all(some_rows(0, 4), scorers, tmp_path / "out", "--reuse", known, "--max-length", 32)) == 1
    assert "its max_length is 64, and here it is 32; give the --max-length of that run" in said(capsys)
    assert (
        cappy(*command(some_rows(0, 4), model, tmp_path / "out", "--reuse", tmp_path / "both", "--dtype=bfloat16")) == 1
    )
    assert "the scores in its column 'first' are those of another scorer: its dtype is float32" in said(capsys)
