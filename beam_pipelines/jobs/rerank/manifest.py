"""The manifest of selections, and their dataset card."""

from collections.abc import Mapping
from typing import Any

from beam_pipelines.report.text import plural
from beam_pipelines.runs.card import REJECTS, Card, Part
from beam_pipelines.runs.manifest import count_rejects, samples, sparse
from schemas.stats import BINS_PER_SCORE, FIXED_POINT, SCORE_BINS, Stats


def _text(manifest: Mapping[str, Any]) -> str:
    totals, score = manifest["totals"], manifest["configuration"]["columns"]["score"]
    return (
        f"{plural(totals['selected'], 'response')} selected from {plural(totals['candidates'], 'scored candidate')} in "
        f"{plural(totals['groups'], 'group')}: `{score}` is the raw output of the scorer, `rank` 1 the best of the "
        "group, and `num_candidates` how many it was chosen from."
    )


_SELECTIONS = Part("selections", "selections/shard-*.parquet", "the selections, each with everything that its row held")
CARD = Card("The best candidates of each group", _text, [_SELECTIONS, REJECTS])

_MEANS = ("best", "first", "mean")


def selection_manifest(stats: Stats, *, hashed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's part of a rerank run, from its statistics and its fingerprint inputs `hashed`."""
    counts = stats.counts
    read, rejected = counts["candidates", "read"], counts["candidates", "rejected"]
    return {
        "inputs": hashed["inputs"],
        "totals": {
            "rows": counts["rows",],
            "candidates": read,
            "compared": counts["candidates", "compared"],
            "rejected": rejected,
            "unscored": counts["candidates", "unscored"],
            "groups": counts["groups",],
            "selected": counts["selected",],
        },
        "gain": _gain(stats),
        "scores": {
            "bins": SCORE_BINS,
            "bins_per_score": BINS_PER_SCORE,
            **{name: sparse(stats.under("scores", name)) for name in ("all", "best")},
        },
        "rejects": count_rejects(stats, lost=rejected, attempted=read, of="candidates"),
        "samples": samples(stats, "selections", "rejects"),
    }


def _gain(stats: Stats) -> dict[str, Any]:
    """Return mean scores over all groups and by size of group: of the best, of the first, and of all candidates.

    The mean of all is the expected score of a random choice. None where no group of that size can be added up.
    """
    by_bucket = {int(bucket): counts for bucket, counts in stats.under("gain").items()}
    everything = {
        name: sum(counts.get(name, 0) for counts in by_bucket.values()) for name in ("groups", "measured", *_MEANS)
    }
    sizes = [
        {"from": 2**bucket // 2 + 1, "to": 2**bucket, **_means(counts)} for bucket, counts in sorted(by_bucket.items())
    ]
    return {"all": _means(everything), "by_size": sizes}


def _means(sums: Mapping[str, int]) -> dict[str, Any]:
    """Return means of scores from their sums in fixed point."""
    measured = sums.get("measured", 0)
    means = {name: round(sums[name] / FIXED_POINT / measured, 6) if measured else None for name in _MEANS}
    return {"groups": sums["groups"], "measured": measured, **means}
