"""Rows that cannot be used: told apart by place and reason, then written and counted, whatever the job."""

from collections.abc import Sequence
from typing import Any

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import join
from beam_pipelines.io.units import Unit, position_of
from schemas.chunks import from_rows
from schemas.ids import seed_for
from schemas.records import REJECT, reject
from schemas.stats import Stats


def reject_at(
    unit: Unit, position: int, *, origin: str, stage: str, reason: str, detail: str, excerpt: str | None
) -> dict[str, Any]:
    """The REJECT row of the row that stands at `position` in the unit's file.

    `origin` is which of the job's inputs the file belongs to, empty where there is one only; the source is the file's
    name below it.
    """
    return reject(
        stage=stage,
        reason=reason,
        source=join(origin, unit.file.name),
        position=position_of(unit.file, position),
        detail=detail,
        excerpt=excerpt,
    )


def unread(unit: Unit, *, origin: str) -> list[dict[str, Any]]:
    """The REJECT rows of what could not even be read of a unit; `origin` as for `reject_at`."""
    return [
        reject_at(
            unit, bad.position, origin=origin, stage="read", reason=bad.reason, detail=bad.detail, excerpt=bad.excerpt
        )
        for bad in unit.bad
    ]


def write_rejects(folder: OutputDir, name: str, rejects: Sequence[dict[str, Any]]) -> Stats:
    """Writes REJECT rows as `rejects/NAME.parquet`, if there are any, and counts them by stage and reason.

    They are ordered by place, so that the file does not depend on the order in which they were found.
    """
    stats = Stats()
    for row in rejects:
        stats.counts["rejects", row["stage"], row["reason"]] += 1
        stats.sample("rejects", seed_for(0, row["source"], row["position"], row["reason"], row["detail"]), row)
    if rejects:
        ordered = sorted(rejects, key=_place)
        stats.files.add(folder.write_parquet(f"rejects/{name}.parquet", [from_rows(ordered, REJECT)], REJECT))
    return stats


def _place(row: dict[str, Any]) -> tuple[str, int, str, str]:
    return row["source"], int(row["position"][1:]), row["reason"], row["detail"]
