"""Which version and code of the project this is, so that a worker with another is noticed before it does anything."""

import hashlib
import socket
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


class OtherRelease(CappyError):
    """A worker runs other code than the command that submitted the job."""


def code_of(root: Path) -> str:
    """The first 12 hex digits of a hash of the Python files of the project's packages below `root`, names and bytes."""
    found = hashlib.blake2b()
    for path in sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()}\n{len(content)}\n".encode() + content)
    return found.hexdigest()[:12]


@cache
def this_release() -> Release:
    """What runs here; looked at once in a process."""
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "not installed"
    return Release(version, code_of(_ROOT))


def check_release(submitted: Release) -> None:
    """Raises OtherRelease, naming both, where this worker does not run the code that `submitted` the job."""
    here = this_release()
    if here != submitted:
        raise OtherRelease(
            f"the worker on {socket.gethostname()} runs {here} from {_ROOT}, and the job was submitted by {submitted}. "
            "Install the submitter's code where the workers run and restart them, then give the same command again."
        )
