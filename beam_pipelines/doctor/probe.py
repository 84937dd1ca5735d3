"""What a worker says of itself and of the files that it reaches."""

import json
import platform
import socket
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_pipelines.doctor.loading import load
from beam_pipelines.release import this_release
from beam_pipelines.storage import StorageOptions, explained, find, open_file, read_bytes, write_whole
from schemas.errors import CappyError

METRIC = "cappy-doctor"


# A DoFn and not a function: Beam pickles a class by its name, so that no bytecode reaches a worker with another Python,
# and a worker without this project fails as it would in a job, with an error that `remote.remedy` knows.
class Probe(beam.DoFn):
    """Puts what a worker is into a metric, as JSON: any runner brings that back.

    Looked at are `inputs` (patterns of files) and `outputs` (files that hold their own URL). Told are `host`, `python`,
    `beam`, `cappy`, `torch` (its version and the names of the CUDA devices; None without it), and `files`: by URL what
    stands against using it, or None.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], storage: StorageOptions) -> None:
        self._inputs, self._outputs, self._storage = inputs, outputs, storage

    def process(self, element: object) -> None:
        """Looks, whatever the element."""
        files = {url: _problem(_read_first, url, self._storage) for url in self._inputs}
        files |= {url: _problem(_answer, url, self._storage) for url in self._outputs}
        told = {"host": socket.gethostname(), "python": platform.python_version(), "beam": beam.__version__}
        told |= {"cappy": this_release(), "torch": _torch(), "files": files}
        Metrics.string_set(METRIC, METRIC).add(json.dumps(told))


def _torch() -> list[str] | None:
    torch, _ = load("torch")
    if torch is None:
        return None
    return [torch.__version__, *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))]


def _problem(use: Callable[[str, StorageOptions], None], url: str, storage: StorageOptions) -> str | None:
    try:
        use(url, storage)
    except CappyError as error:
        return str(error)
    return None


def _read_first(pattern: str, storage: StorageOptions) -> None:
    """Reads a byte of the first file that matches. Raises CappyError."""
    url = next(iter(find(pattern, storage)))
    with explained(url, "read"), open_file(url, storage) as file:
        file.read(1)


def _answer(url: str, storage: StorageOptions) -> None:
    """Writes into the file at `url` that it was seen. Raises CappyError."""
    if read_bytes(url, storage) != url.encode():
        raise CappyError("what this machine writes there the worker does not see: it is not the same folder for both")
    write_whole(url, answered(url), storage)


def answered(url: str) -> bytes:
    """What the file at `url` holds when a worker has seen it."""
    return f"{url} was seen".encode()
