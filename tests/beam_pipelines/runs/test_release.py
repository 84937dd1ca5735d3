import shutil
from importlib import metadata
from pathlib import Path

import pytest

from beam_pipelines.runs import release
from beam_pipelines.runs.release import OtherRelease, Release, check_release, code_of, this_release, versions

ROOT = Path(__file__).resolve().parents[3]


def test_a_worker_of_this_code_passes() -> None:
    check_release(this_release())


@pytest.mark.parametrize("other", [Release("9.9.9", this_release().code), Release(this_release().version, "0" * 12)])
def test_a_worker_of_other_code_names_both(other: Release) -> None:
    with pytest.raises(OtherRelease) as caught:
        check_release(other)
    said = str(caught.value)
    assert str(other) in said and str(this_release()) in said and "restart" in said


def test_a_source_tree_that_is_not_installed_has_a_manifest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "DISTRIBUTION", "cappy-that-is-not-there")
    this_release.cache_clear()
    try:
        assert versions("pyarrow") | {"python": ""} == {
            "cappy": "not installed",
            "python": "",
            "pyarrow": metadata.version("pyarrow"),
        }
    finally:
        this_release.cache_clear()


def test_the_code_is_every_python_file_and_nothing_else(tmp_path: Path) -> None:
    for package in ("beam_pipelines", "cappy_model", "schemas"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_of(tmp_path)
    assert before == this_release().code
    (tmp_path / "schemas" / "notes.txt").write_text("no code")
    assert code_of(tmp_path) == before
    (tmp_path / "schemas" / "extra.py").write_text("")
    assert code_of(tmp_path) != before
