"""`cappy doctor --runner ...`: a probe goes through one worker; what it says of itself and of files is a finding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import apache_beam as beam
import pytest

from beam_pipelines.doctor import cluster, probe
from beam_pipelines.options import beam_options
from beam_pipelines.release import Release, this_release
from schemas.errors import CappyError
from tests.beam_pipelines.dataflow_jobs import payloads
from tests.conftest import cappy

LOCAL = ("--runner=FnApiRunner",)
PORTABLE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
TOLD: dict[str, Any] = {"host": "far", "python": "3.11.7", "beam": "2.77.0", "torch": None, "files": {}}
NAMES = ("round trip", "cappy", "apache-beam", "Python", "torch", "input", "output")
Doctor = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs the command; its exit status, the lines of its findings by what they are about, and its verdict."""

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
    with pytest.raises(CappyError, match="this machine writes there the worker does not see"):
        probe._answer("memory://doctor/never-written", {})
    assert "the worker writes there this machine does not" in str(cluster._unanswered("memory://doctor/unanswered", {}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'beam_pipelines'"), "the workers lack this project"),
        (ModuleNotFoundError("No module named 'fsspec'"), "the workers lack the module fsspec"),
    ],
)
def test_a_worker_that_cannot_be_asked(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, doctor: Doctor
) -> None:
    def fail(self: object, element: object) -> None:
        raise error

    monkeypatch.setattr(probe.Probe, "process", fail)
    status, lines, _ = doctor(*LOCAL)
    assert status == 1 and said in lines["round trip"]


def test_a_runner_that_brings_nothing_back(monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    monkeypatch.setattr(probe.Probe, "process", lambda self, element: None)
    status, lines, _ = doctor(*LOCAL)
    assert status == 1 and "brought back nothing" in lines["round trip"]


def test_another_release_is_named_beside_ours() -> None:
    release, *_ = cluster._worker({**TOLD, "cappy": ["0.0.9", "0123456789ab"]})
    assert release.needed and release.status == "missing"
    assert release.detail == f"the worker has cappy 0.0.9 (code 0123456789ab), this machine {this_release()}"


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


def test_the_probe_travels_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Python can read it: there is no bytecode in it."""
    pipelines: list[beam.Pipeline] = []

    def keep(self: beam.Pipeline) -> NoReturn:
        pipelines.append(self)
        raise CappyError("not run")

    monkeypatch.setattr(beam.Pipeline, "run", keep)
    cluster.check_cluster(beam_options(LOCAL, local_mode="multi_threading"), inputs=["in"], outputs=[], storage={})
    sent = b"".join(payload for _, payload in payloads(pipelines[0].to_runner_api()))
    assert b"beam_pipelines.doctor.probe" in sent and b"CodeType" not in sent
