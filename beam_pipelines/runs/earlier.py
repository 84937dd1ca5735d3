"""The manifest that a run had before it went on: a file that it lists still has the same bytes when the run ends.

It is kept from the deletion of the manifest until the run has finished again, however often it is interrupted.
"""

import json
import posixpath
from collections.abc import Container, Mapping
from typing import Any

from beam_pipelines.io.storage import StorageOptions, join, read_bytes, write_whole
from schemas.errors import CappyError
from schemas.manifest import EARLIER, MANIFEST, to_json

_SHOWN = 3


def keep_manifest(output: str, storage: StorageOptions) -> None:
    """Copy the manifest of a run that goes on, unless that of an earlier launch is kept already."""
    manifest = read_bytes(join(output, MANIFEST), storage)
    if manifest is not None and read_bytes(join(output, EARLIER), storage) is None:
        write_whole(join(output, EARLIER), manifest, storage)


def forget_lost(output: str, names: Container[str], storage: StorageOptions) -> None:
    """Leave the files that are not among `names`, those of the folder, out of the kept manifest: they are rebuilt."""
    kept = read_bytes(join(output, EARLIER), storage)
    if kept is None:
        return
    manifest = json.loads(kept)
    files = [entry for entry in manifest["files"] if entry["path"] in names]
    if len(files) < len(manifest["files"]):
        write_whole(join(output, EARLIER), to_json({**manifest, "files": files}), storage)


def damaged_files(output: str, manifest: Mapping[str, Any], storage: StorageOptions) -> list[str]:
    """Return the files of a finished run that the kept manifest lists with another digest."""
    kept = read_bytes(join(output, EARLIER), storage)
    if kept is None:
        return []
    digests = {entry["path"]: entry["digest"] for entry in manifest["files"]}
    return [
        entry["path"]
        for entry in json.loads(kept)["files"]
        if digests.get(entry["path"], entry["digest"]) != entry["digest"]
    ]


def damage(output: str, paths: list[str], manifest: Mapping[str, Any]) -> CappyError:
    """Return the error for damaged files. Rejects are rebuilt with their unit."""
    faulty = {posixpath.basename(path) for path in paths}
    to_delete = [entry["path"] for entry in manifest["files"] if posixpath.basename(entry["path"]) in faulty]
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return CappyError(
        f"{output}: {', '.join(paths[:_SHOWN])}{more}: damaged, as the bytes are not those that the manifest listed; "
        f"delete {', '.join(to_delete[: 2 * _SHOWN])}{more}, and run the command again to rebuild"
    )
