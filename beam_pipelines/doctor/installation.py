"""Checks of installed packages, and of the file systems and compressions that these support."""

import glob
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from beam_pipelines import DISTRIBUTION
from beam_pipelines.doctor.findings import BASE_INSTALL, Finding, check
from beam_pipelines.doctor.loading import brief, is_installed, load
from beam_pipelines.doctor.runners import java_command
from beam_pipelines.runs.release import PIP, install_command

TESTED_PYTHONS = ((3, 11), (3, 12))


@dataclass(frozen=True)
class Package:
    """A package to check: `extra` installs it, None for the base install; `module` is the name to import."""

    distribution: str
    module: str
    extra: str | None = None
    purpose: str = ""


PACKAGES = (
    Package("apache-beam", "apache_beam"),
    Package("pyarrow", "pyarrow"),
    Package("fsspec", "fsspec"),
    Package("jinja2", "jinja2"),
    Package("torch", "torch", "model", "score, generate, train and adapt need it"),
    Package("transformers", "transformers", "model", "score, generate, train and adapt need it"),
)

FILE_SYSTEMS = (  # protocol, remedy, needed
    ("file", BASE_INSTALL, True),
    ("memory", BASE_INSTALL, True),
    ("s3", install_command("s3"), False),
    ("gs", install_command("gcp"), False),
    ("hdfs", "install a Hadoop client, set HADOOP_HOME, and CLASSPATH to what `hadoop classpath --glob` prints", False),
    ("http", f"{PIP} 'fsspec[http]'", False),
    ("abfs", f"{PIP} adlfs", False),
)


def packages() -> list[Finding]:
    """Check the versions of Python, of this project, and of the packages that it depends on."""
    return [_python(sys.version_info[:3]), _project(), *map(_package, PACKAGES)]


def _python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if version[:2] in TESTED_PYTHONS:
        return Finding("Packages", "Python", "ok", text)
    known = [".".join(map(str, tested)) for tested in TESTED_PYTHONS]
    remedy = f"create an environment with Python {known[-1]}"
    return Finding("Packages", "Python", "warn", f"{text}; tested with {' and '.join(known)}", remedy)


def _project() -> Finding:
    version = _installed_version(DISTRIBUTION)
    if version:
        return Finding("Packages", "cappy", "ok", version)
    remedy = f"{BASE_INSTALL}; workers of a remote runner need it"
    return Finding("Packages", "cappy", "warn", "runs from a source tree, not installed", remedy)


def _package(package: Package) -> Finding:
    needed = package.extra is None
    problem = None
    if not is_installed(package.module):
        problem = f"not installed{'; ' if package.purpose else ''}{package.purpose}"
    elif needed:  # a model's packages take seconds to import; `devices` alone imports torch
        problem = load(package.module)[1]
    version = _installed_version(package.distribution) or ""
    remedy = install_command(package.extra or "")
    return check("Packages", package.distribution, problem, detail=version, remedy=remedy, needed=needed)


def _installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def file_systems() -> list[Finding]:
    """Check the fsspec file systems of inputs and outputs."""
    return [
        check("File systems", f"{protocol}://", _protocol_problem(protocol), remedy=remedy, needed=needed)
        for protocol, remedy, needed in FILE_SYSTEMS
    ]


def _protocol_problem(protocol: str) -> str | None:
    fsspec, problem = load("fsspec")
    if fsspec is None:
        return problem
    try:
        fsspec.get_filesystem_class(protocol)
    except Exception as error:  # it imports the file system's package, as `load` does
        return brief(error)
    return _hadoop_problem() if protocol == "hdfs" else None


def _hadoop_problem() -> str | None:
    if not shutil.which(java_command()):
        return "needs Java, which was not found"
    folders = [os.environ.get("ARROW_LIBHDFS_DIR"), os.path.join(os.environ.get("HADOOP_HOME", ""), "lib", "native")]
    if any(folder and glob.glob(os.path.join(folder, "libhdfs.*")) for folder in folders):
        return None
    return "no libhdfs below HADOOP_HOME or in ARROW_LIBHDFS_DIR"


def compressions() -> list[Finding]:
    """Check the compressions of JSON Lines and CSV inputs, and that of every Parquet output."""
    found = []
    fsspec, problem = load("fsspec.compression")
    for ending, name in ((".gz", "gzip"), (".zst", "zstd")):
        missing = None if fsspec is not None and name in fsspec.compr else problem or f"fsspec cannot read {name}"
        found.append(check("Compressions", ending, missing, detail="JSON Lines, CSV", remedy=BASE_INSTALL, needed=True))
    pyarrow, problem = load("pyarrow")
    if pyarrow is not None and not pyarrow.Codec.is_available("zstd"):
        problem = "this build of pyarrow lacks zstd"
    detail = "every output"
    return [*found, check("Compressions", "Parquet", problem, detail=detail, remedy=BASE_INSTALL, needed=True)]
