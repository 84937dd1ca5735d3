"""A run's life in its output folder: opened with run.json, continued, refused or recognised as done, and verified."""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.sinks import digest_of
from beam_pipelines.storage import OutputError, StorageOptions, file_system, is_local, join, read_bytes, write_whole
from schemas.errors import CappyError
from schemas.manifest import CARD, FAILURE, MANIFEST, REPORT, RUN, differences, fingerprint, to_json
from schemas.tally import FileEntry

_UNIT, _SHARD = r"part-(candidates-)?\d{5,}-\d{5,}-\d{5,}", r"shard-\d{5}-of-\d{5}"
_DATA = re.compile(rf"(\w+/)?({_UNIT}|{_SHARD})\.parquet")
_FILES = frozenset({RUN, MANIFEST, FAILURE, CARD, REPORT})
_LEFTOVER = re.compile(r"(\w+/)?\.(part|shard|run|manifest|failure|README|report).*\.tmp")
_LOCK = ".lock"
_SHOWN_DIFFERENCES = 5


class State(Enum):
    """What an output folder is to a run."""

    NEW = "new"
    CONTINUED = "continued"
    DONE = "done"


def open_run(output: str, run: Mapping[str, Any], *, overwrite: bool, storage: StorageOptions) -> State:
    """Claims the folder `output` for a run by writing its run.json there.

    `run` holds `facts`: all that shapes the bytes of the output. With `overwrite`, files of a former run go first.
    Raises CappyError when the folder holds something else than a run, or a run with other facts, naming what differs;
    OutputError when it cannot be written.
    """
    names = _names(output, storage)
    stored = read_bytes(join(output, RUN), storage)
    if stored is None and names:
        raise CappyError(f"{output}: holds {names[0]!r} and no {RUN}, so it is not ours; give an empty or new folder")
    before = None if stored is None else _decode(output, stored)
    if before and overwrite:
        _delete_run(output, names, storage)
        before, names = None, []
    if before:
        _refuse_other(output, before, run)
        if read_bytes(join(output, MANIFEST), storage) is not None:
            return State.DONE
    _delete(output, [name for name in names if name == FAILURE], storage)
    write_whole(join(output, RUN), to_json({**run, "fingerprint": fingerprint(run["facts"])}), storage)
    return State.CONTINUED if before else State.NEW


def _decode(output: str, stored: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(stored)
        if content["fingerprint"] == fingerprint(content["facts"]):
            return content
        fault = "its fingerprint is not that of its facts"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
    raise CappyError(f"{join(output, RUN)}: is damaged or not ours ({fault}); give an empty or new folder")


@contextmanager
def hold(output: str, storage: StorageOptions) -> Iterator[None]:
    """Keeps a second job off a folder on a local disk for as long as the block runs; a lock that dies with its process.

    Elsewhere there is no such lock: two jobs there write the same bytes twice. Raises CappyError when another has it,
    OutputError when the folder cannot be written.
    """
    if not is_local(output):
        yield
        return
    fs, path = file_system(output, storage)
    if fs.isfile(path):
        raise CappyError(f"{output}: is a file; --output wants a folder")
    try:
        fs.makedirs(path, exist_ok=True)
        lock = open(join(path, _LOCK), "w")  # noqa: SIM115
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written: {error.strerror}. Mend the permissions, or give another."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CappyError(
                f"{output}: another job is at work in it; wait for its end, or give another folder"
            ) from error
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                fs.rm_file(lock.name)


def close_run(output: str, storage: StorageOptions) -> None:
    """Deletes what killed writers have left beside the files of a finished run."""
    _delete(output, [name for name in _names(output, storage) if _LEFTOVER.fullmatch(name)], storage)


def _refuse_other(output: str, before: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    found = list(differences(before["facts"], json.loads(json.dumps(run["facts"]))))
    if found:
        more = f" and {len(found) - _SHOWN_DIFFERENCES} more" if len(found) > _SHOWN_DIFFERENCES else ""
        raise CappyError(
            f"{output}: holds another run: {'; '.join(found[:_SHOWN_DIFFERENCES])}{more}. "
            "Give another folder, or --overwrite to replace it."
        )


def _names(output: str, storage: StorageOptions) -> list[str]:
    """The files below a folder, relative to it, sorted."""
    fs, path = file_system(output, storage)
    if fs.isfile(path):
        raise CappyError(f"{output}: is a file; --output wants a folder")
    root = path.rstrip("/") + "/"
    names = sorted(name.removeprefix(root) for name in fs.find(path)) if fs.exists(path) else []
    return [name for name in names if name != _LOCK]


def _delete_run(output: str, names: list[str], storage: StorageOptions) -> None:
    """Deletes the files of a run, run.json last, so that an interrupted deletion is still a folder of ours."""
    within = _runs_within(names)
    _delete(output, [name for name in names if name != RUN and _is_ours(name, within)], storage)
    _delete(output, [RUN], storage)


def _runs_within(names: list[str]) -> tuple[str, ...]:
    """The folders, each with its `/`, below this one that hold a run of their own."""
    return tuple(name.removesuffix(RUN) for name in names if name.endswith(f"/{RUN}"))


def _is_ours(name: str, runs_within: tuple[str, ...]) -> bool:
    for folder in runs_within:
        name = name.removeprefix(folder)
    return name in _FILES or bool(_DATA.fullmatch(name) or _LEFTOVER.fullmatch(name))


def _delete(output: str, names: list[str], storage: StorageOptions) -> None:
    fs, path = file_system(output, storage)
    for name in names:
        fs.rm_file(join(path, name))


def load_manifest(output: str, storage: StorageOptions) -> dict[str, Any]:
    """The manifest of a finished run. Raises CappyError where there is none, saying what stands there instead."""
    data = read_bytes(join(output, MANIFEST), storage)
    if data is not None:
        return _parsed(output, MANIFEST, data, needed="files")
    failure = read_bytes(join(output, FAILURE), storage)
    if failure is not None:
        raise CappyError(f"{output}: the run failed: {_parsed(output, FAILURE, failure, needed='reason')['reason']}")
    if read_bytes(join(output, RUN), storage) is not None:
        raise CappyError(f"{output}: holds an unfinished run; give its command again to continue it")
    raise CappyError(f"{output}: holds no {MANIFEST}; give the output folder of a job")


def _parsed(output: str, name: str, data: bytes, *, needed: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(data)
        content[needed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CappyError(f"{join(output, name)}: is damaged ({type(error).__name__}: {error})") from error
    return content


def verify(output: str, storage: StorageOptions) -> list[str]:
    """What is wrong with a finished run's data files: missing, changed, not in the manifest. Empty when all is well."""
    try:
        entries = [FileEntry(**entry) for entry in load_manifest(output, storage)["files"]]
    except TypeError as error:
        raise CappyError(f"{join(output, MANIFEST)}: is damaged ({error})") from error
    faults = [fault for entry in entries if (fault := _fault(output, entry, storage))]
    listed, names = {entry.path for entry in entries}, _names(output, storage)
    mine = [name for name in names if _DATA.fullmatch(name) and not name.startswith(_runs_within(names))]
    return faults + [f"{name}: is not in the manifest" for name in mine if name not in listed]


def _fault(output: str, entry: FileEntry, storage: StorageOptions) -> str | None:
    """What is wrong with one file, if anything."""
    try:
        data = read_bytes(join(output, entry.path), storage)
    except CappyError as error:
        return f"{entry.path}: {error}"
    if data is None:
        return f"{entry.path}: is missing"
    if digest_of(data) != entry.digest:
        return f"{entry.path}: its digest is {digest_of(data)}, and the manifest says {entry.digest}"
    rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    return f"{entry.path}: has {rows} rows, and the manifest says {entry.rows}" if rows != entry.rows else None
