"""The table of a finished run: the files of its rows, among all that the manifest lists."""

import posixpath
from collections.abc import Mapping
from typing import Any

from beam_pipelines.io.storage import join
from beam_pipelines.runs.job import JOBS


def table_folder(job: str) -> str:
    """Return the folder, below the output, that a job writes its table to; "" is the output folder itself."""
    return JOBS[job].data[0]


def data_entries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the manifest's entries of the files that hold the run's table, in the order of their paths.

    Where an earlier version wrote them beside the manifest, these are the files there, as they are of a stage that is
    no job of its own. Empty for a job without a table.
    """
    entry = JOBS.get(str(manifest["job"]))
    if entry is not None and not entry.data:
        return []
    tables = [file for file in manifest["files"] if file["path"].endswith(".parquet")]
    for folder in (*(entry.data if entry else ()), ""):
        found = [file for file in tables if posixpath.dirname(file["path"]) == folder]
        if found:
            return sorted(found, key=lambda file: str(file["path"]))
    return []


def table_in(manifest: Mapping[str, Any], output: str) -> str:
    """Return the pattern of the files that hold the table of the finished run in the folder `output`."""
    entries = data_entries(manifest)
    folder = posixpath.dirname(entries[0]["path"]) if entries else table_folder(str(manifest["job"]))
    return join(output, folder, "*.parquet")
