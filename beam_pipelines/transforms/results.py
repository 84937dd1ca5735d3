"""The result of a unit or a shard, whatever the job: rows, rejects and statistics; and writing it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import join
from beam_pipelines.io.units import Unit, position_of
from beam_pipelines.runs.under_way import end_unit
from cappy_model.paths import shareable
from schemas.chunks import from_rows
from schemas.ids import seed_for
from schemas.records import REJECT, reject
from schemas.stats import REAL_TOKENS, Stats


class Result(NamedTuple):
    """The result of a unit or a shard: `rows` of `schema` in order, REJECT rows, and statistics.

    `name` is the file's name without its ending: `part-FFFFF-RRRRR-UUUUU` of a unit (file, read, unit), or
    `shard-SSSSS-of-NNNNN`.
    """

    name: str
    rows: Sequence[pa.RecordBatch]
    schema: pa.Schema
    rejects: Sequence[dict[str, Any]]
    stats: Stats


def reject_row(
    unit: Unit, position: int, *, stage: str, reason: str, detail: str, excerpt: str | None, origin: str = ""
) -> dict[str, Any]:
    """Return the reject record of the row at `position` in the unit's file.

    `origin` names the job's input that the file belongs to, where the job has several.
    """
    return reject(
        stage=stage,
        reason=reason,
        source=join(origin, unit.file.name),
        position=position_of(unit.file, position),
        detail=detail,
        excerpt=excerpt,
    )


def unreadable_rows(unit: Unit, *, origin: str = "") -> list[dict[str, Any]]:
    """Return the reject records of the rows of a unit that could not be read; `origin` as for `reject_row`.

    The detail may be the error of a file system, which quotes URLs, so their secrets are masked.
    """
    return [
        reject_row(
            unit,
            bad.position,
            stage="read",
            reason=bad.reason,
            detail=shareable(bad.detail),
            excerpt=bad.excerpt,
            origin=origin,
        )
        for bad in unit.bad
    ]


def write_rejects(result: Result, output: OutputDir) -> Stats:
    """Write the rejects of a result, if any, as `rejects/NAME.parquet`; return its statistics, rejects counted.

    Rejects are ordered by position, so that the file does not depend on the order in which they were found.
    """
    stats = Stats().add(result.stats)
    for row in result.rejects:
        stats.counts["rejects", row["stage"], row["reason"]] += 1
        stats.sample("rejects", seed_for(0, row["source"], row["position"], row["reason"], row["detail"]), row)
    if result.rejects:
        ordered = sorted(result.rejects, key=place_of_reject)
        path = f"rejects/{result.name}.parquet"
        stats.files.add(output.write_parquet(path, [from_rows(ordered, REJECT)], REJECT))
    return stats


def place_of_reject(row: Mapping[str, Any]) -> tuple[str, int, str, str]:
    """Return what rejects are ordered by: source, position, reason and detail."""
    return row["source"], int(row["position"][1:]), row["reason"], row["detail"]


def write_result(result: Result, output: OutputDir, folder: str) -> Stats:
    """Write the rejects of a result, then its rows as `NAME.parquet` below `folder`; return its statistics."""
    stats = write_rejects(result, output)
    stats.files.add(output.write_parquet(join(folder, f"{result.name}.parquet"), result.rows, result.schema))
    return stats


def write_unit(result: Result, output: OutputDir, folder: str) -> Stats:
    """Write a unit of a map job as `write_result` does, its statistics in the metadata of the file.

    Where this file exists the unit is finished, so the rejects are written before it. The statistics that are returned
    also count the tokens of this launch alone, which the file does not.
    """
    stats = write_rejects(result, output)
    tokens = stats.counts[REAL_TOKENS]
    stats = output.write_unit(join(folder, f"{result.name}.parquet"), result.rows, result.schema, stats)
    end_unit(output.url, result.name)
    stats.counts["launch", "tokens"] += tokens
    return stats
