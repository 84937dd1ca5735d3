"""The lock of an output folder: one job at a time writes there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from beam_pipelines.io.storage import OutputError, StorageOptions, is_local, join
from beam_pipelines.runs.folder import open_folder
from schemas.errors import CappyError
from schemas.manifest import LOCK


@contextmanager
def hold(output: str, storage: StorageOptions) -> Iterator[None]:
    """Lock a folder on a local disk against other jobs while the block runs; the lock ends with its process.

    Elsewhere there is no such lock: two jobs write the same bytes twice. Raises CappyError if another job holds the
    lock, OutputError if the folder cannot be written.
    """
    if not is_local(output):
        yield
        return
    fs, path = open_folder(output, storage)
    try:
        fs.makedirs(path, exist_ok=True)
        lock = open(join(path, LOCK), "w")  # noqa: SIM115
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written: {error.strerror}. Fix the permissions, or give another folder."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CappyError(
                f"{output}: another job is running in it; wait for its end, or give another folder"
            ) from error
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                fs.rm_file(lock.name)
