"""`cappy generate`, by its command, over small data and an engine without a model: what it writes, and resumption."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs.generate import engines, job
from beam_pipelines.jobs.generate.engines import GeneratorSpec
from beam_pipelines.jobs.generate.unit_size import UnitSize
from cappy_model.generate.decodings import PAPER, Drawing
from schemas.ids import digest, seed_for
from schemas.records import CANDIDATE, REJECT
from tests.beam_pipelines.jobs.generate.fake_engine import BREAKS, FAILS, FakeEngine
from tests.conftest import build, cappy, data_bytes, edit_mixture, manifest_of, rows_of, sentence
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, TWO_THREADS, json_lines, parquet, said, settled

Rows = list[dict[str, Any]]
EACH = 17


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeEngine]]:
    """Replace engines by fake ones; return those opened, the last one last."""
    opened: list[FakeEngine] = []

    def settle(config: Any, drawing: Drawing, *, local: bool) -> tuple[GeneratorSpec, dict[str, Any], UnitSize]:
        spec = GeneratorSpec(config.model, "cpu", "float32", 1024, False, False, "{}", drawing)
        model = {"content": digest(config.model), "type": "fake", "tokens_per_batch": 1024, "max_prompt_tokens": None}
        return spec, model, UnitSize(bytes=800_000)

    def open_engine(spec: GeneratorSpec) -> FakeEngine:
        opened.append(FakeEngine(spec.drawing))
        return opened[-1]

    monkeypatch.setattr(job, "_settle", settle)
    monkeypatch.setattr(engines, "open_engine", open_engine)
    engines.load_engine.cache_clear()
    yield opened
    engines.load_engine.cache_clear()


def some_rows(count: int, start: int = 0) -> Rows:
    return [
        {
            "instruction_id": f"id-{i:04d}",
            "dataset": "d",
            "subset": None,
            "split": "train",
            "template_id": f"t-{i % 3}",
            "instruction": sentence(i, 4 + i % 9),
            "references": [sentence(i, 2)],
        }
        for i in range(start, start + count)
    ]


SCHEMA = pa.schema(
    {
        **dict.fromkeys(("instruction_id", "dataset", "subset", "split", "template_id", "instruction"), pa.string()),
        "references": pa.list_(pa.string()),
    }.items()
)


def table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def generate(content: bytes | Rows | Path, output: Path, *flags: object, name: str = "rows.parquet") -> int:
    """Run `cappy generate` over one file, written beside the output folder; return the exit status."""
    path = content if isinstance(content, Path) else output.parent / name
    if not isinstance(content, Path):
        path.write_bytes(content if isinstance(content, bytes) else parquet(table(content)))
    return cappy("generate", *settled("--input", path, "--model", "/models/mine", "--output", output, *flags))


def candidates_of(output: Path) -> Rows:
    """Return the candidates; every file has the schema of candidates."""
    files = sorted(output.glob("candidates/part-*.parquet"))
    assert all(pq.read_schema(path).remove_metadata().equals(CANDIDATE) for path in files)
    rows: Rows = ds.dataset(list(map(str, files)), format="parquet").to_table().to_pylist()
    return rows


def check_accounts(output: Path, rows: int) -> dict[str, Any]:
    """Recount the manifest from the files themselves; ids are distinct."""
    manifest, candidates, rejects = manifest_of(output), candidates_of(output), rows_of(output / "rejects")
    totals, decodings = manifest["totals"], manifest["decodings"]
    assert totals["rows"] == rows == totals["generated"] + totals["sampled_out"] + totals["rejected"]
    assert totals["rejected"] == manifest["rejects"]["rows"] == len(rejects)
    assert totals["generated"] == len({row["instruction_id"] for row in candidates})
    assert totals["candidates"] == len(candidates)
    assert totals["drawn"] == sum(row["count"] or 1 for row in candidates)
    assert totals["distinct"] == len({(row["instruction_id"], row["response"]) for row in candidates})
    assert totals["empty"] == sum(row["count"] or 1 for row in candidates if not row["response"])
    for decoding in decodings.values():
        assert decoding["candidates"] == sum(decoding["finish_reasons"].values())
        assert decoding["candidates"] == sum(decoding["lengths"].values())
        assert decoding["with_likelihood"] == sum(decoding["log_likelihoods"].values())
    assert manifest["tokens"]["real"] == sum(decoding["tokens"] for decoding in decodings.values())
    assert {file["path"] for file in manifest["files"]} == set(data_bytes(output))
    assert cappy("verify", output) == 0
    return manifest


def test_candidates_of_every_instruction_in_order(tmp_path: Path, engine: list[FakeEngine]) -> None:
    rows = some_rows(300)
    assert generate(rows, tmp_path / "out") == 0
    found = candidates_of(tmp_path / "out")
    assert [row["instruction_id"] for row in found[::EACH]] == [row["instruction_id"] for row in rows]
    assert Counter(row["decoding"] for row in found) == {name: 300 * (1 if name == "beam4" else 4) for name in PAPER}
    assert {row["generator"] for row in found} == {"mine"} and found[0]["references"] == rows[0]["references"]
    manifest = check_accounts(tmp_path / "out", 300)
    assert manifest["model"]["name"] == "/models/mine" and manifest["totals"]["generated"] == 300
    assert len(manifest["files"]) == 3 and len(engine) == 1
    wanted = FakeEngine(engine[0].drawing).draw(
        [row["instruction"] for row in rows], [seed_for(0, row["instruction_id"]) for row in rows]
    )
    assert [row["response"] for row in found] == [sample.response for one in wanted for sample in one.samples]
    assert "5,100 candidates for 300 instructions" in (tmp_path / "out" / "report.html").read_text()
    assert "`log_likelihood_mean`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("flags", [(), ("--distinct", "--fraction", 0.5)], ids=["all", "distinct sample"])
def test_same_bytes_with_one_thread_or_two(flags: tuple[object, ...], tmp_path: Path) -> None:
    for number in range(4):
        content = parquet(table(some_rows(70, start=70 * number)), row_group_size=30)
        (tmp_path / f"{number}.parquet").write_bytes(content)
    settled = [tmp_path / "*.parquet", "--unit-rows", 20, *flags]
    pattern, *rest = settled
    assert generate(pattern, tmp_path / "one", *rest, *ONE_PROCESS) == 0
    assert generate(pattern, tmp_path / "two", *rest, *TWO_THREADS) == 0
    assert data_bytes(tmp_path / "one") == data_bytes(tmp_path / "two")
    assert manifest_of(tmp_path / "one")["samples"] == manifest_of(tmp_path / "two")["samples"]
    assert generate(pattern, tmp_path / "other", *rest, "--seed", 1) == 0
    assert data_bytes(tmp_path / "one") != data_bytes(tmp_path / "other")


def test_any_rows_with_an_instruction_column(tmp_path: Path) -> None:
    rows = [{"prompt": sentence(i, 5), "id": i, "vector": [i]} for i in range(40)]
    flags = ["--instruction-column", "prompt", "--decodings", "beam4,sampling"]
    assert generate(json_lines(*rows), tmp_path / "jsonl", *flags, name="rows.jsonl") == 0
    assert generate(parquet(rows), tmp_path / "parquet", *flags) == 0
    found = candidates_of(tmp_path / "jsonl")
    assert found == candidates_of(tmp_path / "parquet") and len(found) == 40 * 5
    assert found[0]["instruction_id"] == digest(rows[0]["prompt"]) and found[0]["dataset"] is None
    check_accounts(tmp_path / "jsonl", 40)


def test_distinct_merges_equal_responses(tmp_path: Path) -> None:
    assert generate(some_rows(50), tmp_path / "plain") == 0
    assert generate(some_rows(50), tmp_path / "out", "--distinct") == 0
    plain, found = candidates_of(tmp_path / "plain"), candidates_of(tmp_path / "out")
    counts = Counter((row["instruction_id"], row["response"]) for row in plain)
    assert {(row["instruction_id"], row["response"]): row["count"] for row in found} == counts
    assert len(found) < len(plain) == 850
    manifest = check_accounts(tmp_path / "out", 50)
    assert manifest["decodings"] == manifest_of(tmp_path / "plain")["decodings"]


def test_rows_fail_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = some_rows(60)
    rows[3]["instruction"] = None
    rows[5]["instruction"] += f" {FAILS}"
    rows[9]["instruction_id"] = None
    assert generate(rows, tmp_path / "strict") == 1
    assert "of the rows were rejected, more than --max-reject-rate" in said(capsys)
    assert generate(rows, tmp_path / "out", *ALL_MAY_FAIL) == 0
    rejects = rows_of(tmp_path / "out" / "rejects")
    assert [(row["stage"], row["reason"], row["source"], row["position"]) for row in rejects] == [
        ("generate", "null_value", "rows.parquet", "#3"),
        ("generate", "prompt_too_long", "rows.parquet", "#5"),
        ("generate", "null_value", "rows.parquet", "#9"),
    ]
    assert rejects[1]["excerpt"] == rows[5]["instruction"]
    assert all(pq.read_schema(path).equals(REJECT) for path in (tmp_path / "out" / "rejects").iterdir())
    assert check_accounts(tmp_path / "out", 60)["totals"]["generated"] == 57


def test_samples_of_instructions(tmp_path: Path) -> None:
    rows = some_rows(300)
    assert generate(rows, tmp_path / "share", "--fraction", 0.1, "--seed", 3) == 0
    kept = {row["instruction_id"] for row in rows if seed_for(3, "fraction", row["instruction_id"]) < 0.1 * 2**64}
    assert {row["instruction_id"] for row in candidates_of(tmp_path / "share")} == kept
    manifest = check_accounts(tmp_path / "share", 300)
    assert manifest["totals"]["sampled_out"] == 300 - len(kept)
    assert manifest["configuration"]["unit_bytes"] == 800_000 and len(manifest["files"]) == 1
    assert generate(rows, tmp_path / "all", "--seed", 3) == 0
    assert len(check_accounts(tmp_path / "all", 300)["files"]) == 3, "units of 128 rows"
    assert generate(rows, tmp_path / "each", "--per-template", 7, "--seed", 3) == 0
    found = {row["instruction_id"] for row in candidates_of(tmp_path / "each")}
    for template in range(3):
        ids = [row["instruction_id"] for row in rows if row["template_id"] == f"t-{template}"]
        best = sorted(ids, key=lambda name: seed_for(3, "per_template", name))[:7]
        assert found & set(ids) == set(best)
    assert check_accounts(tmp_path / "each", 300)["totals"]["sampled_out"] == 300 - 21


def test_a_prompt_template(tmp_path: Path, engine: list[FakeEngine]) -> None:
    (tmp_path / "prompt.txt").write_text("Say {x}: {instruction}\nAnswer:\n")
    rows = some_rows(10)
    assert generate(rows, tmp_path / "out", "--prompt-template", tmp_path / "prompt.txt") == 0
    assert engine[0].prompts == [f"Say {{x}}: {row['instruction']}\nAnswer:" for row in rows]
    assert [row["instruction"] for row in candidates_of(tmp_path / "out")[::EACH]] == [r["instruction"] for r in rows]


def test_a_rerun_makes_only_what_is_missing(tmp_path: Path, engine: list[FakeEngine]) -> None:
    rows, flags = some_rows(200), ["--unit-rows", 20]
    rows[45]["instruction"] += FAILS
    assert generate(rows, tmp_path / "out", *flags) == 0
    before, manifest = data_bytes(tmp_path / "out"), manifest_of(tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("candidates/part-*.parquet"))
    assert len(parts) == 10 and len(engine[0].prompts) == 200
    for path in (parts[2], parts[7], tmp_path / "out" / "manifest.json"):
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    assert generate(rows, tmp_path / "out", *flags) == 0
    wanted = [row["instruction"] for row in (*rows[40:60], *rows[140:160])]
    assert sorted(engine[0].prompts[200:]) == sorted(wanted)
    assert data_bytes(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again = manifest_of(tmp_path / "out")
    for name in ("totals", "decodings", "rejects", "samples", "files", "fingerprint"):
        assert again[name] == manifest[name]
    assert 0 < again["tokens"]["this_launch"] < again["tokens"]["real"]
    assert generate(rows, tmp_path / "out", *flags) == 0
    assert len(engine[0].prompts) == 240


def test_a_broken_engine_stops_the_job_and_a_rerun_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Weary(FakeEngine):
        """Breaks on a prompt once."""

        def draw(self, prompts: Any, seeds: Any, *, on_progress: Any = None) -> Any:
            rested = {prompt: prompt.replace(BREAKS, "") if prompt in self.prompts else prompt for prompt in prompts}
            return super().draw([rested[prompt] for prompt in prompts], seeds)

    rows = some_rows(100)
    rows[70]["instruction"] += f" {BREAKS}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "open_engine", lambda spec: Weary(spec.drawing))
        assert generate(rows, tmp_path / "out", "--unit-rows", 10, *ONE_PROCESS) == 1
        assert said(capsys).strip().endswith("cappy generate: the engine is broken: call somebody")
        standing = set((tmp_path / "out").glob("candidates/part-*.parquet"))
        assert len(standing) == 7 and not (tmp_path / "out" / "manifest.json").exists()
        assert generate(rows, tmp_path / "out", "--unit-rows", 10, *ONE_PROCESS) == 0
    assert check_accounts(tmp_path / "out", 100)["totals"]["generated"] == 100


def test_another_run_is_refused_and_the_difference_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = some_rows(30)
    (tmp_path / "prompt.txt").write_text("Q: {instruction}")
    (tmp_path / "decodings.yaml").write_text("decodings: {sampling: {samples: 4, temperature: 0.7}}")
    out, named = tmp_path / "out", ["--decodings", "sampling"]
    assert generate(rows, out, *named) == 0
    said(capsys)
    for flags, difference in (
        (["--decodings-file", tmp_path / "decodings.yaml"], "decodings[sampling].temperature: 1.0 -> 0.7"),
        (["--decodings", "sampling,greedy"], "decodings[greedy]: missing -> present"),
        ([*named, "--max-new-tokens", 9], "settings.drawing.max_new_tokens: 64 -> 9"),
        ([*named, "--stop", "\n"], "settings.drawing.stop"),
        ([*named, "--chat"], "settings.drawing.chat: false -> true"),
        ([*named, "--prompt-template", tmp_path / "prompt.txt"], "the prompt template (--prompt-template) has changed"),
        ([*named, "--distinct"], "settings.distinct: false -> true"),
        ([*named, "--fraction", 0.5], "settings.fraction: null -> 0.5"),
        ([*named, "--per-template", 2], "settings.per_template: null -> 2"),
        ([*named, "--seed", 1], "settings.seed: 0 -> 1"),
        ([*named, "--unit-rows", 7], "settings.unit_rows: null -> 7"),
        ([*named, "--model", "/models/other"], 'settings.generator: "mine" -> "other"'),
    ):
        assert generate(rows, out, *flags) == 1
        assert "holds another run" in (words := said(capsys)) and difference in words, words
    assert generate(rows, out, *named, "--distinct", "--overwrite") == 0


def test_a_run_keeps_the_rows_of_its_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out = some_rows(30), tmp_path / "out"
    assert generate(rows, out, "--unit-rows", 7) == 0
    (out / "manifest.json").unlink()
    before = data_bytes(out)
    assert generate(rows, out) == 0
    assert data_bytes(out) == before
    said(capsys)
    assert generate(rows, out) == 0
    assert "already finished" in said(capsys)


def test_an_endpoint_is_known_by_its_name_and_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cappy_model.generate.endpoint.engine")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    flags = ["--engine", "openai", "--base-url", "http://localhost:1/v1"]
    assert generate(some_rows(64), tmp_path / "out", *flags, "--concurrency", 3, "--max-requests", 90) == 0
    assert generate(some_rows(64), tmp_path / "out", *flags, "--timeout", 5) == 0
    assert "already finished" in said(capsys)
    manifest = check_accounts(tmp_path / "out", 64)
    assert list(manifest["decodings"]) == ["sampling", "temp0.9", "topp0.95"] and len(manifest["files"]) == 2
    assert manifest["model"]["base_url"] == "http://localhost:1/v1"
    assert generate(some_rows(64), tmp_path / "out", *flags[:3], "http://localhost:2/v1") == 1
    assert "model.base_url" in said(capsys)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_file() and b"sk-hidden" in path.read_bytes()]


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--decodings", "beam"], 2, "unknown decoding 'beam': choose from beam4, sampling"),
        (["--decodings", "beam4,beam4"], 2, "'beam4' is named twice"),
        (["--decodings", "beam4,"], 2, "is not a list of names"),
        (["--base-url", "http://x"], 2, "--base-url and --engine transformers exclude each other"),
        (["--fraction", "0.5", "--per-template", "1"], 2, "--fraction and --per-template exclude each other"),
        (["--engine", "torch"], 2, "invalid choice: 'torch'"),
        (["--timeout", "0"], 2, "'0' is not a number of seconds"),
        (["--min-new-tokens", "-1"], 2, "'-1' is not a whole number"),
        (["--instruction-column", "prompt"], 1, "--instruction-column prompt: there is no such column"),
        (["--decoding", "beam4"], 2, "unknown flag --decoding; did you mean --decodings?"),
        (["--runner=PortableRunner"], 2, "--device and --dtype must be named for a remote runner"),
        (
            ["--engine=openai", "--base-url=http://x", "--max-requests=3", "--direct_running_mode=multi_processing"],
            2,
            "--max-requests counts within one process",
        ),
    ],
)
def test_flags_that_cannot_be(
    flags: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(some_rows(3), tmp_path / "out", *flags) == status
    assert message in said(capsys)
    assert not (tmp_path / "out").exists()


def test_per_template_needs_ids_and_templates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = parquet([{"instruction": "x", "dataset": "d"}])
    assert generate(content, tmp_path / "out", "--per-template", 3) == 2
    words = said(capsys)
    assert "needs the columns 'instruction_id' and 'template_id'; there are instruction, dataset" in words


def test_dry_run_says_what_would_be_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: list[FakeEngine]
) -> None:
    assert generate(some_rows(300), tmp_path / "out", "--per-template", 10, "--dry-run") == 0
    words = capsys.readouterr().out
    assert "1 file, 300 rows, about 30 of them to generate for, in about 1 unit of at most 1,024 rows" in words
    assert "about 510 candidates of 3 to 64 tokens, 17 for each instruction (beam4 1, sampling 4," in words
    assert "measured by generating for 4 rows here" in words and len(engine[0].prompts) == 4
    assert not (tmp_path / "out").exists()


def test_three_commands_fill_the_middle_of_the_labels(corpus: Path, tmp_path: Path) -> None:
    edit_mixture(corpus, lambda m: m.update(decodings={"mine": {"samples": 3, "top_k": 5}}))
    assert build(corpus, tmp_path / "instructions", "--instructions-only") == 0
    pattern = tmp_path / "instructions" / "instructions" / "*.parquet"
    given = ["--decodings-file", corpus, "--decodings", "mine,beam4", "--per-template", 40]
    assert generate(pattern, tmp_path / "candidates", *given, *ONE_PROCESS) == 0
    check_accounts(tmp_path / "candidates", 640)
    made = candidates_of(tmp_path / "candidates")
    assert len(made) == 6 * 40 * 4 and {row["dataset"] for row in made} == {"things", "quiz", "notes"}
    assert build(corpus, tmp_path / "corpus", "--candidates", tmp_path / "candidates" / "candidates" / "*.parquet") == 0
    manifest = manifest_of(tmp_path / "corpus")
    assert manifest["totals"]["candidates"] == len(made) and manifest["rejects"]["rows"] == 0
    assert sum(manifest["labels"]["generated"][1:-1]) > 50
    assert manifest["generators"].keys() == {"mine"}


INTEGERS = pa.table({"instruction": [1, 2], "instruction_id": [7, 8], "dataset": [True, None], "references": [5, None]})
CELLS = b'instruction,instruction_id,dataset,references\n3.50,007,true,1e3\n"a, b",8,,\n'
LINES = json_lines(
    {"instruction": "a", "dataset": 12, "references": ["x", 1]},
    {"instruction": True, "references": None},
    {"instruction": None, "references": ["y"]},
)


@pytest.mark.parametrize(
    ("content", "name", "copied", "rejects"),
    [
        (parquet(INTEGERS), "rows.parquet", [("7", "true", "1", ["5"]), ("8", None, "2", None)], 0),
        (CELLS, "rows.csv", [("007", "true", "3.50", ["1e3"]), ("8", "", "a, b", None)], 0),
        (LINES, "rows.jsonl", [(digest("a"), "12", "a", ["x", "1"]), (digest("true"), None, "true", None)], 1),
    ],
)
def test_columns_of_other_types_are_text_as_their_file_has_it(
    tmp_path: Path, content: bytes, name: str, copied: list[tuple[Any, ...]], rejects: int
) -> None:
    assert generate(content, tmp_path / "out", *ALL_MAY_FAIL, name=name) == 0
    rows = candidates_of(tmp_path / "out")[::EACH]
    names = ("instruction_id", "dataset", "instruction", "references")
    assert [tuple(row[each] for each in names) for row in rows] == copied
    assert manifest_of(tmp_path / "out")["rejects"]["rows"] == rejects


@pytest.mark.parametrize(
    ("kind", "flags", "status"),
    [(pa.float64(), [], 1), (pa.float64(), ["--text-columns", "references"], 0), (pa.list_(pa.float64()), [], 1)],
)
def test_references_that_are_no_text(
    tmp_path: Path, kind: pa.DataType, flags: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [[1.5]] if pa.types.is_list(kind) else [1.5]
    content = parquet(pa.table({"instruction": ["a b c"], "references": pa.array(values, kind)}))
    assert generate(content, tmp_path / "out", *flags) == status
    assert ("column 'references' is " in said(capsys)) == bool(status)
