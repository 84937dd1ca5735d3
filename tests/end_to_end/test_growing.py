"""Inputs that grow: files that are added to `cappy score` and `cappy generate` are taken in, and nothing is redone."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs.generate import engines, job
from beam_pipelines.jobs.generate.engines import GeneratorSpec
from beam_pipelines.jobs.generate.unit_size import UnitSize
from beam_pipelines.jobs.score import plan
from beam_pipelines.models.settle import earlier
from cappy_model.generate.decodings import Drawing
from schemas.ids import digest
from tests.beam_pipelines.jobs.generate.fake_engine import BREAKS, FakeEngine
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import cappy, data_bytes, manifest_of, rows_of, sentence
from tests.end_to_end.inputs import ONE_PROCESS, json_lines, said

Rows = list[dict[str, Any]]
NAMES = "abcdef"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """Replace engines by one that is fake."""
    made = FakeEngine(Drawing(()))

    def settle(config: Any, drawing: Drawing, *, local: bool) -> tuple[GeneratorSpec, dict[str, Any], UnitSize]:
        made.drawing = drawing
        spec = GeneratorSpec(config.model, "cpu", "float32", 1024, False, False, "{}", drawing)
        return spec, {"content": digest(config.model), "type": "fake", "tokens_per_batch": 1024}, UnitSize(16)

    monkeypatch.setattr(job, "_settle", settle)
    monkeypatch.setattr(engines, "open_engine", lambda spec: made)
    engines.load_engine.cache_clear()
    yield made
    engines.load_engine.cache_clear()


def rows(name: str, count: int = 30) -> Rows:
    start = NAMES.index(name) * 100
    return [
        {"instruction_id": f"id-{i}", "instruction": sentence(i // 3, 5), "response": sentence(i, 1 + i % 9)}
        for i in range(start, start + count)
    ]


def add(folder: Path, *names: str, broken: int = 0) -> None:
    """Write an input file for each name: JSON Lines for every second letter, the last line unusable, else Parquet."""
    folder.mkdir(exist_ok=True)
    for name in names:
        if NAMES.index(name) % 2:
            content = json_lines(*rows(name), *[b"{broken", b""][: 2 * broken])
            (folder / f"{name}.jsonl").write_bytes(content)
        else:
            pq.write_table(pa.Table.from_pylist(rows(name)), folder / f"{name}.parquet")


def score(folder: Path, output: Path, model: Path, *flags: object) -> int:
    given = ("--device", "cpu", "--dtype", "float32", "--max-reject-rate", 0.1, *ONE_PROCESS)
    return cappy("score", "--input", folder / "*", "--model", model, "--output", output, *given, *flags)


def generate(folder: Path, output: Path, *flags: object) -> int:
    given = ("--decodings", "sampling", "--max-reject-rate", 0.1, *ONE_PROCESS)
    return cappy("generate", "--input", folder / "*", "--model", "mine", "--output", output, *given, *flags)


def by_input(output: Path) -> dict[tuple[str, str, str], bytes]:
    """Return the bytes of all units of a run by their folder, the name of their input, and their place in it."""
    names = [file["name"] for file in manifest_of(output)["inputs"]]
    found = {}
    for path, data in data_bytes(output).items():
        folder, _, unit = path.rpartition("/part-")
        number, _, place = unit.partition("-")
        found[folder, names[int(number)], place] = data
    return found


def counted(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest counts, whatever the order in which files came."""
    return {name: manifest[name] for name in ("totals", "rejects", "configuration", "model", "samples")}


def states(output: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.rglob("part-*.parquet")}


STEPS = [("cd", "ab", "ef"), ("f", "b", "acde"), ("abc", "def")]


@pytest.mark.parametrize("steps", STEPS, ids="-".join)
@pytest.mark.parametrize("name", ["score", "generate"])
def test_steps_give_what_one_run_gives(
    name: str, steps: tuple[str, ...], model: Path, engine: FakeEngine, tmp_path: Path
) -> None:
    def run(folder: str, output: str) -> int:
        inputs, into = tmp_path / folder, tmp_path / output
        return score(inputs, into, model) if name == "score" else generate(inputs, into)

    add(tmp_path / "all", *NAMES, broken=1)
    assert run("all", "whole") == 0
    before: dict[Path, tuple[int, int]] = {}
    for step in steps:
        add(tmp_path / "in", *step, broken=1)
        assert run("in", "grown") == 0
        assert {path: states(tmp_path / "grown")[path] for path in before} == before
        before = states(tmp_path / "grown")
        assert cappy("verify", tmp_path / "grown") == 0
    assert by_input(tmp_path / "grown") == by_input(tmp_path / "whole")
    grown, whole = manifest_of(tmp_path / "grown"), manifest_of(tmp_path / "whole")
    assert counted(grown) == counted(whole) and grown["rejects"]["rows"] == 3
    assert [entry["files"] for entry in grown["growth"]] == list(map(len, steps))
    assert [entry["rows"] for entry in whole["growth"]] == [6 * 30 + 3]
    assert all(one["begun"] <= other["begun"] for one, other in pairwise(grown["growth"]))
    assert [file["name"][0] for file in grown["inputs"]] == [letter for step in steps for letter in sorted(step)]
    pages = [(tmp_path / output / "report.html").read_text() for output in ("grown", "whole")]
    assert [">Added<" in page for page in pages] == [True, False]
    key = "instruction_id"
    assert sorted(row[key] for row in rows_of(tmp_path / "grown")) == sorted(
        row[key] for row in rows_of(tmp_path / "whole")
    )


def test_units_of_a_file_follow_from_the_file_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With units that are small, files have several; a growing run keeps the size that it was begun with."""

    def settle(config: Any, *_: Any, **__: Any) -> int:
        return earlier(config, "unit_bytes", "settings") or size

    monkeypatch.setattr(plan, "settle_unit_bytes", settle)
    size = 300
    add(tmp_path / "all", *NAMES)
    assert score(tmp_path / "all", tmp_path / "whole", model) == 0
    for size, step in ((300, "ef"), (10_000, "cb"), (20_000, "ad")):  # noqa: B007
        add(tmp_path / "in", *step)
        assert score(tmp_path / "in", tmp_path / "grown", model) == 0
    assert by_input(tmp_path / "grown") == by_input(tmp_path / "whole")
    assert len(by_input(tmp_path / "grown")) > 3 * len(NAMES)


def test_what_is_there_and_what_is_new_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "in", "b", "c")
    assert score(tmp_path / "in", tmp_path / "out", model) == 0
    add(tmp_path / "in", "a")
    capsys.readouterr()
    assert score(tmp_path / "in", tmp_path / "out", model, "--dry-run") == 0
    assert "2 files were there, 1 is new" in capsys.readouterr().out
    assert score(tmp_path / "in", tmp_path / "out", model) == 0
    assert "2 files were there, 1 is new" in said(capsys)
    assert score(tmp_path / "in", tmp_path / "out", model, "--dry-run") == 0
    assert "were there" not in capsys.readouterr().out
    assert score(tmp_path / "in", tmp_path / "out", model) == 0
    assert "already finished" in said(capsys)
    assert score(tmp_path / "in", tmp_path / "out", model, "--overwrite") == 0
    manifest = manifest_of(tmp_path / "out")
    assert [file["name"][0] for file in manifest["inputs"]] == ["a", "b", "c"]
    assert [entry["files"] for entry in manifest["growth"]] == [3]


def test_a_file_that_changed_or_went_is_refused_by_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "a", "b")
    assert score(folder, output, model) == 0
    add(folder, "c")
    before, b = data_bytes(output), (folder / "b.jsonl").read_bytes()
    (folder / "b.jsonl").write_bytes(b + b"\n")
    assert score(folder, output, model) == 1
    words = f"its input has changed: b.jsonl has another size ({len(b):,} -> {len(b) + 1:,} bytes). Put it back, give"
    assert words in (error := said(capsys)) and "c.parquet" not in error
    (folder / "b.jsonl").unlink()
    assert score(folder, output, model, "--dry-run") == score(folder, output, model) == 1
    assert "its input has changed: b.jsonl is missing. Put it back, give another folder, or --overwrite" in said(capsys)
    (folder / "b.jsonl").write_bytes(b)
    folder.rename(tmp_path / "may")
    folder.mkdir()
    (tmp_path / "may").rename(folder / "may")
    assert score(folder / "*", output, model) == 1
    assert "a.parquet is missing (may/a.parquet has the same content: names are relative to" in said(capsys)
    assert manifest_of(output)["inputs"] and data_bytes(output) == before
    assert score(folder / "may", output, model) == 0
    assert "2 files were there, 1 is new" in said(capsys)


def test_with_a_limit_nothing_grows(
    model: Path, engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / "in", "a")
    templates = pa.Table.from_pylist([{**row, "template_id": "t"} for row in rows("a")])
    (tmp_path / "templates").mkdir()
    pq.write_table(templates, tmp_path / "templates" / "a.parquet")
    assert score(tmp_path / "in", tmp_path / "scored", model, "--limit", 5) == 0
    assert generate(tmp_path / "templates", tmp_path / "made", "--per-template", 5) == 0
    add(tmp_path / "in", "b")
    pq.write_table(templates, tmp_path / "templates" / "b.parquet")
    said(capsys)
    assert score(tmp_path / "in", tmp_path / "scored", model, "--limit", 5) == 1
    assert "was started with --limit, so no files can be added (b.jsonl is new). Give another folder" in said(capsys)
    assert generate(tmp_path / "templates", tmp_path / "made", "--per-template", 5) == 1
    assert "was started with --per-template, so no files can be added (b.parquet is new)" in said(capsys)


def test_columns_of_later_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    tagged = [{**row, "tag": "x", "n": 1} for row in rows("b")]
    kinds = pa.schema([("instruction_id", pa.string()), ("instruction", pa.string()), ("response", pa.string())])
    kinds = kinds.append(pa.field("tag", pa.dictionary(pa.int8(), pa.string()))).append(pa.field("n", pa.int32()))
    pq.write_table(pa.Table.from_pylist(tagged, kinds), folder / "b.parquet")
    assert score(folder, output, model) == 0
    plain = [{**row, "n": 1} for row in rows("b")]
    for content, words in (
        ([{**row, "n": 2.5} for row in plain], "a.jsonl: column 'n' is double, which does not fit int32"),
        (tagged, "a.jsonl: column 'tag' is string, which does not fit dictionary<values=string, indices=int8"),
        ([{**row, "more": 1} for row in rows("b")], "a.jsonl: has a column 'more' that the first files of the"),
    ):
        (folder / "a.jsonl").write_bytes(json_lines(*content))
        said(capsys)
        assert score(folder, output, model) == 1
        assert words in said(capsys)
        assert manifest_of(output)["totals"]["rows"] == 30
    add(folder, "a")
    (folder / "a.jsonl").unlink()
    assert score(folder, output, model) == 0
    found = pq.read_table(output / "rows" / "part-00001-00000-00000.parquet")
    assert found.schema.field("tag").type == pa.dictionary(pa.int8(), pa.string())
    assert found["tag"].null_count == found["n"].null_count == 30 and found["score"].null_count == 0
    assert pq.read_schema(output / "rows" / "part-00000-00000-00000.parquet").equals(found.schema)


def test_generate_reads_no_column_that_its_first_files_lack(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(json_lines({"instruction": "one"}, {"instruction": "two"}))
    assert generate(folder, tmp_path / "out") == 0
    (folder / "b.jsonl").write_bytes(json_lines({"instruction": "three", "unused": 1}))
    assert generate(folder, tmp_path / "out") == 0
    (folder / "c.jsonl").write_bytes(json_lines({"instruction": "four", "instruction_id": "4"}))
    said(capsys)
    assert generate(folder, tmp_path / "out") == 1
    assert "c.jsonl: has a column 'instruction_id' that the first files of the run lack" in said(capsys)


def test_an_interrupted_growth_goes_on_and_grows(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a broken engine has left is kept; a second growth may begin before the first has ended."""
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "b")
    assert generate(folder, output, "--unit-rows", 10) == 0
    add(folder, "d", "c")
    broken = (folder / "d.jsonl").read_bytes()
    (folder / "d.jsonl").write_bytes(
        broken + json_lines({"instruction_id": "x", "instruction": BREAKS, "response": "r"})
    )
    assert generate(folder, output, "--unit-rows", 10) == 1
    assert not (output / "manifest.json").exists()
    standing = states(output)
    assert len(standing) > 3
    engine._drawn = lambda prompt, seed: FakeEngine._drawn(engine, prompt.replace(BREAKS, ""), seed)  # type: ignore[method-assign]
    add(folder, "a")
    said(capsys)
    assert generate(folder, output, "--unit-rows", 10) == 0
    assert "3 files were there, 1 is new" in said(capsys)
    assert {path: states(output)[path] for path in standing} == standing
    manifest = manifest_of(output)
    assert [file["name"][0] for file in manifest["inputs"]] == ["b", "c", "d", "a"]
    assert [(entry["files"], entry["rows"]) for entry in manifest["growth"]] == [(1, 30), (2, 61), (1, 30)]
    assert json.loads((output / "run.json").read_text())["growth"] == manifest["growth"]


def test_files_that_made_a_growth_fail_may_be_mended_or_withdrawn(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "c")
    assert score(folder, output, model) == 0
    standing = states(output)
    for name in "bd":
        (folder / f"{name}.jsonl").write_bytes(json_lines(*rows(name), *[b"{broken"] * 40))
    assert score(folder, output, model) == 1
    assert (output / "failure.json").exists() and not (output / "manifest.json").exists()
    (folder / "d.jsonl").unlink()
    add(folder, "b")
    assert score(folder, output, model) == 0
    assert {path: states(output)[path] for path in standing} == standing
    manifest = manifest_of(output)
    assert [entry["files"] for entry in manifest["growth"]] == [1, 1] and manifest["totals"]["rows"] == 60
    assert cappy("verify", output) == 0 and not (output / "failure.json").exists()
    (folder / "d.jsonl").write_bytes(json_lines(*rows("d"), *[b"{broken"] * 40))
    assert score(folder, output, model) == 1
    (folder / "d.jsonl").unlink()
    assert score(folder, output, model) == 0
    assert counted(manifest_of(output)) == counted(manifest)
    (folder / "b.jsonl").unlink()
    said(capsys)
    assert score(folder, output, model) == 1
    assert "its input has changed: b.jsonl is missing" in said(capsys)


def test_a_first_launch_that_failed_takes_the_mended_input(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "a", "b", "d")
    for name in "bd":
        (folder / f"{name}.jsonl").write_bytes(json_lines(*rows(name), *[b"{broken"] * 40))
    assert score(folder, output, model) == 1
    before = states(output)
    add(folder, "b")
    (folder / "d.jsonl").unlink()
    said(capsys)
    assert score(folder, output, model) == 0, said(capsys)
    (kept,) = (path for path in before if path.name.startswith("part-00000-"))
    assert states(output)[kept] == before[kept]
    manifest = manifest_of(output)
    assert manifest["totals"]["rows"] == 60 and [entry["files"] for entry in manifest["growth"]] == [2]
    assert cappy("verify", output) == 0
    assert score(folder, tmp_path / "fresh", model) == 0
    assert data_bytes(tmp_path / "fresh") == data_bytes(output)


@pytest.mark.parametrize("reason", ["grown", "lost"])
def test_a_damaged_file_is_not_certified(
    reason: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The growth fails at first, and goes on: what the manifest said of the file is not forgotten."""
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "a", "b", "c", broken=1)
    assert score(folder, output, model) == 0
    before = data_bytes(output)
    damaged = output / "rows" / "part-00000-00000-00000.parquet"
    content = bytearray(damaged.read_bytes())
    content[20] ^= 1
    damaged.write_bytes(content)
    if reason == "lost":
        (output / "rows" / "part-00002-00000-00000.parquet").unlink()
    else:
        (folder / "d.jsonl").write_bytes(json_lines(*rows("d"), *[b"{broken"] * 60))
        assert score(folder, output, model) == 1
        add(folder, "d")
    said(capsys)
    for _ in range(2):
        assert score(folder, output, model) == 1
        assert "rows/part-00000-00000-00000.parquet: damaged, as the bytes are not those that" in said(capsys)
        assert not (output / "manifest.json").exists()
    damaged.unlink()
    assert score(folder, output, model) == 0
    assert before.items() <= data_bytes(output).items()
    assert cappy("verify", output) == 0 and not (output / "manifest.earlier.json").exists()


def test_a_wrong_file_is_taken_back_after_an_interruption(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "a")
    assert score(folder, output, model) == 0
    before = data_bytes(output)
    add(folder, "b", "c")
    with monkeypatch.context() as patched:
        patched.setattr("beam_pipelines.runners.pipeline_job.execute", interrupt)
        assert score(folder, output, model) == 130
    assert not (output / "failure.json").exists() and not (output / "manifest.json").exists()
    (folder / "b.jsonl").unlink()
    said(capsys)
    assert score(folder, output, model) == 0, said(capsys)
    assert before.items() <= data_bytes(output).items()
    assert [file["name"] for file in manifest_of(output)["inputs"]] == ["a.parquet", "c.parquet"]


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_lost_files_are_made_again_while_it_grows(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "a", "b", broken=1)
    assert score(folder, output, model) == 0
    before = data_bytes(output)
    (output / "rows" / "part-00000-00000-00000.parquet").unlink()
    (output / "rejects" / "part-00001-00000-00000.parquet").unlink()
    add(folder, "c")
    said(capsys)
    assert score(folder, output, model) == 0
    assert "is missing" in (words := said(capsys)) and "2 files were there, 1 is new" in words
    after = data_bytes(output)
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 1
    assert cappy("verify", output) == 0


def test_selections_are_not_outgrown(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    add(folder, "a")
    command = ("rerank", "--input", folder / "*", "--model", model, "--output", output, "--device", "cpu", *ONE_PROCESS)
    assert cappy(*command) == 0
    add(folder, "b")
    before = data_bytes(output)
    said(capsys)
    assert cappy(*command) == 1
    words = "out: is made of 1 file, and b.jsonl is new; `cappy score` with --output"
    assert words in said(capsys) and data_bytes(output) == before
    for name in ("run.json", "manifest.json", "README.md", "report.html"):
        (output / name).unlink()
    shutil.rmtree(output / "selections")
    assert cappy(*command) == 0
    assert len(manifest_of(output / "scored")["growth"]) == 2
