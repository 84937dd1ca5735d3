"""The output folder of a run: opened with run.json or refused, recognised as finished, and closed."""

import json
import posixpath
import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import fsspec

from beam_pipelines.io.storage import (
    StorageOptions,
    file_system,
    join,
    read_bytes,
    write_whole,
)
from beam_pipelines.runs.earlier import damage, damaged_files, forget_lost, keep_manifest
from beam_pipelines.runs.growth import Standing, compare, growth_after, launched, older_form, version_of
from beam_pipelines.runs.job import JOBS
from cappy_model.paths import shareable_values
from schemas.errors import CappyError, UsageError
from schemas.manifest import CARD, EARLIER, FAILURE, LOCK, MANIFEST, METRICS, REPORT, RUN, fingerprint, to_json

_UNIT, _SHARD = r"part-(candidates-)?\d{5,}-\d{5,}-\d{5,}", r"shard-\d{5}-of-\d{5}"
DATA = re.compile(rf"(\w+/)?({_UNIT}|{_SHARD})\.parquet|metrics\.parquet")
"""The names of the data files of pipeline jobs."""
_NUMBERED = re.compile(r"(?:\w+/)?part-(\d{5,})-\d{5,}-\d{5,}\.parquet")
_OTHER = re.compile("|".join(map(re.escape, (MANIFEST, EARLIER, FAILURE, CARD, REPORT, METRICS))))
_LEFTOVER = re.compile(r"(\w+/)?\.(part|shard|metrics|run|manifest|failure|README|report).*\.tmp")


def describe_run(fingerprint_inputs: Mapping[str, Any], config: Any, *, grows: bool = False) -> dict[str, Any]:
    """Return the content of run.json: job, configuration (a dataclass) without secrets, and fingerprint inputs.

    With `grows`, files may be added to the run later, and `growth` says which launch added what.
    """
    configuration = shareable_values({**asdict(config), "storage": sorted(config.storage)})
    run = {"job": fingerprint_inputs["job"], "configuration": configuration, "facts": fingerprint_inputs}
    if not grows:
        return run
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    launch = launched(fingerprint_inputs["files"], begun, fingerprint_inputs.get("reuse", ()))
    return {**run, "growth": [launch]}


def standing_of(output: str, run: Mapping[str, Any], storage: StorageOptions) -> Standing:
    """Return how a run stands in the folder `output`, whatever became of its data files since. Writes nothing.

    `run` comes from `describe_run`. Raises CappyError if the folder holds a run with other fingerprint inputs, naming
    the differences.
    """
    open_folder(output, storage)
    stored = read_bytes(join(output, RUN), storage)
    return _compare(output, _decode(output, stored), run, storage) if stored is not None else Standing()


def is_finished(output: str, run: Mapping[str, Any], storage: StorageOptions) -> bool:
    """Return whether the folder `output` holds this run, finished. Raises CappyError as `standing_of` does."""
    return standing_of(output, run, storage).done


def open_run(
    output: str, run: Mapping[str, Any], *, overwrite: bool, storage: StorageOptions, reading: Collection[str] = ()
) -> list[str]:
    """Claim the folder `output` for a run (see `standing_of`) by writing its run.json.

    With `overwrite`, files of an earlier run of the same job are deleted first, but not runs in subfolders. Returns the
    temporary files that writers of earlier runs have left or are still writing. Raises CappyError if the folder holds
    anything but a run, or a run with other fingerprint inputs, naming the differences; UsageError if a file that the
    run is `reading` would be deleted; OutputError if the folder cannot be written.
    """
    names = refuse_foreign(output, storage)
    stored = read_bytes(join(output, RUN), storage)
    if stored is not None:
        before = _decode(output, stored)
        if overwrite:
            _refuse_other_job(output, before, run)
            delete_run(output, names, storage, reading)
        else:
            standing = _compare(output, before, run, storage)
            run = _continue(output, names, before, run, standing, storage)
    write_run(output, run, storage)
    delete_files(output, [name for name in names if name == FAILURE], storage)
    return [name for name in names if _LEFTOVER.fullmatch(name)]


def write_run(output: str, run: Mapping[str, Any], storage: StorageOptions) -> None:
    """Write the run.json of a run (see `describe_run`)."""
    write_whole(join(output, RUN), to_json({**run, "fingerprint": fingerprint(run["facts"])}), storage)


def _continue(
    output: str,
    names: Sequence[str],
    before: Mapping[str, Any],
    run: Mapping[str, Any],
    standing: Standing,
    storage: StorageOptions,
) -> Mapping[str, Any]:
    """Return the content of run.json for a run that goes on.

    If its input has grown, it is unfinished from now on. Units of files that have changed since a failure are deleted.
    """
    if "growth" not in run:
        return run
    if MANIFEST in names:
        keep_manifest(output, storage)
        delete_files(output, [MANIFEST], storage)
    if standing.kept < len(before["facts"]["files"]):
        delete_files(output, [name for name in names if _file_number(name) >= standing.kept], storage)
    forget_lost(output, set(names), storage)
    return {**run, "growth": growth_after(before, run, standing)}


def _file_number(name: str) -> int:
    """Return the number of the input file that a unit is of; -1 for other files."""
    unit = _NUMBERED.fullmatch(name)
    return int(unit[1]) if unit else -1


def refuse_foreign(output: str, storage: StorageOptions) -> list[str]:
    """Return the names of the files below a folder. Raises CappyError if it holds files but no run."""
    names = names_below(output, storage)
    foreign = [name for name in _outside_runs(names) if not _LEFTOVER.fullmatch(name)]
    if foreign and RUN not in foreign:
        raise CappyError(f"{output}: holds {foreign[0]!r} and no {RUN}, so it is not a job's folder; give an empty one")
    return names


def _decode(output: str, stored: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(stored)
        if content["fingerprint"] == fingerprint(content["facts"]):
            return content
        fault = "its fingerprint does not match its content"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
    raise CappyError(f"{join(output, RUN)}: is damaged or not written by cappy ({fault}); give an empty or new folder")


def close_run(output: str, manifest: Mapping[str, Any], leftovers: Sequence[str], storage: StorageOptions) -> None:
    """Delete what earlier runs have left in the folder of a finished run.

    Deletes data files that the `manifest` does not list, and the `leftovers` that `open_run` returned. Temporary files
    begun since then are kept, as their writers are still running. Raises CappyError, and leaves the run unfinished, if
    files that an earlier manifest listed have other bytes now.
    """
    damaged = damaged_files(output, manifest, storage)
    if damaged:
        delete_files(output, [MANIFEST], storage)
        raise damage(output, damaged, manifest)
    names = names_below(output, storage)
    delete_files(output, [name for name in names if name in leftovers], storage)
    delete_files(output, [EARLIER, *unlisted(names, {entry["path"] for entry in manifest["files"]})], storage)


def unlisted(names: Sequence[str], listed: Container[str]) -> list[str]:
    """Return the data files among `names` that are not `listed`, without those of runs in subfolders."""
    return [name for name in _outside_runs(names) if DATA.fullmatch(name) and name not in listed]


def _refuse_other_job(output: str, before: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    if before["job"] != run["job"]:
        raise CappyError(
            f"{output}: holds a run of {before['job']}, which {run['job']} does not replace; give another folder, or "
            "delete this one"
        )


def _compare(output: str, before: Mapping[str, Any], run: Mapping[str, Any], storage: StorageOptions) -> Standing:
    _refuse_other_job(output, before, run)
    finished, kept, failed = (read_bytes(join(output, name), storage) for name in (MANIFEST, EARLIER, FAILURE))
    run = {**run, "facts": json.loads(json.dumps(run["facts"]))}
    return compare(output, before, run, finished=bool(finished) and not kept, failed=bool(failed))


def open_folder(output: str, storage: StorageOptions) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a folder and the path on it. Raises CappyError for a file."""
    fs, path = file_system(output, storage)
    if fs.isfile(path):
        raise CappyError(f"{output}: is a file; --output must be a folder")
    return fs, path


def names_below(output: str, storage: StorageOptions) -> list[str]:
    """Return the files below a folder, relative to it, sorted."""
    fs, path = open_folder(output, storage)
    root = path.rstrip("/") + "/"
    names = sorted(name.removeprefix(root) for name in fs.find(path)) if fs.exists(path) else []
    return [name for name in names if name != LOCK]


def delete_run(output: str, names: list[str], storage: StorageOptions, reading: Collection[str]) -> None:
    """Delete the files of a run, run.json last, so that the folder is recognised after an interrupted deletion."""
    kinds = (DATA, _LEFTOVER, _OTHER)
    former = [name for name in _outside_runs(names) if any(kind.fullmatch(name) for kind in kinds)]
    refuse_to_delete(output, former, reading)
    delete_files(output, former, storage)
    delete_files(output, [RUN], storage)


def refuse_to_delete(output: str, names: Sequence[str], reading: Collection[str]) -> None:
    """Raise UsageError if a file to delete (relative to `output`) is among those that the run is `reading`."""
    for name in names:
        if join(output, name) in reading:
            raise UsageError(
                f"{join(output, name)}: is an input, and --overwrite would delete it; give another --output"
            )


def _outside_runs(names: Sequence[str]) -> list[str]:
    """Return the names of files that are in no subfolder with a run of its own."""
    within = tuple(name.removesuffix(RUN) for name in names if name.endswith(f"/{RUN}"))
    return [name for name in names if not name.startswith(within)]


def delete_files(output: str, names: Iterable[str], storage: StorageOptions) -> None:
    """Delete files by their names below a folder, as far as they exist."""
    fs, path = file_system(output, storage)
    for name in names:
        with suppress(FileNotFoundError):  # a temporary file may have been renamed meanwhile
            fs.rm_file(join(path, name))


def earlier_run(output: str, storage: StorageOptions) -> dict[str, Any]:
    """Return the run.json of a folder; {} if there is no readable one.

    Opening the run tells of another job's folder or a damaged one.
    """
    stored = read_bytes(join(output, RUN), storage)
    try:
        return _decode(output, stored) if stored else {}
    except CappyError:
        return {}


def earlier_facts(output: str, storage: StorageOptions) -> dict[str, Any]:
    """Return the fingerprint inputs that the run in a folder was begun with; {} if there is no readable run.json."""
    return dict(earlier_run(output, storage).get("facts", {}))


def load_manifest(output: str, storage: StorageOptions) -> dict[str, Any]:
    """Return the manifest of a finished run. Raises CappyError if there is none, with the reason."""
    data = read_bytes(join(output, MANIFEST), storage)
    if data is not None:
        return _parse(output, MANIFEST, data, key="files")
    reason = reason_of_failure(output, storage)
    if reason is not None:
        raise CappyError(f"{output}: the run failed: {reason}")
    run = earlier_run(output, storage)
    if run.get("job") in JOBS and version_of(run) < JOBS[run["job"]].format_version:
        raise older_form(output)
    if read_bytes(join(output, RUN), storage) is not None:
        raise CappyError(f"{output}: holds an unfinished run; run its command again to finish it")
    parent = posixpath.dirname(output.rstrip("/"))
    known = parent and read_bytes(join(parent, RUN), storage) is not None
    remedy = f"the folder of the whole run, {parent}" if known else "the output folder of a job"
    raise CappyError(f"{output}: holds no {MANIFEST}; give {remedy}")


def reason_of_failure(output: str, storage: StorageOptions) -> str | None:
    """Return the recorded reason why the last run in a folder failed; None if there is none. Raises CappyError."""
    data = read_bytes(join(output, FAILURE), storage)
    return None if data is None else str(_parse(output, FAILURE, data, key="reason")["reason"])


def _parse(output: str, name: str, data: bytes, *, key: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(data)
        content[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CappyError(f"{join(output, name)}: is damaged ({type(error).__name__}: {error})") from error
    return content
