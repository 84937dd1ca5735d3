"""Errors found before a row is read, or in a run as a whole: flags, mixtures, candidates, folders, reject rates."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import build, cappy, edit_mixture, manifest_of, rows_of
from tests.end_to_end.inputs import PLAIN, check_accounts, good, json_lines, mixture_of, parquet, said


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return mixture_of(tmp_path, {"d": ({"a.jsonl": json_lines(*good(12))}, PLAIN)})


# ------------------------------------------------------------------------------------------------- flags and mixtures

FLAGS: list[tuple[list[str], str]] = [
    (["--shard", "2"], "did you mean --shards?"),
    (["--instruction-only"], "did you mean --instructions-only?"),
    (["--max-rejected-rate=1"], "did you mean --max-reject-rate?"),
    (["--runer=FlinkRunner"], "did you mean --runner?"),
    (["--runner=NoSuchRunner"], "NoSuchRunner"),
    (["--shards", "0"], "'0' is not a whole number, 1 or more"),
    (["--limit", "many"], "'many' is not a whole number, 1 or more"),
    (["--max-reject-rate", "2"], "'2' is not a share between 0 and 1"),
    (["--max-reject-rate", "nan"], "'nan' is not a share between 0 and 1"),
    (["--storage-options", "{"], "is not JSON"),
    (["--storage-options", "[]"], "must be a JSON object"),
    (["--instructions-only", "--candidates", "x.parquet"], "exclude each other"),
    (["--instructions-only", "--shards", "3"], "--shards"),
    (["--limit", "9" * 20], "is too large"),
    (["--workers", "2"], "unknown flag --workers; did you mean --direct_num_workers?"),
    (["--num_workers=2"], "--direct_num_workers sets its workers"),
    (["--direct_num_workers=x"], "--direct_num_workers"),
    (["--direct_num_workers=-1"], "--direct_num_workers"),
    (["stray"], "'stray'"),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[" ".join(flags) for flags, _ in FLAGS])
def test_wrong_flags(
    flags: list[str], message: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cappy("build-corpus", "--mixture", small, "--output", tmp_path / "out", *flags) == 2
    error = said(capsys)
    assert message in error and len(error.splitlines()) < 12
    assert not (tmp_path / "out").exists()


Change = Callable[[dict[str, Any]], object]
MIXTURES: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (lambda m: m.update(tempaltes="x"), ["unknown key 'tempaltes'; did you mean 'templates'?"]),
    "unknown dataset key": (
        lambda m: m["datasets"][0].update(path="x"),
        ["dataset 1 (d): unknown key 'path'; did you mean 'paths'?"],
    ),
    "type": (lambda m: m["datasets"][0].update(max_examples="many"), ["dataset 1 (d): 'max_examples'", "integer"]),
    "out of range": (lambda m: m.update(negatives={"overlap_limit": 2}), ["negatives: 'overlap_limit'"]),
    "too short": (lambda m: m.update(truncate=1), ["'truncate'", "3"]),
    "no paths": (lambda m: m["datasets"][0].update(paths=[]), ["paths"]),
    "no datasets": (lambda m: m.update(datasets=[]), ["'datasets'"]),
    "twice": (lambda m: m["datasets"].append(m["datasets"][0]), ["duplicate entry d"]),
    "no match": (lambda m: m["datasets"][0].update(paths="data/*.parquet"), ["data/*.parquet", "no file matches"]),
    "folder": (lambda m: m["datasets"][0].update(paths="data/d"), ["is a folder", "data/d/*.jsonl"]),
    "protocol": (lambda m: m["datasets"][0].update(paths="foo://a/*.csv"), ["foo://a/*.csv", "`cappy doctor`"]),
    "template": (lambda m: m["datasets"][0].update(templates=["other"]), ["no template 'other'", "'plain'"]),
    "no template": (lambda m: m["datasets"][0].update(templates=[]), ["selects none"]),
    "no templates of it": (lambda m: m["datasets"][0].update(name="dd"), ["no templates for 'dd'", "near: d"]),
    "no templates at all": (lambda m: m.update(templates="nowhere"), ["nowhere"]),
}


@pytest.mark.parametrize("case", MIXTURES)
def test_wrong_mixtures(case: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, messages = MIXTURES[case]
    assert build(edit_mixture(small, change), tmp_path / "out") in (1, 2)
    error = said(capsys)
    assert all(message in error for message in messages), error
    assert not (tmp_path / "out").exists()


NO_MIXTURES = {
    "empty": b"",
    "list": b"- 1\n",
    "broken": b"a: [b",
    "binary": b"\xff\xfe\x00\x01",
    "code": b'!!python/object/apply:os.system ["exit 1"]',
    "deep": b"[" * 5_000,
    "laughs": b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 123)),
}


@pytest.mark.parametrize("case", NO_MIXTURES)
def test_file_that_is_no_mixture(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mixture.yaml").write_bytes(NO_MIXTURES[case])
    assert build(tmp_path / "mixture.yaml", tmp_path / "out") == 2
    error = said(capsys)
    assert "mixture.yaml" in error and len(error) < 5_000


def test_mixture_that_is_missing_or_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        assert build(path, tmp_path / "out") == 2
        assert str(path) in said(capsys)


# -------------------------------------------------------------------------------------------------------- candidates


def test_bad_candidates(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(small, tmp_path / "only", "--instructions-only") == 0
    rows = [
        {"instruction_id": row["instruction_id"], "instruction": row["instruction"], "response": f"reply {i}",
         "generator": "lm", "decoding": "beam4", "sample_index": i}
        for i, row in enumerate(rows_of(tmp_path / "only" / "instructions"))
    ]  # fmt: skip
    table, path = pa.Table.from_pylist(rows), tmp_path / "candidates.parquet"
    for wrong, message in (
        (
            table.drop_columns(["generator", "sample_index"]),
            "has no column 'generator' (string), 'sample_index' (int32); there are instruction_id, "
            "instruction, response, decoding",
        ),
        (table.set_column(2, "response", pa.array([0.5] * 12)), "'response' is double and must be string"),
        (table.set_column(5, "sample_index", table["response"]), "'sample_index' is string and must be int32"),
    ):
        pq.write_table(wrong, path)
        assert build(small, tmp_path / "out", "--candidates", path) == 1
        assert message in said(capsys)
    for index, name in enumerate(table.column_names):
        rows[index] = {**rows[index], name: None}
    rows[6]["sample_index"] = 2**40
    rows[7]["response"] = "z" * 20_000_000
    rows[8]["instruction_id"] = "0" * 32
    rows[9]["response"] = "\ufdd0 ||| {{ 7 * 7 }}"
    path.write_bytes(parquet(rows))
    (tmp_path / "candidates.jsonl").write_bytes(json_lines(rows[10], b'{"response": ', b"\xff", rows[11]))
    flags = ["--candidates", tmp_path / "candidates.*", "--max-reject-rate", 1]
    assert build(small, tmp_path / "out", *flags) == 0
    said(capsys)
    manifest = check_accounts(tmp_path / "out")
    assert manifest["totals"]["candidates"] == 12 + 4
    # A response is data and never a template: row 9 is used as it is.
    assert manifest["pairs"]["generated"]["made"] == 3 + 2
    reasons = manifest["rejects"]["by_reason"]
    assert reasons["label"] == {"unknown_instruction": 1} and sum(reasons["read"].values()) == 8 + 2
    assert reasons["read"]["null_value"] == 6


# ------------------------------------------------------------------------------------------------------- reject rate


def test_reject_rate_exceeded_and_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json_lines(*good(9), b"{", {"text": None, "answer": "a"}, {"text": "q", "answer": ""})
    mixture, output = mixture_of(tmp_path, {"d": ({"a.jsonl": content}, PLAIN)}), tmp_path / "out"
    assert build(mixture, output, "--max-reject-rate", 0.1) == 1
    error = said(capsys)
    assert all(
        word in error for word in ("25.00%", "--max-reject-rate 10.00%", "1 broken_json", str(output / "rejects"))
    )
    failure = json.loads((output / "failure.json").read_text())
    assert failure["reason"] in error and failure["rejects"]["rows"] == 3
    assert not (output / "manifest.json").exists() and len(rows_of(output / "rejects")) == 3
    for command in ("verify", "report"):
        assert cappy(command, output) == 1
        assert "the run failed: 25.00%" in said(capsys)
    assert build(mixture, output, "--max-reject-rate", 0.25) == 0
    assert not (output / "failure.json").exists()
    check_accounts(output)


# ----------------------------------------------------------------------------------------------------------- folders


def test_foreign_folder_is_left_alone(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = {
        "notes": {"notes.txt": b"mine"},
        "run of another program": {"run.json": b'{"name": "theirs"}', "README.md": b"theirs", "index.js": b"theirs"},
        "damaged run": {"run.json": b'{"facts": {"jo', "README.md": b"whose?"},
        "no object": {"run.json": b"[]"},
        "no text": {"run.json": b"\xff\xfe"},
    }
    for name, files in foreign.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        for flags in ([], ["--overwrite"]):
            assert build(small, folder, *flags) == 1, (name, flags)
            assert str(folder) in said(capsys)
        for command in ("verify", "report"):
            assert cappy(command, folder) == 1
            assert str(folder) in said(capsys)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_overwrite_deletes_only_our_files(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert build(small, output) == 0
    foreign = ["notes.txt", "pairs/mine.parquet", "part-of-mine.parquet", "sub/README.md", "sub/pairs/shard-1.parquet"]
    for name in foreign:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")
    assert build(small, output, "--overwrite", "--seed", 1) == 0
    assert all((output / name).read_text() == "mine" for name in foreign)
    assert manifest_of(output)["configuration"]["seed"] == 1


def test_output_that_cannot_be_a_folder(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    places = {"file": "is a file", "file/below": "file", "x" * 300: "xxx", "dangling": "dangling"}
    for place, message in places.items():
        for flags in ([], ["--overwrite"]):
            assert build(small, tmp_path / place, *flags) == 1
            assert message in said(capsys)
    for command in ("verify", "report"):
        for path in (tmp_path / "file", tmp_path / "nowhere"):
            assert cappy(command, path) == 1
            assert str(path) in said(capsys)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "content", [b'{"job', b"[]", b"{}", b"\xff", b'{"job": "build-corpus", "files": [{"path": "x"}]}']
)
def test_damaged_manifest_is_named(
    content: bytes, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert build(small, output) == 0
    (output / "manifest.json").write_bytes(content)
    said(capsys)
    for command in (["verify", output], ["report", output], ["build-corpus", "--mixture", small, "--output", output]):
        assert cappy(*command) == 1
        assert "manifest" in said(capsys)


def test_verify_reports_damaged_and_missing_files(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(small, tmp_path / "out") == 0
    victim = next((tmp_path / "out" / "pairs").glob("*.parquet"))
    for damage, message in (
        (lambda: victim.write_bytes(b""), "digest"),
        (victim.unlink, "missing"),
        (victim.mkdir, ""),
    ):
        damage()
        assert cappy("verify", tmp_path / "out") == 1
        out = capsys.readouterr()
        assert f"pairs/{victim.name}" in out.out and message in out.out and "--debug" not in out.err


def test_odd_names_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, output = "名 前 'q' {a}", tmp_path / "åß 漢字 😀 [out]"
    files = {f"{'n' * 240}.jsonl": json_lines(*good(3)), "it's #1 @2 %41 😀.jsonl": json_lines(*good(3, 3))}
    mixture = mixture_of(tmp_path, {name: (files, PLAIN)})
    (tmp_path / "data" / name / "linked.jsonl").symlink_to(tmp_path / "data" / name / next(iter(files)))
    (tmp_path / "data" / name / "folder.jsonl").mkdir()
    (tmp_path / "real").mkdir()
    output.symlink_to(tmp_path / "real")
    assert build(mixture, output) == 0
    assert check_accounts(output)["totals"]["instructions"] == 9
    assert len({row["example_id"].rsplit("@", 1)[0] for row in rows_of(output / "instructions")}) == 3
    assert cappy("verify", output) == cappy("report", output) == build(mixture, output) == 0
    said(capsys)
