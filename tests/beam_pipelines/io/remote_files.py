"""A file system like those of clusters and object stores: URLs with a host, buffered files, errors of its own."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem


class NoCredentials(Exception):
    """As botocore's: no OSError."""


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.files[self.path][start:end]


class Remote(AbstractFileSystem):
    """`remote://host:port/path`; the host is no part of the path. Host `locked` lets nobody in."""

    protocol = "remote"
    cachable = False
    files: ClassVar[dict[str, bytes]] = {}

    def __init__(self, host: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._host = host

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return urlsplit(path).path if "://" in path else path

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return {"host": urlsplit(path).netloc}

    def _check(self) -> None:
        if self._host == "locked":
            raise NoCredentials("unable to locate credentials")

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self._check()
        path = self._strip_protocol(path)
        if path in self.files:
            return {"name": path, "size": len(self.files[path]), "type": "file"}
        if any(name.startswith(path.rstrip("/") + "/") for name in self.files):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        self._check()
        below = self._strip_protocol(path).rstrip("/") + "/"
        names = {below + name.removeprefix(below).split("/")[0] for name in self.files if name.startswith(below)}
        return [self.info(name) for name in sorted(names)] if detail else sorted(names)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        self._check()
        self.info(path)
        return _File(self, path, mode, block_size=100)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._check()
        self.files[path] = value
