"""`store://`: fsspec's memory under another name, in place of an object store, where runs keep their files."""

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Store(MemoryFileSystem):
    """The file system of `store://`."""

    protocol = "store"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("store://"))
        return stripped


fsspec.register_implementation("store", Store, clobber=True)
