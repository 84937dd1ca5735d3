"""`cappy doctor`: what of this machine the jobs can use, and what to install or do about the rest.

Every check is a function from nothing to findings. None reaches the network, and none raises: what is missing or broken
is a finding. Exit status 0 says that the jobs which need no model (build-corpus, rerank, evaluate) can run here.
"""

import glob
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Literal

import psutil

from beam_pipelines.jobs.base import DISTRIBUTION
from cappy_model.host import CGROUP_MEMBERSHIP, CGROUP_ROOT, cgroup_limits, cores_within, read_text

BASE_INSTALL = f"pip install {DISTRIBUTION}"
TESTED_PYTHONS = ((3, 11), (3, 12))
MIN_MEMORY = 2 * 2**30  # what the runner may hold for a million instructions
MIN_FREE_DISK = 2 * 2**30  # a model or a staged worker environment
MIN_JAVA = 11
_JAVA_SECONDS = 10
_BEAM_CACHE = Path("~/.apache_beam/cache")  # where Beam keeps the binaries and jars that it fetches

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    `status`: "ok", usable; "warn", usable with a caveat; "missing", not usable. `remedy` is what to do, empty when
    there is nothing to. `needed` marks what the jobs without a model cannot do without.
    """

    section: str
    name: str
    status: Status
    detail: str
    remedy: str = ""
    needed: bool = False


def check(
    section: str, name: str, problem: str | None, *, detail: str = "", remedy: str = "", needed: bool = False
) -> Finding:
    """Usable, as `detail` says, when there is no `problem`; else missing, with its remedy."""
    if problem:
        return Finding(section, name, "missing", problem, remedy, needed)
    return Finding(section, name, "ok", detail, needed=needed)


@dataclass(frozen=True)
class Package:
    """A package looked for: `extra` installs it, None being the base install; `module` is what is imported."""

    distribution: str
    module: str
    extra: str | None = None
    purpose: str = ""


PACKAGES = (
    Package("apache-beam", "apache_beam"),
    Package("pyarrow", "pyarrow"),
    Package("fsspec", "fsspec"),
    Package("jinja2", "jinja2"),
    Package("matplotlib", "matplotlib"),
    Package("torch", "torch", "model", "score, generate, train and adapt need it"),
    Package("transformers", "transformers", "model", "score, generate, train and adapt need it"),
)

FILE_SYSTEMS = (  # protocol, remedy, needed
    ("file", BASE_INSTALL, True),
    ("memory", BASE_INSTALL, True),
    ("s3", f"pip install '{DISTRIBUTION}[s3]'", False),
    ("gs", f"pip install '{DISTRIBUTION}[gcp]'", False),
    ("hdfs", "install a Hadoop client, set HADOOP_HOME, and CLASSPATH to what `hadoop classpath --glob` prints", False),
    ("http", "pip install 'fsspec[http]'", False),
    ("abfs", "pip install adlfs", False),
)

_PORTABILITY = "apache_beam.runners.portability"
_EMBEDDED = "in this process with --job_endpoint=embed --environment_type=LOOPBACK"
_DATAFLOW = "with a project and credentials of Google Cloud"
RUNNERS = (  # name, module, what it is when usable, remedy, needed
    ("FnApiRunner", f"{_PORTABILITY}.fn_api_runner", "the default, in this process", BASE_INSTALL, True),
    ("PortableRunner", f"{_PORTABILITY}.local_job_service", _EMBEDDED, BASE_INSTALL, False),
    (
        "DataflowRunner",
        "apache_beam.runners.dataflow.internal.apiclient",
        _DATAFLOW,
        f"pip install '{DISTRIBUTION}[gcp]'",
        False,
    ),
)


def diagnose() -> list[Finding]:
    """Everything looked at, section by section."""
    return [*packages(), *machine(), *devices(), *file_systems(), *runners(), *compressions()]


def exit_status(findings: Sequence[Finding]) -> int:
    """0 when all that the jobs without a model need is usable, else 1."""
    return int(any(finding.needed and finding.status == "missing" for finding in findings))


def doctor() -> int:
    """Looks, prints the report, and returns the exit status."""
    findings = diagnose()
    print(render(findings))
    return exit_status(findings)


def render(findings: Sequence[Finding]) -> str:
    """The findings as text: a block per section, a line per finding, its remedy below it, and a verdict at the end."""
    names = max((len(finding.name) for finding in findings), default=0)
    lines: list[str] = []
    section = None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section]
        lines.append(f"  {finding.status:<8} {finding.name:<{names}}  {finding.detail}".rstrip())
        if finding.remedy:
            lines.append(f"  {'':<8} {'':<{names}}  -> {finding.remedy}")
    blocking = [finding.name for finding in findings if finding.needed and finding.status == "missing"]
    verdict = f"Missing, and needed by every job: {', '.join(blocking)}." if blocking else "The base jobs can run here."
    return "\n".join([*lines, "", verdict]).lstrip("\n")


def packages() -> list[Finding]:
    """Versions of Python, of this project, and of the packages that it stands on."""
    return [_python(sys.version_info[:3]), _project(), *map(_package, PACKAGES)]


def _python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if version[:2] in TESTED_PYTHONS:
        return Finding("Packages", "Python", "ok", text)
    known = [".".join(map(str, tested)) for tested in TESTED_PYTHONS]
    remedy = f"make an environment with Python {known[-1]}"
    return Finding("Packages", "Python", "warn", f"{text}; tested with {' and '.join(known)}", remedy)


def _project() -> Finding:
    version = _version(DISTRIBUTION)
    if version:
        return Finding("Packages", "cappy", "ok", version)
    remedy = f"pip install {DISTRIBUTION}, or `pip install -e .` in the source tree; workers of a remote runner need it"
    return Finding("Packages", "cappy", "warn", "runs from a source tree, not installed", remedy)


def _package(package: Package) -> Finding:
    needed = package.extra is None
    problem = None
    if not _is_installed(package.module):
        problem = f"not installed{'; ' if package.purpose else ''}{package.purpose}"
    elif needed:  # a model's packages take seconds to import; `devices` alone imports torch
        problem = _load(package.module)[1]
    remedy = f"pip install '{DISTRIBUTION}[{package.extra}]'" if package.extra else BASE_INSTALL
    version = _version(package.distribution) or ""
    return check("Packages", package.distribution, problem, detail=version, remedy=remedy, needed=needed)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _load(module: str) -> tuple[ModuleType | None, str | None]:
    """The module, or why it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module), None
    except Exception as error:  # a broken installation raises what its authors never thought of
        return None, f"cannot be imported: {_brief(error)}"


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def machine() -> list[Finding]:
    """Cores, memory and the disk of the temporary directory."""
    cores, memory = cgroup_limits(CGROUP_ROOT, read_text(CGROUP_MEMBERSHIP))
    return [_cores(cores), _memory(memory), _disk()]


def _cores(quota: float | None) -> Finding:
    limit = f", {cores_within(None)} by affinity, {quota:g} by cgroup" if quota is not None else ""
    return Finding("Machine", "cores", "ok", f"{cores_within(quota)} usable of {os.cpu_count()}{limit}")


def _memory(limit: int | None) -> Finding:
    memory = psutil.virtual_memory()
    total = min(memory.total, limit) if limit is not None else memory.total
    free = min(memory.available, total)
    detail = f"{_gigabytes(free)} free of {_gigabytes(total)}{' (cgroup limit)' if total < memory.total else ''}"
    if free >= MIN_MEMORY:
        return Finding("Machine", "memory", "ok", detail)
    remedy = "an in-process runner may hold 2 GB per million instructions: use --limit, fewer workers, or a cluster"
    return Finding("Machine", "memory", "warn", detail, remedy)


def _disk() -> Finding:
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = "set TMPDIR to a folder that is writable"
        return Finding("Machine", "temporary disk", "missing", str(error), remedy, needed=True)
    detail = f"{_gigabytes(free)} free in {folder}"
    if free >= MIN_FREE_DISK:
        return Finding("Machine", "temporary disk", "ok", detail)
    return Finding("Machine", "temporary disk", "warn", detail, "set TMPDIR to a folder with more room")


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"


def devices() -> list[Finding]:
    """What models can run on: the CPU, and the CUDA devices when torch is there to ask."""
    return [_cpu(read_text(Path("/proc/cpuinfo"))), *_cuda()]


def _cpu(cpuinfo: str) -> Finding:
    flags = sorted(set(re.findall(r"\b(?:avx512_bf16|amx_bf16|bf16)\b", cpuinfo)))
    detail = f"bfloat16 in hardware ({', '.join(flags)})" if flags else "no bfloat16 in hardware: float32 suits it"
    return Finding("Devices", "cpu", "ok", detail if cpuinfo else "whether it has bfloat16 cannot be told here")


def _cuda() -> list[Finding]:
    if not _is_installed("torch"):
        remedy = f"pip install '{DISTRIBUTION}[model]'"
        return [Finding("Devices", "cuda", "missing", "torch is not installed, so it cannot be asked", remedy)]
    torch, problem = _load("torch")
    if torch is None:
        return [Finding("Devices", "cuda", "missing", f"torch {problem}", "install torch again")]
    try:
        if not torch.cuda.is_available():
            return [Finding("Devices", "cuda", "missing", "no CUDA device: models run on the CPU")]
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError) as error:
        return [Finding("Devices", "cuda", "missing", _brief(error), "check the driver with nvidia-smi")]
    return [
        Finding("Devices", f"cuda:{index}", "ok", f"{device.name}, {_gigabytes(device.total_memory)}")
        for index, device in enumerate(found)
    ]


def file_systems() -> list[Finding]:
    """The fsspec file systems that inputs and outputs may lie on."""
    return [
        check("File systems", f"{protocol}://", _protocol_problem(protocol), remedy=remedy, needed=needed)
        for protocol, remedy, needed in FILE_SYSTEMS
    ]


def _protocol_problem(protocol: str) -> str | None:
    fsspec, problem = _load("fsspec")
    if fsspec is None:
        return problem
    try:
        fsspec.get_filesystem_class(protocol)
    except Exception as error:  # it imports the file system's package, as `_load` does
        return _brief(error)
    return _hadoop_problem() if protocol == "hdfs" else None


def _hadoop_problem() -> str | None:
    if not shutil.which(_java()):
        return "needs Java, and none is found"
    folders = [os.environ.get("ARROW_LIBHDFS_DIR"), os.path.join(os.environ.get("HADOOP_HOME", ""), "lib", "native")]
    if any(folder and glob.glob(os.path.join(folder, "libhdfs.*")) for folder in folders):
        return None
    return "no libhdfs below HADOOP_HOME or in ARROW_LIBHDFS_DIR"


def runners() -> list[Finding]:
    """The Beam runners that can be named with --runner."""
    found = []
    for name, module, detail, remedy, needed in RUNNERS:
        found.append(check("Runners", name, _load(module)[1], detail=detail, remedy=remedy, needed=needed))
    return [*found, _prism(), _flink()]


def _prism() -> Finding:
    cached = glob.glob(str(_BEAM_CACHE.expanduser() / "prism" / "bin" / "*prism*"))
    if cached:
        return Finding("Runners", "PrismRunner", "ok", f"Beam's cache has {os.path.basename(max(cached))}")
    binary = shutil.which("prism")
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
    remedy = "Beam fetches it from Maven Central at the first run; without a network give --flink_job_server_jar=FILE"
    return Finding("Runners", "FlinkRunner", "warn", f"{text}; no job server in Beam's cache", remedy)


def _java() -> str:
    """The command that Beam starts Java with."""
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else "java"


def java_version() -> tuple[int | None, str]:
    """The major version of Java (8, 11, 17, ...), or None, and a line that says what was found."""
    java = shutil.which(_java())
    if java is None:
        return None, f"no Java: {_java()} is not there"
    try:
        result = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=_JAVA_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{java} -version fails: {_brief(error)}"
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    if match is None:
        return None, f"{java} -version does not say which version it is"
    return int(match.group(1)), f"Java {match.group(1)} at {java}"


def compressions() -> list[Finding]:
    """Compressions of JSON Lines and CSV inputs, and the one of every Parquet output."""
    found = []
    fsspec, problem = _load("fsspec.compression")
    for ending, name in ((".gz", "gzip"), (".zst", "zstd")):
        lacking = None if fsspec is not None and name in fsspec.compr else problem or f"fsspec cannot read {name}"
        found.append(check("Compressions", ending, lacking, detail="JSON Lines, CSV", remedy=BASE_INSTALL, needed=True))
    pyarrow, problem = _load("pyarrow")
    if pyarrow is not None and not pyarrow.Codec.is_available("zstd"):
        problem = "this build of pyarrow lacks zstd"
    detail = "every output"
    return [*found, check("Compressions", "Parquet", problem, detail=detail, remedy=BASE_INSTALL, needed=True)]


if __name__ == "__main__":  # works where the rest of an installation is too broken for `cappy` to start
    sys.exit(doctor())
