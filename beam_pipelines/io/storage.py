"""Files on any fsspec file system: read them, and write them atomically."""

import fcntl
import io
import os
import posixpath
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape, glob
from tempfile import gettempdir
from typing import IO, Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileOpener

from cappy_model import paths
from cappy_model.paths import absolute, is_local, path_of
from schemas.errors import CappyError, UsageError

__all__ = [
    "OutputError",
    "StorageOptions",
    "absolute",
    "check_writable",
    "copy_whole",
    "explained",
    "file_system",
    "is_local",
    "join",
    "open_file",
    "path_of",
    "read_bytes",
    "write_whole",
    "written_whole",
]

_RENAMING = frozenset({"file", "local", "hdfs"})

StorageOptions = Mapping[str, Any]


class OutputError(CappyError):
    """A file cannot be written."""


@contextmanager
def explained(url: str, attempt: str) -> Iterator[None]:
    """Turn any error inside the block into a CappyError: "`url`: cannot be `attempt`: reason".

    File systems raise exceptions of their own, most often for missing credentials, so this catches all of them.

    Args:
      url: the file or folder.
      attempt: a participle, such as "read".
    """
    try:
        yield
    except CappyError:
        raise
    except Exception as error:
        raise CappyError(f"{url}: cannot be {attempt}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"


def file_system(url: str, options: StorageOptions) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of `url` and the path on it. Raises CappyError for an unknown or unusable protocol."""
    try:
        return paths.file_system(url, options)
    except UsageError:
        raise
    except Exception as error:  # unknown or not installed protocol, no credentials, unknown option
        raise CappyError(
            f"{url}: cannot be opened: {_reason(error)}. `cappy doctor` lists the file systems usable here."
        ) from error


def join(folder: str, *names: str) -> str:
    """Return the URL of a file below `folder`."""
    return posixpath.join(folder, *names)


def open_file(url: str, options: StorageOptions) -> IO[bytes]:
    """Open a file for reading bytes. Raises OSError, and CappyError for other exceptions of the file system."""
    fs, path = file_system(url, options)
    try:
        file: IO[bytes] = fs.open(path, "rb")
    except OSError:
        raise
    except Exception as error:
        raise CappyError(f"{url}: cannot be opened: {_reason(error)}") from error
    if isinstance(file, io.BytesIO | LocalFileOpener):
        return file
    # The file objects of remote file systems are incomplete: `readline` takes no size, or reads byte by byte.
    return io.BufferedReader(pa.PythonFile(file, "r"))


def read_bytes(url: str, options: StorageOptions) -> bytes | None:
    """Return the content of a file, or None if it does not exist. Raises CappyError if it cannot be read."""
    fs, path = file_system(url, options)
    with explained(url, "read"):
        try:
            data: bytes = fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data


def write_whole(url: str, data: bytes, options: StorageOptions) -> None:
    """Write a file atomically: readers see all of it or nothing.

    On local disks and HDFS the bytes go to a temporary file in the same folder, which is then renamed. On object stores
    one put is atomic by itself. (fsspec's own transactions stage local files in the system's temporary directory, and a
    move across devices is not atomic.) Raises OutputError with the file and the system's reason.
    """
    _put(url, lambda fs, path: fs.pipe_file(path, data), options)


def check_writable(folder: str, options: StorageOptions) -> None:
    """Write an empty file into a folder and delete it. Raises CappyError with the reason if either fails.

    If this process is killed in between, --overwrite deletes the file: its name is that of a temporary file.
    """
    fs, path = file_system(join(folder, "run"), options)
    probe = _temporary(path)
    with explained(folder, "written"):
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)


def copy_whole(source: str, url: str, options: StorageOptions) -> None:
    """Copy the local file `source` to `url` atomically, as `write_whole`, without loading it into memory."""
    _put(url, lambda fs, path: fs.put_file(source, path), options)


@contextmanager
def written_whole(url: str, options: StorageOptions) -> Iterator[IO[bytes]]:
    """Yield a binary file to write, which replaces the one at `url` when the block ends, or not at all if it raises.

    It holds nothing in memory: the bytes go to a temporary file, beside the target on a local disk, else in the
    system's temporary folder, from where they are copied. Raises OutputError with the file and the system's reason;
    errors of the block's own pass through.
    """
    fs, path = file_system(url, options)
    local = is_local(url)
    name = _temporary(path) if local else posixpath.join(gettempdir(), f"cappy-{uuid.uuid4().hex}.tmp")
    with _writing(url):
        if local:
            fs.makedirs(posixpath.dirname(path), exist_ok=True)
            _remove_leftovers(path)
        file = _Target(name, url)
    try:
        with io.BufferedWriter(file) as buffered:
            yield buffered
        if local:
            with _writing(url):
                os.replace(name, path)
        else:
            copy_whole(name, url, options)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


class _Target(io.FileIO):
    """A new file whose errors name the output that it is to become; it is locked while it is open."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, "w")
        self._url = url
        with suppress(OSError):  # not all file systems have locks
            fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: Any, /) -> int:
        with _writing(self._url):
            return super().write(data)

    def close(self) -> None:
        with _writing(self._url):
            super().close()


@contextmanager
def _writing(url: str) -> Iterator[None]:
    """Turn an OSError inside the block into an OutputError about `url`."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(url, error) from error


def _cannot_write(url: str, error: Exception) -> OutputError:
    remedy = "Free space or fix the permissions, then run the same command again."
    if isinstance(error, IsADirectoryError):
        remedy = "Give the name of a file."
    return OutputError(f"{url}: cannot be written: {_reason(error)}. {remedy}")


def _put(url: str, write: Callable[[fsspec.AbstractFileSystem, str], object], options: StorageOptions) -> None:
    fs, path = file_system(url, options)
    try:
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        if not _RENAMING.intersection((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol):
            write(fs, path)
            return
        temporary = _temporary(path)
        try:
            write(fs, temporary)
            _replace(fs, temporary, path)
        except OSError:
            if fs.exists(temporary):
                fs.rm_file(temporary)
            raise
    except Exception as error:  # of any kind, see `explained`
        raise _cannot_write(url, error) from error


def _temporary(path: str) -> str:
    """Return an unused path in the folder of `path`."""
    return posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.{uuid.uuid4().hex}.tmp")


def _remove_leftovers(path: str) -> None:
    """Delete the temporary files of `written_whole` for `path` that no process has locked: theirs was killed."""
    folder, name = posixpath.split(path)
    for leftover in glob(posixpath.join(escape(folder), f".{escape(name)}.{'[0-9a-f]' * 32}.tmp")):
        with suppress(OSError), open(leftover, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(leftover)


def _replace(fs: fsspec.AbstractFileSystem, temporary: str, path: str) -> None:
    if is_local(fs.unstrip_protocol(path)):
        os.replace(temporary, path)
    else:
        fs.mv(temporary, path)
