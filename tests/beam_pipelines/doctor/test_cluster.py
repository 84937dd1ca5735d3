"""`cappy doctor --runner ...`: a probe goes through one worker; what it says of itself and of files is a finding."""

import json
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.doctor import cluster, probe
from beam_pipelines.runs.release import Release, this_release
from tests.conftest import cappy

LOCAL = ("--runner=FnApiRunner",)
PORTABLE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
TOLD: dict[str, Any] = {"host": "far", "python": "3.11.7", "beam": "2.77.0", "torch": None, "files": {}}
NAMES = ("round trip", "cappy", "apache-beam", "Python", "torch", "input", "output")
# The packages of this environment, without what makes the project importable.
BARE = f"""
import runpy, sys
sys.path.append({site.getsitepackages()[0]!r})
sys.modules["beam_pipelines"] = None
runpy.run_path(sys.argv[1])
"""
Doctor = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Return a function that runs the command; it returns exit status, findings by name, and verdict."""

    def run(*flags: object) -> tuple[int, dict[str, str], str]:
        status = cappy("doctor", *flags)
        section, *lines, _, verdict = capsys.readouterr().out.splitlines()
        assert section == "Cluster"
        return status, {name: line for line in lines for name in NAMES if line[11:].startswith(f"{name} ")}, verdict

    return run


@pytest.mark.parametrize("runner", [LOCAL, PORTABLE])
def test_a_worker_is_asked_and_answers(runner: tuple[str, ...], doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    status, lines, verdict = doctor(*runner, "--input", tmp_path / "*.jsonl", "--output", tmp_path / "new")
    assert status == 0 and verdict == f"The base jobs can run on {runner[0].removeprefix('--runner=')}."
    assert set(lines) == set(NAMES) and all(line.startswith("  ok ") for line in lines.values())
    assert str(this_release()) in lines["cappy"] and not list((tmp_path / "new").iterdir())


def test_nothing_listens(doctor: Doctor) -> None:
    flags = ("--runner=FlinkRunner", "--job_endpoint=localhost:1", "--environment_type=EXTERNAL")
    status, lines, verdict = doctor(*flags, "--environment_config=localhost:2")
    assert status == 1 and "--job_endpoint localhost:1: no answer" in lines["round trip"] and "round trip" in verdict


def test_files_out_of_reach(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, lines, _ = doctor("--input", tmp_path / "*.parquet", "--output", tmp_path / "file" / "below")
    assert status == 1 and "no file matches" in lines["input"] and "cannot be written" in lines["output"]
    assert lines["round trip"].startswith("  ok ")


def test_a_worker_that_sees_other_disks() -> None:
    assert "does not see" in str(probe.confirm("memory://doctor/never-written", {}))
    assert "this machine does not see" in str(cluster._unconfirmed("memory://doctor/never-answered", {}))
    assert probe._problem(probe.read_first, "nosuch://x/*", {}) is not None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'apache_beam.metrics'\")",
            "the workers lack the module apache_beam",
        ),
        ("pass", "brought back nothing"),
    ],
)
def test_a_worker_that_tells_nothing(source: str, said: str, monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    monkeypatch.setattr(cluster, "_source", lambda asked: source)
    status, lines, _ = doctor(*LOCAL)
    assert status == 1 and said in lines["round trip"]


def test_a_worker_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    monkeypatch.setattr(cluster, "_source", lambda asked: "import time; time.sleep(8)")
    status, lines, _ = doctor(*PORTABLE, "--wait", 1)
    assert status == 1 and "no worker has answered within 1 s, and the job is RUNNING" in lines["round trip"]


@pytest.mark.parametrize(
    ("theirs", "named"), [(["0.0.9", "0123456789ab"], "cappy 0.0.9 (code 0123456789ab)"), (None, "no cappy")]
)
def test_another_release_is_named_beside_ours(theirs: list[str] | None, named: str) -> None:
    release, *_ = cluster._worker({**TOLD, "cappy": theirs})
    assert release.needed and release.detail == f"the worker has {named}, this machine {this_release()}"


def test_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.platform, "python_version", lambda: "3.12.1")
    monkeypatch.setattr(cluster.beam, "__version__", "2.99.0")
    monkeypatch.setattr(cluster, "this_release", lambda: Release("1", "2"))
    found = {finding.name: finding for finding in cluster._worker({**TOLD, "cappy": ["1", "2"]})}
    assert [name for name, finding in found.items() if finding.status == "missing"] == [
        "apache-beam",
        "Python",
        "torch",
    ]
    assert found["Python"].detail == "the worker has 3.11.7, this machine 3.12.1"


def test_the_probe_needs_nothing_of_the_project(tmp_path: Path) -> None:
    """It runs as bare text, where there is no such project."""
    script = tmp_path / "probe.py"
    asked = {"inputs": [], "outputs": [], "storage": {}}
    script.write_text(f"{cluster._source(json.dumps(asked))}print(_release())")
    found = subprocess.run([sys.executable, "-I", "-S", "-c", BARE, script], capture_output=True, text=True)
    assert found.stdout == "None\n", found.stderr
