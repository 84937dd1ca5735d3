"""Parts of a manifest that several jobs share."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from beam_pipelines.runs.release import versions
from schemas.manifest import fingerprint
from schemas.stats import Stats


def manifest_header(fingerprint_inputs: Mapping[str, Any], started: datetime, *packages: str) -> dict[str, Any]:
    """Return the keys that the manifest of a run begins with, for a run that ends now.

    `packages` are those whose versions the manifest names, beside this program and Python.
    """
    finished = datetime.now(UTC)
    return {
        "job": fingerprint_inputs["job"],
        "format_version": fingerprint_inputs["format_version"],
        "versions": versions(*packages),
        "fingerprint": fingerprint(fingerprint_inputs),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 1),
        "configuration": fingerprint_inputs["settings"],
    }


def count_rejects(stats: Stats, *, lost: int, attempted: int, of: str) -> dict[str, Any]:
    """Return the `rejects` of a manifest: reject rows in all and by stage and reason, and `lost` / `attempted`.

    `of` names what was attempted. The rate is not one of reject rows: a source row that cannot be read is one reject
    row, and lost under every template.
    """
    by_reason = stats.under("rejects")
    return {
        "rows": sum(sum(reasons.values()) for reasons in by_reason.values()),
        "rate": lost / attempted if attempted else 0.0,
        "lost": lost,
        "attempted": attempted,
        "of": of,
        "by_reason": by_reason,
    }


def sparse(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by the number of the bin, without empty bins."""
    return {str(int(number)): count for number, count in counts.items()}


def samples(stats: Stats, *keys: str) -> dict[str, list[dict[str, Any]]]:
    """Return the sampled rows of each key, in the order of their hashes."""
    return {key: [row for _, row in stats.samples.get(key, [])] for key in keys}
