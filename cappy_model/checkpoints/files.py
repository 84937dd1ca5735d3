"""The files that make up a model: which of a folder's files they are, their hash, and copies of them from a URL."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from cappy_model.checkpoints.source import ModelError, ModelSource
from cappy_model.host import cache_folder
from cappy_model.paths import file_system
from schemas.ids import digest
from schemas.manifest import MANIFEST, METRICS, RUN

MODULES = "modules.json"
"""The list of modules that sentence-transformers writes; it names their folders."""
CHAT_TEMPLATES = "additional_chat_templates"
"""The folder of chat templates beside the default one."""
TEMPLATE = "*.jinja"

_SAFE = ("*.safetensors", "*.json", "*.txt", "*.model", TEMPLATE)
_PICKLED = ("*.bin", "*.pt")
_CODE = ("*.py",)
_WEIGHTS = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.ot", "*.tflite"),
)
_NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt"})
_ABOUT_RUN = frozenset({RUN, MANIFEST, METRICS})  # written by training next to the model, not part of it
_BLOCK = 2**20


def patterns(source: ModelSource) -> tuple[str, ...]:
    """Return the patterns of the names of files that may be loaded."""
    return _SAFE + (_PICKLED if source.allow_pickle else ()) + (_CODE if source.trust_remote_code else ())


def matches(name: str, wanted: Iterable[str]) -> bool:
    """Return whether the last part of a path matches one of the patterns."""
    return any(fnmatchcase(PurePosixPath(name).name, pattern) for pattern in wanted)


def is_weights(name: str) -> bool:
    """Return whether a file holds weights of any format, by its name."""
    return matches(name, _WEIGHTS) and PurePosixPath(name).name not in _NO_WEIGHTS


def module_folders(source: ModelSource, content: bytes) -> list[str]:
    """Return the folders that a modules.json names, relative to its own. Raises ModelError for a damaged one."""
    try:
        paths = [str(module["path"]) for module in json.loads(content)]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source.name}: its {MODULES} is no list of modules with a `path` each") from error
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ModelError(f"{source.name}: its {MODULES} names {path!r}, which is not below the model's folder")
    return [str(PurePosixPath(path)) for path in paths if path not in ("", ".")]


def content_hash(source: ModelSource, folder: Path) -> str:
    """Return a hash of the names and contents of a model's files."""

    def below(part: str, depth: int | None) -> Iterable[str]:
        paths = (folder / part).iterdir() if depth == 1 else (folder / part).rglob("*")
        return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]

    state = hashlib.blake2b(digest_size=16)
    for name in _content(source, below, lambda name: (folder / name).read_bytes()):
        state.update(digest(name, str((folder / name).stat().st_size)).encode())
        with (folder / name).open("rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
    return state.hexdigest()


def _content(
    source: ModelSource, below: Callable[[str, int | None], Iterable[str]], read: Callable[[str], bytes]
) -> list[str]:
    """Return the sorted names of a model's files, relative to its folder.

    They are the files of the folder itself, the chat templates, and those of the folders that its modules.json names;
    not other folders, such as those of a trainer's checkpoints. `below` lists the files below a folder down to a depth
    (None: all), and none if there is no such folder.
    """
    wanted = patterns(source)
    names = {name for name in below("", 1) if matches(name, wanted) and name not in _ABOUT_RUN}
    if MODULES in names:
        for part in module_folders(source, read(MODULES)):
            names |= {name for name in below(part, None) if matches(name, wanted)}
    names |= {name for name in below(CHAT_TEMPLATES, None) if matches(name, (TEMPLATE,))}
    return sorted(names)


class RemoteFolder:
    """A folder on an fsspec file system."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._fs, root = file_system(source.name, source.storage)
        self._root = root.rstrip("/")

    def below(self, part: str, depth: int | None) -> list[str]:
        """Return the files below a folder, by their path relative to the root."""
        found: Any = self._fs.find(f"{self._root}/{part}".rstrip("/"), maxdepth=depth)
        return [str(name)[len(self._root) + 1 :] for name in found]

    def copy(self) -> Path:
        """Copy the model's files into the cache of this machine, once for each state of them."""
        names = _content(self._source, self.below, lambda name: bytes(self._fs.cat_file(f"{self._root}/{name}")))
        if not names:
            raise ModelError(f"{self._source.name}: has no model files")
        paths = [f"{self._root}/{name}" for name in names]
        state = digest(self._source.name, *(f"{path} {self._fs.ukey(path)}" for path in paths))
        cache = cache_folder() / "models"
        target, fresh = cache / state, cache / f"{state}.{uuid.uuid4().hex}"
        if target.is_dir():
            return target
        for name, path in zip(names, paths, strict=True):
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(path, str(fresh / name))
        try:
            fresh.rename(target)
        except OSError:
            shutil.rmtree(fresh)  # another process was faster
        return target
