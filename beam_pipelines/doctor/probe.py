"""The probe that runs on a worker: versions, devices, and access to files.

This file is sent to the worker as text, since the worker may have another version of the project, or none at all. So it
depends on nothing in the project, and imports within functions whatever may be missing.
"""

import json
import os
import platform
import socket
from collections.abc import Callable
from importlib import metadata
from typing import Any

METRIC = "cappy-doctor"


def report(request: str) -> None:
    """Put the answer to `request` into a Beam metric, which any runner brings back. Both are JSON.

    The request has `inputs` (patterns of files), `outputs` (files that hold their own URL), and the `storage` options.
    The answer has `host`, `python`, `beam`, `cappy` and `torch`, and `files`: the problem of each URL, or None.
    """
    from apache_beam.metrics import Metrics

    asked = json.loads(request)
    files = {url: _problem(read_first, url, asked["storage"]) for url in asked["inputs"]}
    files |= {url: _problem(confirm, url, asked["storage"]) for url in asked["outputs"]}
    host = {"host": socket.gethostname(), "python": platform.python_version(), "beam": metadata.version("apache-beam")}
    Metrics.string_set(METRIC, METRIC).add(json.dumps({**host, "cappy": _release(), "torch": _torch(), "files": files}))


def _release() -> list[str] | None:
    """Return version and code of the project; None if the worker lacks it."""
    try:
        from beam_pipelines.runs.release import this_release
    except ImportError:
        return None
    return list(this_release())


def _torch() -> list[str] | None:
    """Return the version of torch and the names of the CUDA devices; None without torch."""
    try:
        import torch
    except (ImportError, OSError):  # OSError if its libraries do not fit the machine
        return None
    return [torch.__version__, *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))]


def _problem(use: Callable[[str, dict[str, Any]], str | None], url: str, storage: dict[str, Any]) -> str | None:
    try:
        return use(url, storage)
    except Exception as error:  # every file system has errors of its own, and fsspec may be missing
        return f"{type(error).__name__}: {error}"


def _file_system(url: str, storage: dict[str, Any]) -> tuple[Any, str]:
    """Return the file system of an absolute path, which no character makes a URL, or of a URL."""
    from fsspec.core import url_to_fs

    return (url_to_fs("file:///", **storage)[0], url) if url.startswith("/") else url_to_fs(url, **storage)


def read_first(pattern: str, storage: dict[str, Any]) -> str | None:
    """Read from the first file that matches; return the problem, if any."""
    fs, path = _file_system(pattern, storage)
    found = [path] if fs.isfile(path) else [name for name in fs.glob(path) if not fs.isdir(name)]
    if not found:
        return "no file matches"
    with fs.open(found[0], "rb") as file:
        file.read(1)
    return None


def confirm(url: str, storage: dict[str, Any]) -> str | None:
    """Overwrite the file at `url` with the confirmation that it was seen; return the problem, if any."""
    fs, path = _file_system(url, storage)
    if not fs.exists(path) or os.fsdecode(fs.cat_file(path)) != url:
        return "the worker does not see the file that this machine wrote: it is not the same folder for both"
    fs.pipe_file(path, os.fsencode(confirmation(url)))
    return None


def confirmation(url: str) -> str:
    """Return the content of the file at `url` after a worker has seen it."""
    return f"{url} was seen"
