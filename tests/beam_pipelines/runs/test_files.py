"""Files of a finished run that are missing or have another size: found by listing, and made again."""

import json
from pathlib import Path

import fsspec
import pytest

from beam_pipelines.runs.files import describe_lost, discard_lost, lost_files, verify
from beam_pipelines.runs.folder import is_finished, open_run
from schemas.errors import CappyError
from schemas.ids import digest_of
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import cappy, data_bytes, manifest_of
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, json_lines, parquet, said

UNITS = [f"rows/part-00000-00000-{number:05d}.parquet" for number in range(5)]
REJECTS = UNITS[1].replace("rows/", "rejects/")
RUN = {"job": "j", "facts": {"seed": 1}}
DATA = parquet([{"a": 1}])


def finished(folder: str) -> None:
    """Write a finished run of five units, one of which has rejects."""
    open_run(folder, RUN, overwrite=False, storage={})
    names = [*UNITS, REJECTS]
    for name in names:
        with fsspec.open(f"{folder}/{name}", "wb", auto_mkdir=True) as file:
            file.write(DATA)
    entries = [{"path": name, "rows": 1, "bytes": len(DATA), "digest": digest_of(DATA)} for name in names]
    with fsspec.open(f"{folder}/manifest.json", "wb") as file:
        file.write(json.dumps({"files": entries}).encode())


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_lost_files_are_found_without_reading_them(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"{protocol}{tmp_path}/out"
    finished(folder)
    assert lost_files(folder, {}) == {} and verify(folder, {}) == []
    fs, path = fsspec.url_to_fs(folder)
    fs.rm_file(f"{path}/{UNITS[0]}")
    fs.pipe_file(f"{path}/{UNITS[3]}", b"half")
    fs.pipe_file(f"{path}/mine.parquet", b"not listed")
    fs.rm(f"{path}/rejects", recursive=True)
    with monkeypatch.context() as patched:
        patched.delattr("beam_pipelines.runs.files.read_bytes")
        lost = lost_files(folder, {})
    assert list(lost) == [UNITS[0], UNITS[3], REJECTS]
    assert lost[UNITS[3]] == f"has 4 bytes, and the manifest says {len(DATA)}"
    assert {UNITS[0], REJECTS} <= {fault.split(":")[0] for fault in verify(folder, {})}
    assert is_finished(folder, RUN, {})
    discard_lost(folder, lost, {})
    assert not is_finished(folder, RUN, {})
    left = {name.removeprefix(path).lstrip("/") for name in fs.find(path)}
    assert left == {"run.json", "mine.parquet", UNITS[2], UNITS[4]}  # unit 1 goes with its rejects


def test_a_folder_in_place_of_a_file_is_lost(tmp_path: Path) -> None:
    finished(f"{tmp_path}/out")
    (tmp_path / "out" / UNITS[0]).unlink()
    (tmp_path / "out" / UNITS[0]).mkdir()
    assert lost_files(f"{tmp_path}/out", {}) == {UNITS[0]: "is missing"}


def test_only_data_files_below_the_folder_are_deleted(tmp_path: Path) -> None:
    finished(f"{tmp_path}/out")
    (tmp_path / "thesis.txt").write_text("mine")
    discard_lost(f"{tmp_path}/out", {"../thesis.txt": "has 4 bytes"}, {})
    assert (tmp_path / "thesis.txt").exists()


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    finished(f"{tmp_path}/out")
    (tmp_path / "out" / "manifest.json").write_text('{"files": [{"path": "a"}]}')
    with pytest.raises(CappyError, match=r"manifest\.json: is damaged"):
        lost_files(f"{tmp_path}/out", {})


def test_the_first_lost_files_are_named() -> None:
    assert describe_lost({"a": "is missing"}) == "a is missing"
    assert describe_lost(dict.fromkeys("abcde", "is missing")) == (
        "a is missing, b is missing, c is missing and 2 more"
    )


def test_a_shuffle_job_runs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"i{i}", "response": "r", "score": None if i == 3 else 0.5} for i in range(9)]
    (tmp_path / "in.jsonl").write_bytes(json_lines(*rows))
    output = tmp_path / "out"
    command = ["rerank", "--input", tmp_path / "in.jsonl", "--output", output, *ONE_PROCESS, *ALL_MAY_FAIL]
    assert cappy(*command) == 0
    before, manifest = data_bytes(output), manifest_of(output)
    capsys.readouterr()
    assert cappy(*command) == 0
    assert "already finished" in said(capsys)
    shard = output / manifest["files"][-1]["path"]
    for damage in (shard.unlink, lambda: shard.write_bytes(shard.read_bytes()[:-1])):
        damage()
        assert cappy("report", output) == 0
        assert f"{shard.name} " in said(capsys)
        assert cappy("verify", output) == 1
        assert f"{shard.name}: " in capsys.readouterr().out
        assert cappy(*command) == 0
        told = said(capsys)
        assert f"was finished, but {shard.relative_to(output)} " in told and "already finished" not in told
        assert data_bytes(output) == before and cappy("verify", output) == 0


def test_a_map_job_makes_the_lost_units_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"i{i}", "response": "r"} for i in range(3)]
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_bytes(json_lines(*rows, b"{broken", b""))
    model, output = save_tiny_scorer(tmp_path / "scorer"), tmp_path / "out"
    command = ["score", "--input", tmp_path / "*.jsonl", "--model", model, "--output", output, *ALL_MAY_FAIL]
    command += ["--device", "cpu", "--dtype", "float32", *ONE_PROCESS]
    assert cappy(*command) == 0
    before, units = data_bytes(output), sorted(output.glob("rows/part-*"))
    written = units[2].stat().st_mtime_ns
    (output / "rejects" / units[0].name).unlink()
    units[1].write_bytes(units[1].read_bytes() + b"more")
    capsys.readouterr()
    assert cappy(*command) == 0
    told = said(capsys)
    assert f"was finished, but rejects/{units[0].name} is missing, rows/{units[1].name} has" in told
    assert data_bytes(output) == before and units[2].stat().st_mtime_ns == written
    assert cappy("verify", output) == 0
