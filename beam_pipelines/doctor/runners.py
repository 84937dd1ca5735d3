"""Checks of the Beam runners for --runner, and of the Java that Flink needs."""

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from beam_pipelines.doctor.findings import BASE_INSTALL, Finding, check
from beam_pipelines.doctor.loading import brief, load
from beam_pipelines.runs.release import install_command

MIN_JAVA = 11
_JAVA_SECONDS = 10
_BEAM_CACHE = Path("~/.apache_beam/cache")  # where Beam keeps the binaries and jars that it fetches

_PORTABILITY = "apache_beam.runners.portability"
_EMBEDDED = "in this process with --job_endpoint=embed --environment_type=LOOPBACK"
_DATAFLOW = "with a project and credentials of Google Cloud"
RUNNERS = (  # name, module, detail if usable, remedy, needed
    ("FnApiRunner", f"{_PORTABILITY}.fn_api_runner", "the default, in this process", BASE_INSTALL, True),
    ("PortableRunner", f"{_PORTABILITY}.local_job_service", _EMBEDDED, BASE_INSTALL, False),
    ("DataflowRunner", "apache_beam.runners.dataflow.internal.apiclient", _DATAFLOW, install_command("gcp"), False),
)


def runners() -> list[Finding]:
    """Check the Beam runners that can be named with --runner."""
    findings = [
        check("Runners", name, load(module)[1], detail=detail, remedy=remedy, needed=needed)
        for name, module, detail, remedy, needed in RUNNERS
    ]
    return [*findings, _prism(), _flink()]


def prism_binary() -> str | None:
    """Return Prism's binary, for --prism_location: from Beam's cache, the PATH or Python's folder; None if missing."""
    cached = glob.glob(str(_BEAM_CACHE.expanduser() / "prism" / "bin" / "*prism*"))
    # `make prism` puts it beside a Python that need not be on the PATH.
    return (
        max(cached)
        if cached
        else shutil.which("prism") or shutil.which("prism", path=os.path.join(sys.exec_prefix, "bin"))
    )


def _prism() -> Finding:
    binary = prism_binary()
    if binary:
        return Finding("Runners", "PrismRunner", "ok", f"with --prism_location={binary}")
    remedy = "Beam fetches it from GitHub at the first run; without a network give --prism_location=FILE"
    return Finding("Runners", "PrismRunner", "missing", "no prism on the PATH or in Beam's cache", remedy)


def _flink() -> Finding:
    version, text = java_version()
    if version is None or version < MIN_JAVA:
        remedy = f"install Java {MIN_JAVA} or 17, and set JAVA_HOME"
        return Finding("Runners", "FlinkRunner", "missing", text, remedy)
    jars = glob.glob(str(_BEAM_CACHE.expanduser() / "jars" / "beam-runners-flink-*-job-server-*.jar"))
    if jars:
        return Finding(
            "Runners", "FlinkRunner", "ok", f"{text}; Beam's cache has {', '.join(map(os.path.basename, jars))}"
        )
    built = glob.glob(os.path.join(sys.prefix, "flink", "job-server-*.jar"))
    if built:
        names = ", ".join(map(os.path.basename, built))
        return Finding("Runners", "FlinkRunner", "ok", f"{text}; `make flink-up` has built {names}")
    remedy = "Beam fetches it from Maven Central at the first run; without a network give --flink_job_server_jar=FILE"
    return Finding("Runners", "FlinkRunner", "warn", f"{text}; no job server in Beam's cache", remedy)


def java_command() -> str:
    """Return the command with which Beam starts Java."""
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else "java"


def java_version() -> tuple[int | None, str]:
    """Return the major version of Java (8, 11, 17, ...), or None, and a line about it."""
    java = shutil.which(java_command())
    if java is None:
        return None, f"no Java: {java_command()} not found"
    try:
        result = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=_JAVA_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{java} -version fails: {brief(error)}"
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    if match is None:
        return None, f"{java} -version prints no version"
    return int(match.group(1)), f"Java {match.group(1)} at {java}"
