import json
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.runs import State, close_run, hold, load_manifest, open_run
from schemas.errors import CappyError


def claim(folder: str, *, overwrite: bool = False, **facts: Any) -> State:
    return open_run(folder, {"job": "j", "facts": facts}, overwrite=overwrite, storage={})


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_folder_is_new_continued_and_done(tmp_path: Path, protocol: str) -> None:
    import fsspec

    folder = f"{protocol}{tmp_path}/out"
    assert claim(folder, seed=1) is State.NEW
    assert claim(folder, seed=1) is State.CONTINUED
    with pytest.raises(CappyError, match=r"holds another run: seed: 1 -> 2\. Give another folder, or --overwrite"):
        claim(folder, seed=2)
    with fsspec.open(f"{folder}/manifest.json", "wb") as file:
        file.write(b'{"files": []}')
    assert claim(folder, seed=1) is State.DONE
    assert claim(folder, overwrite=True, seed=2) is State.NEW
    with pytest.raises(CappyError, match="holds an unfinished run"):
        load_manifest(folder, {})


def test_the_next_run_forgets_the_failure_of_the_last(tmp_path: Path) -> None:
    claim(str(tmp_path), seed=1)
    (tmp_path / "failure.json").write_text(json.dumps({"reason": "too many"}))
    with pytest.raises(CappyError, match="the run failed: too many"):
        load_manifest(str(tmp_path), {})
    assert claim(str(tmp_path), seed=1) is State.CONTINUED
    assert not (tmp_path / "failure.json").exists()


def test_closing_deletes_leftovers_alone(tmp_path: Path) -> None:
    claim(str(tmp_path), seed=1)
    (tmp_path / "pairs").mkdir()
    kept = [tmp_path / "run.json", tmp_path / "pairs" / "shard-00000-of-00001.parquet", tmp_path / ".mine.tmp"]
    gone = [tmp_path / "pairs" / ".shard-00000-of-00001.parquet.0a1b.tmp", tmp_path / ".manifest.json.0a.tmp"]
    for path in [*kept[1:], *gone]:
        path.write_bytes(b"x")
    close_run(str(tmp_path), {})
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


def test_a_second_job_is_kept_off_a_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    with hold(folder, {}):
        with pytest.raises(CappyError, match="another job is at work in it"), hold(folder, {}):
            pass
        claim(folder, seed=1)
    with hold(folder, {}):
        assert claim(folder, seed=1) is State.CONTINUED


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CappyError, match="not ours"), hold(str(tmp_path), {}):
        claim(str(tmp_path), seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwriting_deletes_a_run_within_and_leaves_the_rest(tmp_path: Path) -> None:
    claim(str(tmp_path), seed=1)
    claim(str(tmp_path / "scored"), seed=1)
    (tmp_path / "scored" / "part-00000-00000-00000.parquet").write_bytes(b"x")
    (tmp_path / "scored" / "mine.txt").write_bytes(b"x")
    claim(str(tmp_path), overwrite=True, seed=2)
    assert [path.name for path in (tmp_path / "scored").iterdir()] == ["mine.txt"]
