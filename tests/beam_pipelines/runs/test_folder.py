import json
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.runs.folder import close_run, is_finished, load_manifest, open_run
from beam_pipelines.runs.lock import hold
from schemas.errors import CappyError, UsageError


def claim(folder: str, *, overwrite: bool = False, job: str = "j", **facts: Any) -> list[str]:
    return open_run(folder, {"job": job, "facts": facts}, overwrite=overwrite, storage={})


def finished(folder: str, **facts: Any) -> bool:
    return is_finished(folder, {"job": "j", "facts": facts}, {})


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_folder_is_new_continued_and_finished(tmp_path: Path, protocol: str) -> None:
    import fsspec

    folder = f"{protocol}{tmp_path}/out"
    for _ in range(2):
        assert not finished(folder, seed=1)
        claim(folder, seed=1)
    with fsspec.open(f"{folder}/part-00000-00000-00000.parquet", "wb") as file:
        file.write(b"x")
    for attempt in (claim, finished):
        with pytest.raises(CappyError, match=r"holds another run: seed: 1 -> 2\. Give another folder, or --overwrite"):
            attempt(folder, seed=2)
    with fsspec.open(f"{folder}/manifest.json", "wb") as file:
        file.write(b'{"files": []}')
    assert finished(folder, seed=1)
    claim(folder, overwrite=True, seed=2)
    assert not finished(folder, seed=2)
    with pytest.raises(CappyError, match="holds an unfinished run"):
        load_manifest(folder, {})


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_of_another_job_is_not_replaced(tmp_path: Path, overwrite: bool) -> None:
    claim(str(tmp_path), seed=1)
    (shard,) = make(tmp_path, SHARD)
    with pytest.raises(CappyError, match="holds a run of j, which other does not replace; give another folder"):
        claim(str(tmp_path), job="other", overwrite=overwrite, seed=1)
    assert shard.exists()


def test_a_difference_that_follows_from_another_is_not_told(tmp_path: Path) -> None:
    before: dict[str, Any] = {"settings": {"instructions_only": True, "shards": None}}
    claim(str(tmp_path), **before)
    make(tmp_path, SHARD)
    with pytest.raises(CappyError, match=r"another run: settings\.instructions_only: true -> false\. Give"):
        claim(str(tmp_path), settings={"instructions_only": False, "shards": 1})
    with pytest.raises(CappyError, match=r"another run: settings\.shards: null -> 1\. Give"):
        claim(str(tmp_path), settings={"instructions_only": True, "shards": 1})


def test_the_next_run_forgets_the_failure_of_the_last(tmp_path: Path) -> None:
    claim(str(tmp_path), seed=1)
    (tmp_path / "failure.json").write_text(json.dumps({"reason": "too many"}))
    with pytest.raises(CappyError, match="the run failed: too many"):
        load_manifest(str(tmp_path), {})
    claim(str(tmp_path), seed=1)
    assert not (tmp_path / "failure.json").exists()


def make(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


SHARD = "pairs/shard-00000-of-00001.parquet"


def test_closing_deletes_what_earlier_runs_have_left(tmp_path: Path) -> None:
    claim(str(tmp_path), seed=1)
    gone = make(tmp_path, "pairs/.shard-00000-of-00001.parquet.0a1b.tmp", ".manifest.json.0a.tmp")
    gone += make(tmp_path, "pairs/shard-00001-of-00002.parquet", "part-00000-00000-00000.parquet")
    leftovers = claim(str(tmp_path), seed=1)
    mine = make(tmp_path, ".mine.tmp", "pairs/mine.parquet", "notes.txt")
    at_work = make(tmp_path, "pairs/.shard-00000-of-00001.parquet.ffff.tmp")
    within = make(tmp_path, "scored/run.json", "scored/part-00000-00000-00000.parquet")
    listed = make(tmp_path, SHARD)
    close_run(str(tmp_path), {"files": [{"path": SHARD}]}, leftovers, {})
    assert all(path.exists() for path in [*mine, *at_work, *within, *listed, tmp_path / "run.json"])
    assert not any(path.exists() for path in gone)


def test_a_leftover_that_got_its_name_meanwhile_is_no_error(tmp_path: Path) -> None:
    (leftover,) = make(tmp_path, "pairs/.shard-00000-of-00001.parquet.0a1b.tmp")
    leftovers = claim(str(tmp_path), seed=1)
    leftover.rename(tmp_path / SHARD)
    close_run(str(tmp_path), {"files": [{"path": SHARD}]}, leftovers, {})
    assert (tmp_path / SHARD).exists()


def test_a_folder_that_a_killed_launcher_left_is_ours(tmp_path: Path) -> None:
    make(tmp_path, ".run.json.0a1b.tmp")
    assert claim(str(tmp_path), seed=1) == [".run.json.0a1b.tmp"]
    assert (tmp_path / "run.json").exists()


def test_a_second_job_is_kept_off_a_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    with hold(folder, {}):
        with pytest.raises(CappyError, match="another job is running in it"), hold(folder, {}):
            pass
        claim(folder, seed=1)
    with hold(folder, {}):
        claim(folder, seed=1)


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CappyError, match="not a job's folder"), hold(str(tmp_path), {}):
        claim(str(tmp_path), seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwriting_leaves_a_run_within(tmp_path: Path) -> None:
    claim(str(tmp_path), seed=1)
    claim(str(tmp_path / "scored"), seed=1)
    (tmp_path / "scored" / "part-00000-00000-00000.parquet").write_bytes(b"x")
    (tmp_path / "scored" / "mine.txt").write_bytes(b"x")
    claim(str(tmp_path), overwrite=True, seed=2)
    assert len(list((tmp_path / "scored").iterdir())) == 3


def test_a_folder_with_nothing_but_a_run_within_is_new(tmp_path: Path) -> None:
    claim(str(tmp_path / "scored"), seed=1)
    claim(str(tmp_path), seed=1)
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_overwriting_does_not_delete_what_is_to_be_read(tmp_path: Path, protocol: str) -> None:
    import fsspec

    folder = f"{protocol}{tmp_path}/out"
    claim(folder, seed=1)
    unit = f"{folder}/part-00000-00000-00000.parquet"
    with fsspec.open(unit, "wb") as file:
        file.write(b"scored")
    with pytest.raises(UsageError, match=r"part-00000-00000-00000.parquet: is an input, and --overwrite would delete"):
        open_run(folder, {"job": "j", "facts": {"seed": 2}}, overwrite=True, storage={}, reading=[unit])
    with fsspec.open(unit, "rb") as file:
        assert file.read() == b"scored"
    claim(folder, seed=1)
