"""The files around training: weights, held-out instructions, and the folder of checkpoints with its remote copy."""

import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from beam_pipelines.io.inputs import Input
from beam_pipelines.io.storage import StorageOptions, copy_whole, explained, file_system, is_local, join, read_bytes
from beam_pipelines.io.units import list_reads, position_of, read_units
from beam_pipelines.runs.folder import load_manifest, refuse_foreign, refuse_to_delete
from cappy_model.host import cache_folder
from cappy_model.train.checkpoints import WHOLE, delete_checkpoints
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.manifest import MANIFEST, fingerprint
from schemas.records import is_text

CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints, below the output folder."""

_WEIGHT_COLUMNS = ("label_source", "dataset")


def read_weights(url: str, storage: StorageOptions) -> dict[str, dict[str, float]]:
    """Return the shares in a weights file, in [0, 1], by column and value. Raises UsageError for an invalid file."""
    data = read_bytes(url, storage)
    if data is None:
        raise UsageError(f"--weights {url}: there is no such file")
    try:
        content = yaml.safe_load(data) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"--weights {url}: is not YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UsageError(f"--weights {url}: must map {' and '.join(_WEIGHT_COLUMNS)} to names with a share each")
    unknown = [key for key in content if key not in _WEIGHT_COLUMNS]
    if unknown:
        raise UsageError(f"--weights {url}: {unknown[0]!r} is not known; there are {' and '.join(_WEIGHT_COLUMNS)}")
    for column, shares in content.items():
        for name, value in shares.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UsageError(
                    f"--weights {url}: {column} {name!r} is {value!r}; a weight is the share of the pairs that is "
                    "taken, between 0 and 1: divide all of them by the largest"
                )
    return {column: {str(name): float(value) for name, value in content[column].items()} for column in sorted(content)}


def held_out_instructions(found: Input) -> frozenset[int]:
    """Return the keys of all instructions in files.

    Raises CappyError for files without a text column `instruction`, and for a row that cannot be read.
    """
    from cappy_model.train.corpus import instruction_key

    names = found.schema.names
    if "instruction" not in names or not is_text(found.schema.field("instruction").type):
        raise CappyError(
            f"{found.files[0].url}: is held out, and has no text column 'instruction'; there are {', '.join(names)}"
        )
    spec = found.read_spec(pa.schema([found.schema.field("instruction")]), CHUNK_ROWS)
    keys: set[int] = set()
    for file in found.files:
        for read in list_reads(file, spec):
            for unit in read_units(read, spec):
                if unit.bad:
                    row = unit.bad[0]
                    raise CappyError(
                        f"{file.url}{position_of(file, row.position)}: is held out, and cannot be read: {row.reason}: "
                        f"{row.detail}"
                    )
                texts = unit.rows.column("instruction").drop_null().unique().to_pylist()
                keys.update(map(instruction_key, texts))
    return frozenset(keys)


def work_dir(output: str, hashed: Mapping[str, Any]) -> Path:
    """Return the local folder for checkpoints: below a local output folder, else in the cache.

    `hashed` are the fingerprint inputs, which name the folder in the cache.
    """
    if is_local(output):
        return Path(file_system(output, {})[1]) / CHECKPOINTS
    return cache_folder() / "training" / fingerprint({"output": output, "facts": hashed})


def delete_earlier_run(output: str, folder: Path, storage: StorageOptions, *, reading: Collection[str]) -> None:
    """Delete the model and the checkpoints of an earlier run in the output folder, and the local `folder`.

    Raises CappyError if the output folder is not that of a run, UsageError if a file of `reading` would be deleted.
    """
    names = refuse_foreign(output, storage)
    listed = [entry["path"] for entry in load_manifest(output, storage)["files"]] if MANIFEST in names else []
    fs, path = file_system(output, storage)
    earlier = [name for name in names if name in listed or name.startswith(f"{CHECKPOINTS}/")]
    refuse_to_delete(output, earlier, reading)
    for name in earlier:
        fs.rm_file(join(path, name))
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Mirror:
    """The checkpoints in a local `folder`, and their copies below a remote `output`; no copies if it is local."""

    folder: Path
    output: str
    storage: StorageOptions

    def push(self, checkpoint: Path) -> None:
        """Copy a complete checkpoint, its mark last, and delete the copies of those deleted here."""
        if is_local(self.output):
            return
        names = sorted((path.name for path in checkpoint.iterdir()), key=lambda name: (name == WHOLE, name))
        for name in names:
            copy_whole(str(checkpoint / name), self._url(checkpoint.name, name), self.storage)
        fs, _ = file_system(self.output, self.storage)
        with explained(self._url(), "tidied"):
            for path in self._copies():
                if not (self.folder / path.rpartition("/")[2]).is_dir():
                    fs.rm(path, recursive=True)

    def fetch(self) -> None:
        """Copy complete checkpoints that are missing here, which another machine wrote."""
        if is_local(self.output):
            return
        fs, _ = file_system(self.output, self.storage)
        with explained(self._url(), "fetched"):
            for path in self._copies():
                target = self.folder / path.rpartition("/")[2]
                if fs.exists(f"{path}/{WHOLE}") and not (target / WHOLE).is_file():
                    names = sorted(fs.find(path), key=lambda name: name.endswith(f"/{WHOLE}"))
                    target.mkdir(parents=True, exist_ok=True)
                    for name in names:
                        fs.get_file(name, str(target / name.rpartition("/")[2]))

    def delete(self) -> None:
        """Delete all checkpoints and their copies. The logs of experiment trackers stay."""
        from cappy_model.train.selection import Selection

        with explained(str(self.folder), "tidied"):
            Selection.delete(self.folder)
            delete_checkpoints(self.folder)
            with suppress(OSError):  # not empty
                self.folder.rmdir()
        if not is_local(self.output):
            fs, _ = file_system(self.output, self.storage)
            with explained(self._url(), "tidied"):
                for path in self._copies():
                    fs.rm(path, recursive=True)

    def _copies(self) -> list[str]:
        """Return the folders of the copies."""
        fs, path = file_system(self._url(), self.storage)
        fs.invalidate_cache()
        return [name.rstrip("/") for name in fs.ls(path, detail=False)] if fs.exists(path) else []

    def _url(self, *names: str) -> str:
        return join(self.output, CHECKPOINTS, *names)
