"""Errors of clusters whose workers are missing, lack this project, run other code, or see other disks."""

import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.conftest import build, cappy
from tests.end_to_end.inputs import PLAIN, good, json_lines, mixture_of, said
from tests.flink.conftest import bare_python, pool_of
from tools import flink

pytestmark = [pytest.mark.flink, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
NO_POOL = 1  # a port that nobody listens at


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """Write a mixture of two rows."""
    return mixture_of(tmp_path, {"d": ({"0.jsonl": json_lines(*good(2))}, PLAIN)})


def flags_with(cluster: dict[str, Any], workers: int) -> list[str]:
    return flink.flags({**cluster, "ports": {**cluster["ports"], "workers": workers}}, parallelism=1)


def test_no_pool(cluster: dict[str, Any], mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(mixture, tmp_path / "out", *flags_with(cluster, NO_POOL)) == 1
    assert f"no worker pool (Connection refused): start it, or fix --environment_config localhost:{NO_POOL}" in said(
        capsys
    )


def test_a_pool_without_this_project(
    cluster: dict[str, Any], mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pool_of(bare_python(tmp_path / "bare"), tmp_path) as port:
        assert build(mixture, tmp_path / "out", *flags_with(cluster, port)) == 1
    assert "the workers lack this project" in said(capsys)


def test_a_pool_of_other_code(
    cluster: dict[str, Any], mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("beam_pipelines", "cappy_model", "schemas"):
        shutil.copytree(ROOT / package, tmp_path / "other" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "other" / "schemas" / "more.py").write_text("")
    with pool_of(Path(sys.executable), tmp_path, tmp_path / "other") as port:
        assert build(mixture, tmp_path / "out", *flags_with(cluster, port)) == 1
    assert "Install the submitter's code where the workers run and restart them" in said(capsys)


def test_an_input_that_workers_do_not_see(
    cluster: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies in the memory of this process is there for the command alone."""
    flags = flink.flags(cluster, parallelism=1)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/seen/rows.jsonl", json_lines({"instruction": "a", "response": "b", "score": 0.5}))
    rows = "memory://seen/rows.jsonl"
    assert cappy("rerank", "--input", rows, "--output", tmp_path / "out", *flags) == 1
    assert f"{rows}: cannot be read by the worker on" in said(capsys)
