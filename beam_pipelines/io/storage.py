"""Files on any fsspec file system: finding them, reading them, and writing them whole."""

import io
import os
import posixpath
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import fsspec
import pyarrow as pa
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileOpener

from schemas.errors import CappyError

_WILDCARD = re.compile(r"[*?\[]")
_RENAMING = frozenset({"file", "local", "hdfs"})

StorageOptions = Mapping[str, Any]


class OutputError(CappyError):
    """A file cannot be written."""


@contextmanager
def explained(url: str, attempt: str) -> Iterator[None]:
    """Whatever fails inside becomes a CappyError: `url`, that it cannot be `attempt` ("read", say), and the reason.

    Each file system has errors of its own, for missing credentials above all.
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
    """The file system of `url` and the path on it. Raises CappyError when the protocol is unknown or not usable."""
    try:
        return url_to_fs(url, **options)
    except Exception as error:  # unknown, not installed, without credentials, given an option that it does not have
        raise CappyError(
            f"{url}: cannot be opened: {_reason(error)}. `cappy doctor` lists the file systems usable here."
        ) from error


def is_local(url: str) -> bool:
    """Whether `url` lies on a disk of this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def absolute(url: str, base: str = "") -> str:
    """`url` made absolute: against the folder `base` when one is given, else against the working directory."""
    if not is_local(url) or os.path.isabs(url):
        return url
    return join(base, url) if base and not is_local(base) else os.path.normpath(os.path.join(base or os.getcwd(), url))


def join(folder: str, *names: str) -> str:
    """The URL of a file below `folder`."""
    return posixpath.join(folder, *names)


def fixed_part(pattern: str) -> str:
    """What names are relative to: the pattern up to the last `/` before its first wildcard or the file's name."""
    wildcard = _WILDCARD.search(pattern)
    return pattern[: pattern.rfind("/", 0, wildcard.start() if wildcard else len(pattern)) + 1]


def find(pattern: str, options: StorageOptions) -> dict[str, str]:
    """The files that match `pattern` (a URL with `*`, `**`, `?` or `[...]`, or one file), sorted: URL -> name.

    Names are relative to the fixed part of the pattern. Raises CappyError when nothing matches, or when it is a folder.
    """
    fs, path = file_system(pattern, options)
    if is_local(pattern):
        path = os.path.normpath(path)
    with explained(pattern, "listed"):
        fs.invalidate_cache()  # the job before this one may have written there since this process last looked
        if fs.isdir(path):
            raise CappyError(
                f"{pattern}: is a folder; give a pattern of files, such as {pattern.rstrip('/')}/*.parquet"
            )
        found = [name for name in fs.glob(path) if not fs.isdir(name)] if _WILDCARD.search(path) else [path]
        if not found or not fs.exists(found[0]):
            raise CappyError(f"{pattern}: no file matches; check the path and the working directory")
    # Paths on a file system lack its protocol, and with some the host; what precedes the path in the pattern has both.
    before = "" if is_local(pattern) else pattern.removesuffix(path)
    if before == pattern:
        raise CappyError(f"{pattern}: is {path} on its file system; write the path like this in the URL")
    return {before + name: name.removeprefix(fixed_part(path)) for name in sorted(found)}


def open_file(url: str, options: StorageOptions, compression: str | None = None) -> IO[bytes]:
    """A readable binary file, decompressed on the way when `compression` is "gzip" or "zstd".

    Arrow decompresses, since it says so (OSError) when a stream breaks off, and reads all frames of one; the zstandard
    package does neither on its own. Raises OSError, and CappyError for errors that only this file system has.
    """
    fs, path = file_system(url, options)
    try:
        file: IO[bytes] = fs.open(path, "rb")
    except OSError:
        raise
    except Exception as error:
        raise CappyError(f"{url}: cannot be opened: {_reason(error)}") from error
    if compression is None and isinstance(file, io.BytesIO | LocalFileOpener):
        return file
    # What remote file systems open only looks like a file: `readline` takes no size, or reads byte by byte.
    raw = pa.PythonFile(file, "r")
    return io.BufferedReader(raw if compression is None else pa.CompressedInputStream(raw, compression))


def read_bytes(url: str, options: StorageOptions) -> bytes | None:
    """The whole content of a file, or None where there is no such file. Raises CappyError when it cannot be read."""
    fs, path = file_system(url, options)
    with explained(url, "read"):
        try:
            data: bytes = fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data


def write_whole(url: str, data: bytes, options: StorageOptions) -> None:
    """Writes a file so that a reader sees all of it or none of it, whatever happens in between.

    Local disks and HDFS: a temporary name beside the target, then a rename. Object stores: one put, atomic by itself.
    (fsspec's own transactions stage local files in the temporary directory, and a move across devices is not atomic.)
    Raises OutputError, naming the file and the system's reason.
    """
    _put(url, lambda fs, path: fs.pipe_file(path, data), options)


def check_writable(folder: str, options: StorageOptions) -> None:
    """Writes an empty file into a folder, and deletes it. Raises CappyError with the reason where that is not allowed.

    Its name is one that --overwrite deletes, should this process be killed in between.
    """
    fs, path = file_system(join(folder, "run"), options)
    probe = _temporary(path)
    with explained(folder, "written"):
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)


def copy_whole(source: str, url: str, options: StorageOptions) -> None:
    """As `write_whole`, of what a file on this machine holds; it need not fit into memory."""
    _put(url, lambda fs, path: fs.put_file(source, path), options)


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
    except Exception as error:  # see `explained`
        raise OutputError(
            f"{url}: cannot be written: {_reason(error)}. "
            "Free space or mend the permissions, then give the same command again."
        ) from error


def _temporary(path: str) -> str:
    """A new name beside that of a file."""
    return posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.{uuid.uuid4().hex}.tmp")


def _replace(fs: fsspec.AbstractFileSystem, temporary: str, path: str) -> None:
    if is_local(fs.unstrip_protocol(path)):
        os.replace(temporary, path)
    else:
        fs.mv(temporary, path)
