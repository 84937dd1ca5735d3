"""Files on any fsspec file system: find, read, and write them atomically."""

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
        return url_to_fs(url, **options)
    except Exception as error:  # unknown or not installed protocol, no credentials, unknown option
        raise CappyError(
            f"{url}: cannot be opened: {_reason(error)}. `cappy doctor` lists the file systems usable here."
        ) from error


def is_local(url: str) -> bool:
    """Return whether `url` is a path on this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def absolute(url: str, base: str = "") -> str:
    """Resolve a relative path against the folder `base`, by default the working directory."""
    if not is_local(url) or os.path.isabs(url):
        return url
    return join(base, url) if base and not is_local(base) else os.path.normpath(os.path.join(base or os.getcwd(), url))


def join(folder: str, *names: str) -> str:
    """Return the URL of a file below `folder`."""
    return posixpath.join(folder, *names)


def fixed_part(pattern: str) -> str:
    """Return the part of a pattern that file names are relative to.

    It ends with the last `/` before the first wildcard or, without wildcards, before the name of the file.
    """
    wildcard = _WILDCARD.search(pattern)
    return pattern[: pattern.rfind("/", 0, wildcard.start() if wildcard else len(pattern)) + 1]


def find(pattern: str, options: StorageOptions, *, outside: str | None = None) -> dict[str, str]:
    """Find the files that match a pattern; return URL -> name, sorted by URL.

    Args:
      pattern: a URL with `*`, `**`, `?` or `[...]`, or one file. Names are relative to its fixed part.
      options: options for fsspec.

    Raises CappyError if no file matches, or if the pattern is a folder.
    """
    fs, path = file_system(pattern, options)
    if is_local(pattern):
        path = os.path.normpath(path)
    with explained(pattern, "listed"):
        fs.invalidate_cache()  # an earlier job of this process may have written there since the last listing
        if fs.isdir(path):
            raise CappyError(
                f"{pattern}: is a folder; give a pattern of files, such as {pattern.rstrip('/')}/*.parquet"
            )
        matches = [name for name in fs.glob(path) if not fs.isdir(name)] if _WILDCARD.search(path) else [path]
        if not matches or not fs.exists(matches[0]):
            raise CappyError(f"{pattern}: no file matches; check the path and the working directory")
    # fsspec strips the protocol from paths, and for some file systems the host; the pattern has both as its prefix.
    prefix = "" if is_local(pattern) else pattern.removesuffix(path)
    if prefix == pattern:
        raise CappyError(f"{pattern}: its file system names this path {path}; write it the same way in the URL")
    return {prefix + name: name.removeprefix(fixed_part(path)) for name in sorted(matches)}


def open_file(url: str, options: StorageOptions, compression: str | None = None) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if `compression` is "gzip" or "zstd".

    Arrow decompresses, because it raises OSError for a truncated stream and reads all frames of a stream; the zstandard
    package does neither by default. Raises OSError, and CappyError for other exceptions of the file system.
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
    # The file objects of remote file systems are incomplete: `readline` takes no size, or reads byte by byte.
    raw = pa.PythonFile(file, "r")
    return io.BufferedReader(raw if compression is None else pa.CompressedInputStream(raw, compression))


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
        raise OutputError(
            f"{url}: cannot be written: {_reason(error)}. "
            "Free space or fix the permissions, then run the same command again."
        ) from error


def _temporary(path: str) -> str:
    """Return an unused path in the folder of `path`."""
    return posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.{uuid.uuid4().hex}.tmp")


def _replace(fs: fsspec.AbstractFileSystem, temporary: str, path: str) -> None:
    if is_local(fs.unstrip_protocol(path)):
        os.replace(temporary, path)
    else:
        fs.mv(temporary, path)
