"""The version and code of this installation, how to install it, and a check that workers run the same."""

import hashlib
import platform
import shlex
import socket
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from beam_pipelines import DISTRIBUTION
from schemas.errors import CappyError

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("beam_pipelines", "cappy_model", "schemas")


class Release(NamedTuple):
    """The installed version, and the first 12 hex digits of a hash of all Python files."""

    version: str
    code: str

    def __str__(self) -> str:
        return f"cappy {self.version} (code {self.code})"


PIP = f"{shlex.quote(sys.executable)} -m pip install"
"""The pip of this interpreter."""


def install_command(extra: str = "", tree: Path = _ROOT) -> str:
    """Return the command that installs the project with an `extra` from its source `tree`; no package index has it."""
    extras = f"[{extra}]" if extra else ""
    if (tree / "setup.py").is_file():
        return f"{PIP} -e {shlex.quote(f'{tree}{extras}')}"
    return f"{PIP} {shlex.quote(f'.{extras}')} in the source tree"


class OtherRelease(CappyError):
    """A worker runs other code than the command that submitted the job."""


def code_of(root: Path) -> str:
    """Return 12 hex digits of a hash over names and bytes of the project's Python files below `root`."""
    state = hashlib.blake2b()
    for path in sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py")):
        content = path.read_bytes()
        state.update(f"{path.relative_to(root).as_posix()}\n{len(content)}\n".encode() + content)
    return state.hexdigest()[:12]


@cache
def this_release() -> Release:
    """Return the release of this process."""
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "not installed"
    return Release(version, code_of(_ROOT))


def check_release(submitted: Release) -> None:
    """Raise OtherRelease, naming both, if this worker does not run the code that `submitted` the job."""
    here = this_release()
    if here != submitted:
        raise OtherRelease(
            f"the worker on {socket.gethostname()} runs {here} from {_ROOT}, and the job was submitted by {submitted}. "
            "Install the submitter's code where the workers run and restart them, then run the same command again."
        )


def versions(*packages: str) -> dict[str, str]:
    """Return the versions that a manifest names: this program, Python, and some packages."""
    return {
        "cappy": this_release().version,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
