"""`cappy doctor`: findings with modules, Java and control groups faked, and the exit status that follows from them."""

import importlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec.registry  # noqa: F401 - reached through sys.modules: the package hides it behind an attribute
import pytest

from beam_pipelines.doctor import diagnosis, installation, machine, runners
from beam_pipelines.doctor.findings import Finding, exit_status, render
from beam_pipelines.runs.release import PIP, install_command
from cappy_model import host

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def without(monkeypatch):
    """Return a function that makes modules, and those within them, look uninstalled."""

    def hide(*names):
        real_import, real_find = importlib.import_module, importlib.util.find_spec

        def hidden(module):
            return any(module == name or module.startswith(f"{name}.") for name in names)

        def import_module(module, package=None):
            if hidden(module):
                raise ImportError(f"No module named {module!r}")
            return real_import(module, package)

        def find_spec(module, package=None):
            return None if hidden(module) else real_find(module, package)

        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return hide


def by_name(findings):
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    return named


def test_a_broken_installation_is_told_of(tmp_path):
    """With Beam and psutil broken `cappy` cannot start, and this can."""
    for name in ("apache_beam", "psutil"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('libfoo.so: cannot open shared object file')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "beam_pipelines.doctor"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and not result.stderr, result.stderr
    *_, verdict = result.stdout.splitlines()
    assert verdict == "Missing, and needed by every job: apache-beam, memory, FnApiRunner."
    assert "cannot be imported: ImportError: libfoo.so" in result.stdout


def test_everything_the_base_jobs_need_is_here():
    findings = diagnosis.diagnose()
    assert exit_status(findings) == 0
    assert {finding.section for finding in findings} == {
        *("Packages", "Machine", "Devices", "File systems", "Runners", "Compressions")
    }
    assert all(finding.remedy for finding in findings if finding.status == "missing" and finding.needed)
    named = by_name(findings)
    for name in ("pyarrow", "apache-beam", "file://", "memory://", "FnApiRunner", ".gz", ".zst", "Parquet"):
        assert named[name].status == "ok", named[name]


@pytest.mark.parametrize(
    ("module", "name", "status", "remedy"),
    [
        ("pyarrow", "pyarrow", 1, install_command()),
        ("apache_beam", "FnApiRunner", 1, install_command()),
        ("jinja2", "jinja2", 1, install_command()),
        ("fsspec", "file://", 1, install_command()),
        ("fsspec", ".zst", 1, install_command()),
        ("transformers", "transformers", 0, install_command("model")),
        ("torch", "torch", 0, install_command("model")),
        ("torch", "cuda", 0, install_command("model")),
        ("s3fs", "s3://", 0, install_command("s3")),
        ("gcsfs", "gs://", 0, install_command("gcp")),
        ("adlfs", "abfs://", 0, f"{PIP} adlfs"),
        ("apache_beam.runners.dataflow", "DataflowRunner", 0, install_command("gcp")),
    ],
)
def test_a_missing_module_is_a_finding_with_a_remedy(monkeypatch, without, module, name, status, remedy):
    without(module)
    for protocol in ("s3", "gs", "abfs"):  # fsspec remembers the classes that it has loaded
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    findings = diagnosis.diagnose()
    finding = by_name(findings)[name]
    assert (finding.status, finding.remedy) == ("missing", remedy)
    assert exit_status(findings) == status


def test_the_project_is_installed_from_its_source_tree(tmp_path):
    assert install_command("model") == f"{sys.executable} -m pip install -e '{ROOT}[model]'"
    assert install_command() == f"{sys.executable} -m pip install -e {ROOT}"
    assert install_command("s3", tree=tmp_path) == f"{sys.executable} -m pip install '.[s3]' in the source tree"


def test_a_package_that_breaks_when_imported_is_a_finding(monkeypatch):
    real = importlib.import_module

    def import_module(module, package=None):
        if module == "jinja2":
            raise AttributeError("module 'numpy' has no\nattribute 'float_'")
        return real(module, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    finding = by_name(installation.packages())["jinja2"]
    assert finding.status == "missing"
    assert finding.detail == "cannot be imported: AttributeError: module 'numpy' has no attribute 'float_'"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 11, 7), "ok"), ((3, 12, 0), "ok"), ((3, 13, 1), "warn"), ((3, 10, 9), "warn")]
)
def test_python_is_checked_against_the_tested_versions(version, status):
    finding = installation._python(version)
    assert finding.status == status
    assert bool(finding.remedy) == (status == "warn")


def test_cuda_devices_come_with_name_and_memory(monkeypatch):
    device = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda index: device
    )
    monkeypatch.setattr(machine, "is_installed", lambda module: True)
    monkeypatch.setattr(machine, "load", lambda module: (SimpleNamespace(cuda=cuda), None))
    assert [(f.name, f.status, f.detail) for f in machine._cuda()] == [
        ("cuda:0", "ok", "NVIDIA H100, 80.0 GB"),
        ("cuda:1", "ok", "NVIDIA H100, 80.0 GB"),
    ]


def test_a_broken_driver_is_a_finding(monkeypatch):
    def is_available():
        raise RuntimeError("Found no NVIDIA driver")

    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=is_available))
    monkeypatch.setattr(machine, "is_installed", lambda module: True)
    monkeypatch.setattr(machine, "load", lambda module: (torch, None))
    [finding] = machine._cuda()
    assert (finding.status, finding.detail) == ("missing", "RuntimeError: Found no NVIDIA driver")


@pytest.mark.parametrize(
    ("cpuinfo", "detail"),
    [
        ("flags : fpu avx512_bf16 amx_bf16", "bfloat16 in hardware (amx_bf16, avx512_bf16)"),
        ("Features : fp asimd bf16", "bfloat16 in hardware (bf16)"),
        ("flags : fpu avx2", "no bfloat16 in hardware: float32 suits it"),
        ("", "cannot detect bfloat16 here"),
    ],
)
def test_bfloat16_is_read_from_the_flags_of_the_cpu(cpuinfo, detail):
    assert machine._cpu(cpuinfo).detail == detail


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_cgroup_2_gives_the_tightest_limit_of_the_group_and_its_parents(tmp_path):
    write(tmp_path / "a" / "b", cpu__max="400000 100000\n", memory__max="max\n")
    write(tmp_path / "a", cpu__max="150000 100000\n", memory__max=f"{8 * 2**30}\n")
    assert host.cgroup_limits(tmp_path, "0::/a/b\n") == (1.5, 8 * 2**30)


def test_cgroup_2_inside_a_container_is_read_at_the_root(tmp_path):
    write(tmp_path, cpu__max="200000 100000\n", memory__max=f"{2**30}\n")
    assert host.cgroup_limits(tmp_path, "0::/hidden/outside\n") == (2.0, 2**30)


def test_cgroup_1_is_read_by_controller_and_its_largest_number_is_no_limit(tmp_path):
    write(tmp_path / "cpu,cpuacct" / "job", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n")
    write(tmp_path / "memory" / "job", memory__limit_in_bytes="9223372036854771712\n")
    membership = "4:memory:/job\n2:cpu,cpuacct:/job\n1:name=systemd:/\n"
    assert host.cgroup_limits(tmp_path, membership) == (0.5, None)


@pytest.mark.parametrize("membership", ["", "0::/\n", "2:cpu,cpuacct:/\n0::/\n"])
def test_without_limits_there_are_none(tmp_path, membership):
    write(tmp_path, cpu__max="max 100000\n")
    write(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert host.cgroup_limits(tmp_path, membership) == (None, None)


def test_cores_are_at_least_one():
    assert host.cores_within(0.5) == 1
    assert 1 <= host.usable_cores() <= os.cpu_count()
    assert machine._cores(0.5).detail.startswith("1 usable of ")


def test_little_memory_and_little_disk_are_warnings(monkeypatch):
    assert machine._memory(2**30).status == "warn"
    assert "(cgroup limit)" in machine._memory(2**30).detail
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10 * 2**20))
    assert machine._disk().status == "warn"


def test_no_writable_temporary_folder_is_a_failure(monkeypatch):
    def gettempdir():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(machine.tempfile, "gettempdir", gettempdir)
    assert exit_status([machine._disk()]) == 1


def java_home(folder, script):
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    return java


@pytest.mark.skipif(sys.platform == "win32", reason="the fake java is a shell script")
@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("""echo 'openjdk version "17.0.15" 2025-04-15' >&2""", 17),
        ("""echo 'java version "1.8.0_392"' >&2""", 8),
        ("""echo 'openjdk version "21" 2023-09-19' >&2""", 21),
        ("echo nothing", None),
        ("exit 3", None),
    ],
)
def test_java_is_asked_for_its_version(monkeypatch, tmp_path, script, version):
    java = java_home(tmp_path, script)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found, text = runners.java_version()
    assert found == version
    assert str(java) in text


def test_flink_needs_java_and_its_job_server(monkeypatch, tmp_path):
    monkeypatch.setattr(runners, "_BEAM_CACHE", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for found, status in (((None, "no Java"), "missing"), ((8, "Java 8"), "missing"), ((17, "Java 17"), "warn")):
        monkeypatch.setattr(runners, "java_version", lambda found=found: found)
        assert runners._flink().status == status
    write(tmp_path / "flink", **{"job-server-1__20__0-by-1__19-2__62__0__jar": ""})
    finding = runners._flink()
    assert (finding.status, finding.remedy) == ("ok", "")
    assert "`make flink-up` has built job-server-1.20.0-by-1.19-2.62.0.jar" in finding.detail
    write(tmp_path / "jars", **{"beam-runners-flink-1__20-job-server-2__77__0__jar": ""})
    finding = runners._flink()
    assert (finding.status, finding.remedy) == ("ok", "")
    assert "beam-runners-flink-1.20-job-server-2.77.0.jar" in finding.detail


def test_prism_is_looked_for_in_the_cache_on_the_path_and_beside_python(monkeypatch, tmp_path):
    monkeypatch.setattr(runners, "_BEAM_CACHE", tmp_path)
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert runners._prism().status == "missing"
    for folder in (tmp_path / "venv" / "bin", tmp_path / "path"):
        write(folder, prism="")
        (folder / "prism").chmod(0o755)
        assert runners._prism().detail == f"with --prism_location={folder / 'prism'}"
    write(tmp_path / "prism" / "bin", **{"apache_beam-v2__77__0-prism-linux-amd64": ""})
    assert "apache_beam-v2.77.0-prism-linux-amd64" in runners._prism().detail


@pytest.mark.parametrize(
    ("findings", "lines"),
    [
        ([], ["The base jobs can run here."]),
        (
            [Finding("A", "one", "ok", "1.0", needed=True), Finding("B", "longer", "missing", "no", "install it")],
            [
                "A",
                "  ok       one     1.0",
                "",
                "B",
                "  missing  longer  no",
                "                   -> install it",
                "",
                "The base jobs can run here.",
            ],
        ),
        (
            [Finding("A", "one", "missing", "", "install it", needed=True)],
            [
                "A",
                "  missing  one",
                "                -> install it",
                "",
                "Missing, and needed by every job: one.",
            ],
        ),
    ],
)
def test_render(findings, lines):
    assert render(findings).splitlines() == lines


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (Finding("A", "x", "ok", "", needed=True), 0),
        (Finding("A", "x", "warn", "", needed=True), 0),
        (Finding("A", "x", "missing", ""), 0),
        (Finding("A", "x", "missing", "", needed=True), 1),
    ],
)
def test_doctor_prints_the_report_and_returns_the_status(monkeypatch, capsys, finding, status):
    monkeypatch.setattr(diagnosis, "diagnose", lambda: [finding])
    assert diagnosis.doctor() == status
    assert capsys.readouterr().out == render([finding]) + "\n"
