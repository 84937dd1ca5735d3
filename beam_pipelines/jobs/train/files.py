"""The files around training: weights, held-out instructions, the folder of checkpoints, and its copy elsewhere."""

import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.storage import (
    StorageOptions,
    copy_whole,
    explained,
    file_system,
    is_local,
    join,
    read_bytes,
)
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.runs.folder import load_manifest, refuse_foreign, refuse_to_delete
from cappy_model.host import cache_folder
from cappy_model.train.checkpoints import WHOLE, delete_checkpoints
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.manifest import MANIFEST, fingerprint
from schemas.records import is_text

CHECKPOINTS = "checkpoints"
"""Where a run's checkpoints stand below its output folder."""

_WEIGHED = ("label_source", "dataset")


def read_weights(url: str, storage: StorageOptions) -> dict[str, dict[str, float]]:
    """The shares of a weights file, by column and value. Raises UsageError for one that is none."""
    data = read_bytes(url, storage)
    if data is None:
        raise UsageError(f"--weights {url}: there is no such file")
    try:
        content = yaml.safe_load(data) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"--weights {url}: is not YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UsageError(f"--weights {url}: must map {' and '.join(_WEIGHED)} to names with a share each")
    unknown = [key for key in content if key not in _WEIGHED]
    if unknown:
        raise UsageError(f"--weights {url}: {unknown[0]!r} is not known; there are {' and '.join(_WEIGHED)}")
    for column, shares in content.items():
        for name, value in shares.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UsageError(
                    f"--weights {url}: {column} {name!r} is {value!r}; a weight is the share of the pairs that is "
                    "taken, between 0 and 1: divide all of them by the largest"
                )
    return {column: {str(name): float(value) for name, value in content[column].items()} for column in sorted(content)}


def held_out_instructions(found: Input) -> frozenset[int]:
    """The keys of all instructions in some files. Raises CappyError where they have no column of them."""
    from cappy_model.train.split import instruction_key

    names = found.schema.names
    if "instruction" not in names or not is_text(found.schema.field("instruction").type):
        raise CappyError(
            f"{found.files[0].url}: is held out, and has no text column 'instruction'; there are {', '.join(names)}"
        )
    wanted = ReadSpec(pa.schema([found.schema.field("instruction")]), CHUNK_ROWS)
    keys: set[int] = set()
    for file in found.files:
        for read in list_reads(file, CHUNK_ROWS):
            for unit in read_units(read, wanted):
                if unit.bad:
                    row = unit.bad[0]
                    raise CappyError(
                        f"{file.url}#{row.position}: is held out, and cannot be read: {row.reason}: {row.detail}"
                    )
                texts = unit.rows.column("instruction").drop_null().unique().to_pylist()
                keys.update(map(instruction_key, texts))
    return frozenset(keys)


def work_dir(output: str, facts: Mapping[str, Any]) -> Path:
    """Where checkpoints are written on this machine: below the output folder, or in the cache for one elsewhere."""
    if is_local(output):
        return Path(file_system(output, {})[1]) / CHECKPOINTS
    return cache_folder() / "training" / fingerprint({"output": output, "facts": facts})


def delete_former(output: str, folder: Path, storage: StorageOptions, *, reading: Collection[str]) -> None:
    """Deletes the model and the checkpoints of a former run, and what one has left in the work_dir `folder`, if the
    output folder is a run's. Raises CappyError if it is not, UsageError where a file that this run is `reading` would
    go."""
    names = refuse_foreign(output, storage)
    listed = [entry["path"] for entry in load_manifest(output, storage)["files"]] if MANIFEST in names else []
    fs, path = file_system(output, storage)
    former = [name for name in names if name in listed or name.startswith(f"{CHECKPOINTS}/")]
    refuse_to_delete(output, former, reading)
    for name in former:
        fs.rm_file(join(path, name))
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Mirror:
    """The checkpoints of a `folder` of this machine, and their copies below an `output` that is elsewhere."""

    folder: Path
    output: str
    storage: StorageOptions

    def push(self, checkpoint: Path) -> None:
        """Copies a whole checkpoint, its mark last, and deletes the copies of those that are gone here."""
        if is_local(self.output):
            return
        names = sorted((path.name for path in checkpoint.iterdir()), key=lambda name: (name == WHOLE, name))
        for name in names:
            copy_whole(str(checkpoint / name), self._url(checkpoint.name, name), self.storage)
        fs, _ = file_system(self.output, self.storage)
        with explained(self._url(), "tidied"):
            for path in self._there():
                if not (self.folder / path.rpartition("/")[2]).is_dir():
                    fs.rm(path, recursive=True)

    def fetch(self) -> None:
        """Copies here the whole checkpoints that are not here yet: those that another machine has left."""
        if is_local(self.output):
            return
        fs, _ = file_system(self.output, self.storage)
        with explained(self._url(), "fetched"):
            for path in self._there():
                target = self.folder / path.rpartition("/")[2]
                if fs.exists(f"{path}/{WHOLE}") and not (target / WHOLE).is_file():
                    names = sorted(fs.find(path), key=lambda name: name.endswith(f"/{WHOLE}"))
                    target.mkdir(parents=True, exist_ok=True)
                    for name in names:
                        fs.get_file(name, str(target / name.rpartition("/")[2]))

    def delete(self) -> None:
        """Deletes the checkpoints of a finished run, here and there. What integrations have logged here stays."""
        from cappy_model.train.split import Selection

        with explained(str(self.folder), "tidied"):
            Selection.delete(self.folder)
            delete_checkpoints(self.folder)
            with suppress(OSError):  # it is not empty
                self.folder.rmdir()
        if not is_local(self.output):
            fs, _ = file_system(self.output, self.storage)
            with explained(self._url(), "tidied"):
                for path in self._there():
                    fs.rm(path, recursive=True)

    def _there(self) -> list[str]:
        """The folders of the copies."""
        fs, path = file_system(self._url(), self.storage)
        fs.invalidate_cache()
        return [name.rstrip("/") for name in fs.ls(path, detail=False)] if fs.exists(path) else []

    def _url(self, *names: str) -> str:
        return join(self.output, CHECKPOINTS, *names)
