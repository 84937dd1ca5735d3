"""The manifest of a selection, made of its stats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_pipelines.report.text import plural
from beam_pipelines.runs.card import REJECTS, Card, Part
from beam_pipelines.runs.job import count_rejects, sparse
from schemas.stats import BINS_PER_SCORE, FIXED_POINT, SCORE_BINS, Stats


def _text(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    return (
        f"{plural(totals['selected'], 'response')} selected from {plural(totals['candidates'], 'scored candidate')} in "
        f"{plural(totals['groups'], 'group')}: `score` is the raw output of the scorer, `rank` 1 the best of the "
        "group, and `num_candidates` how many it was chosen from."
    )


_SELECTIONS = Part("selections", "shard-*.parquet", "the selections, each with everything that its row held")
CARD = Card("The best candidates of each group", _text, [_SELECTIONS, REJECTS])

_MEANS = ("best", "first", "mean")


@dataclass(frozen=True)
class SelectionSummary:
    """Makes a selection's part of the manifest, from its stats and its fingerprinted facts."""

    facts: Mapping[str, Any]

    def __call__(self, stats: Stats) -> dict[str, Any]:
        """Inputs, totals, gain, scores, rejects and samples; every number comes from the stats."""
        counts = stats.counts
        read, rejected = counts["candidates", "read"], counts["candidates", "rejected"]
        return {
            "inputs": self.facts["inputs"],
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
            "samples": {
                "selections": [row for _, row in stats.samples.get("selections", [])],
                "rejects": [row for _, row in stats.samples.get("rejects", [])],
            },
        }


def _gain(stats: Stats) -> dict[str, Any]:
    """What choosing is worth, over all groups and by size of group.

    Means over groups of the best score, of the first candidate's, and of the mean score, which is what a random choice
    is expected to give; None where no group of that size is measured.
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
    measured = sums.get("measured", 0)
    means = {name: round(sums[name] / FIXED_POINT / measured, 6) if measured else None for name in _MEANS}
    return {"groups": sums["groups"], "measured": measured, **means}
