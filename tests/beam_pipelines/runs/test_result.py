import json
from pathlib import Path
from weakref import WeakSet

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.runs.result import RunResult, open_result
from schemas.errors import CappyError
from schemas.ids import digest_of
from tests.beam_pipelines.runs.runs_on_disk import finished_run

KINDS = pa.schema(
    [
        pa.field("instruction", pa.large_string()),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
        pa.field("id", pa.uuid()),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("at", pa.timestamp("ns", "Europe/Paris")),
    ]
)


def part(*numbers: int) -> pa.Table:
    rows = [
        {"instruction": f"i{n}", "kind": "ab"[n % 2], "id": bytes([n] * 16), "score": n / 3, "at": n} for n in numbers
    ]
    return pa.Table.from_pylist(rows, KINDS)


def test_the_table_has_the_types_and_the_order_of_the_files(tmp_path: Path) -> None:
    result = open_result(str(finished_run(tmp_path / "run", [part(3, 1), part(), part(2)])))
    table = result.table()
    assert table.schema.equals(KINDS)
    assert table["instruction"].to_pylist() == ["i3", "i1", "i2"]
    assert result.folder == str(tmp_path / "run") and result.manifest["job"] == "score"
    assert repr(result) == f"<score in {tmp_path / 'run'}: 3 rows>"


def test_the_reader_holds_one_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: WeakSet[pq.ParquetFile] = WeakSet()
    open_file, held = RunResult._open, []

    def open_and_count(self: RunResult, entry: dict[str, object]) -> pq.ParquetFile:
        held.append(len(opened))
        file = open_file(self, entry)
        opened.add(file)
        return file

    monkeypatch.setattr(RunResult, "_open", open_and_count)
    reader = open_result(str(finished_run(tmp_path, [part(1), part(2), part(3)]))).reader()
    assert [batch["instruction"][0].as_py() for batch in reader] == ["i1", "i2", "i3"]
    assert held == [0, 0, 0] and not opened


@pytest.mark.parametrize(("job", "below"), [("score", ""), ("adapt pairs", ""), ("build-corpus", "instructions")])
def test_the_table_of_older_folders_and_of_other_jobs(tmp_path: Path, job: str, below: str) -> None:
    folder = finished_run(tmp_path, [part(1)], job=job, below=below)
    assert open_result(str(folder)).table().num_rows == 1


def test_the_folder_of_a_table_names_that_of_its_run(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", [part(1)])
    with pytest.raises(CappyError, match=f"rows: holds no manifest.json; give the folder of the whole run, {folder}$"):
        open_result(f"{folder}/rows/")
    with pytest.raises(CappyError, match="holds no manifest.json; give the output folder of a job$"):
        open_result(str(tmp_path))


@pytest.mark.parametrize(
    ("job", "message"), [("train", "train makes a model and no table"), ("score", "the run has no file with rows")]
)
def test_a_run_without_a_table_says_so(tmp_path: Path, job: str, message: str) -> None:
    result = open_result(str(finished_run(tmp_path, [], job=job)))
    with pytest.raises(CappyError, match=message):
        result.table()


def test_a_lost_or_damaged_file_is_named(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, [part(1), part(2), part(3)])
    file = folder / "rows" / "part-00001-00000-00000.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(CappyError, match=f"{file}: is damaged: .* delete it"):
        open_result(str(folder)).table()
    manifest = json.loads((folder / "manifest.json").read_text())
    for damaged in (b"PAR1 no Parquet PAR1", content[:20] + bytes(60) + content[80:]):
        file.write_bytes(damaged)
        for entry in manifest["files"]:
            entry["digest"] = digest_of((folder / entry["path"]).read_bytes())
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CappyError, match=f"{file}: is damaged: .*; delete it, and run"):
            open_result(str(folder)).table()
    file.unlink()
    with pytest.raises(CappyError, match=f"{file}: is missing; run the job's command again"):
        open_result(str(folder)).table()


def test_an_unfinished_run_has_no_result(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, [part(1)])
    (folder / "manifest.json").unlink()
    with pytest.raises(CappyError, match="holds an unfinished run; run its command again"):
        open_result(str(folder))
