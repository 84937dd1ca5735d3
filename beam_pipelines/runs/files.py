"""The files of a finished run, compared with its manifest: by listing their folders, or by reading all of them."""

import posixpath
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.io.storage import StorageOptions, explained, join, read_bytes
from beam_pipelines.runs.earlier import keep_manifest
from beam_pipelines.runs.folder import DATA, delete_files, load_manifest, names_below, open_folder, unlisted
from beam_pipelines.runs.job import JOBS
from schemas.errors import CappyError
from schemas.ids import digest_of
from schemas.manifest import MANIFEST
from schemas.stats import FileEntry

_SHOWN_FILES = 3
_REJECTS = "rejects/"


def lost_files(output: str, storage: StorageOptions) -> dict[str, str]:
    """Return the files of a finished run that are missing or have another size, each with its fault.

    Lists the folders that the files are in, and reads no file but the manifest. Raises CappyError if there is no
    manifest, or if a folder cannot be listed.
    """
    entries = _entries(output, load_manifest(output, storage))
    sizes = _sizes(output, {posixpath.dirname(entry.path) for entry in entries}, storage)
    faults = {}
    for entry in entries:
        if entry.path not in sizes:
            faults[entry.path] = "is missing"
        elif sizes[entry.path] not in (None, entry.bytes):
            faults[entry.path] = f"has {sizes[entry.path]:,} bytes, and the manifest says {entry.bytes:,}"
    return faults


def describe_lost(lost: Mapping[str, str]) -> str:
    """Describe lost files, the first few by name: "a.parquet is missing, b.parquet is missing and 7 more"."""
    shown = ", ".join(f"{name} {fault}" for name, fault in list(lost.items())[:_SHOWN_FILES])
    return shown + (f" and {len(lost) - _SHOWN_FILES:,} more" if len(lost) > _SHOWN_FILES else "")


def remedy_for_lost(manifest: Mapping[str, Any]) -> str:
    """Return what to do about lost files of a run, a clause."""
    job = JOBS.get(manifest.get("job", ""))
    if job is not None and manifest.get("format_version", job.format_version) < job.format_version:
        return (
            "an earlier version of cappy wrote the run, so what is lost cannot be rebuilt; run the job's command again "
            "with another folder, or with --overwrite"
        )
    return "run the job's command again to rebuild what is lost"


def discard_lost(output: str, lost: Mapping[str, str], storage: StorageOptions, *, keep: bool = False) -> None:
    """Make a finished run with lost files unfinished, so that its job rebuilds them.

    Deletes the manifest, what is left of lost files, and units whose rejects are lost: rejects are written with their
    unit. With `keep`, the job rebuilds nothing else: the manifest is kept to compare the other files with.
    """
    if keep:
        keep_manifest(output, storage)
    faulty = {posixpath.basename(name) for name in lost if name.startswith(_REJECTS)}
    paths = [entry.path for entry in _entries(output, load_manifest(output, storage))]
    units = [path for path in paths if posixpath.basename(path) in faulty]
    delete_files(output, [MANIFEST, *(name for name in (*lost, *units) if DATA.fullmatch(name))], storage)


def _sizes(output: str, folders: Collection[str], storage: StorageOptions) -> dict[str, int | None]:
    """Return the sizes of the files that are directly in `folders` below `output`; None where a listing has none."""
    fs, path = open_folder(output, storage)
    sizes: dict[str, int | None] = {}
    for folder in folders:
        with explained(join(output, folder), "listed"), suppress(FileNotFoundError, NotADirectoryError):
            fs.invalidate_cache()  # an earlier job of this process may have written there since the last listing
            for details in fs.ls(join(path, folder).rstrip("/"), detail=True):
                if details["type"] != "directory":
                    sizes[join(folder, posixpath.basename(details["name"]))] = details.get("size")
    return sizes


def verify(output: str, storage: StorageOptions) -> list[str]:
    """Return the faults of a finished run's data files: missing, changed, or not in the manifest."""
    entries = _entries(output, load_manifest(output, storage))
    faults = [fault for entry in entries if (fault := _fault(output, entry, storage))]
    others = unlisted(names_below(output, storage), {entry.path for entry in entries})
    return faults + [f"{name}: is not in the manifest" for name in others]


def _entries(output: str, manifest: Mapping[str, Any]) -> list[FileEntry]:
    try:
        return [FileEntry(**entry) for entry in manifest["files"]]
    except TypeError as error:
        raise CappyError(f"{join(output, MANIFEST)}: is damaged ({error})") from error


def _fault(output: str, entry: FileEntry, storage: StorageOptions) -> str | None:
    """Return the fault of one file, if any."""
    try:
        data = read_bytes(join(output, entry.path), storage)
    except CappyError as error:
        return f"{entry.path}: {error}"
    if data is None:
        return f"{entry.path}: is missing"
    if digest_of(data) != entry.digest:
        return f"{entry.path}: its digest is {digest_of(data)}, and the manifest says {entry.digest}"
    if not entry.path.endswith(".parquet"):
        return None
    rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    return f"{entry.path}: has {rows} rows, and the manifest says {entry.rows}" if rows != entry.rows else None
