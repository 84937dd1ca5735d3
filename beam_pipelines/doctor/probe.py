"""What a worker says of itself and of the files that it reaches.

This file is sent to the worker as text, since the worker may have another version of the project, or none at all. So it
refers to nothing of the project, and imports what may be missing where it asks for it.
"""

import json
import platform
import socket
from collections.abc import Callable
from importlib import metadata
from typing import Any

METRIC = "cappy-doctor"


def report(asked: str) -> None:
    """Puts all that is `asked` of a worker, as JSON, into a Beam metric, which any runner brings back.

    Asked are `inputs` (patterns of files), `outputs` (files that hold their own URL), and the `storage` options. Told
    are `host`, `python`, `beam`, `cappy` and `torch`, and `files`: by URL what stands against using it, or None.
    """
    from apache_beam.metrics import Metrics

    wanted = json.loads(asked)
    files = {url: _problem(read_first, url, wanted["storage"]) for url in wanted["inputs"]}
    files |= {url: _problem(answer, url, wanted["storage"]) for url in wanted["outputs"]}
    told = {"host": socket.gethostname(), "python": platform.python_version(), "beam": metadata.version("apache-beam")}
    Metrics.string_set(METRIC, METRIC).add(json.dumps({**told, "cappy": _release(), "torch": _torch(), "files": files}))


def _release() -> list[str] | None:
    """Version and code of the project, where the worker has it."""
    try:
        from beam_pipelines.runs.release import this_release
    except ImportError:
        return None
    return list(this_release())


def _torch() -> list[str] | None:
    """The version of torch and the names of the CUDA devices; None without torch."""
    try:
        import torch
    except (ImportError, OSError):  # the latter where its libraries do not fit the machine
        return None
    return [torch.__version__, *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))]


def _problem(use: Callable[[str, dict[str, Any]], str | None], url: str, storage: dict[str, Any]) -> str | None:
    try:
        return use(url, storage)
    except Exception as error:  # every file system has errors of its own, and fsspec may not be there
        return f"{type(error).__name__}: {error}"


def read_first(pattern: str, storage: dict[str, Any]) -> str | None:
    """What stands against reading the first file that matches."""
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(pattern, **storage)
    found = [name for name in fs.glob(path) if not fs.isdir(name)]
    if not found:
        return "no file matches"
    with fs.open(found[0], "rb") as file:
        file.read(1)
    return None


def answer(url: str, storage: dict[str, Any]) -> str | None:
    """What stands against writing below the file at `url` that it was seen."""
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, **storage)
    if not fs.exists(path) or fs.cat_file(path).decode() != url:
        return "what this machine writes there the worker does not see: it is not the same folder for both"
    fs.pipe_file(path, answered(url).encode())
    return None


def answered(url: str) -> str:
    """What a file at `url` holds when a worker has seen it."""
    return f"{url} was seen"
