"""The manifest of scored rows, and their dataset card."""

from collections.abc import Mapping
from typing import Any

from beam_pipelines.jobs.score.scoring import TOKENS_PER_BIN
from beam_pipelines.report.text import listing, plural, share
from beam_pipelines.runs.card import REJECTS, Card, Part
from beam_pipelines.runs.manifest import count_rejects, samples
from schemas.stats import BINS_PER_SCORE, REAL_TOKENS, SCORE_BINS, Stats

_CUT_SHARE = 0.05
"""Share of truncated pairs above which a run warns."""


COUNTED = ("model", "totals", "warnings", "tokens", "scores", "lengths", "errors", "seconds", "fingerprint")
"""Parts of the manifest of each scorer's own run that the manifest of several scorers repeats."""

_ORDER = "Rows keep the order of the input; those of files that were added later come last."


def _text(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    if "scorers" in manifest:
        columns = listing([f"`{name}` by {run['model']['name']}" for name, run in manifest["scorers"].items()])
        return (
            f"{plural(totals['rows'], 'row')} with the scores of {plural(len(manifest['scorers']), 'scorer')}: "
            f"{columns}. Higher is better. {_ORDER} A row without a score has the reason in the column of the same "
            "name with `_error`."
        )
    if manifest["configuration"].get("carries"):
        return (
            f"The scores of {plural(totals['rows'], 'row')} by {manifest['model']['name']}, each with the `position` "
            "of its row in its input file: part of the table two folders up."
        )
    return (
        f"{plural(totals['rows'], 'row')}, {plural(totals['scored'], 'pair')} of them scored by "
        f"{manifest['model']['name']}: higher is better. {_ORDER} A row without a score has the reason in the error "
        "column."
    )


CARD = Card("Rows with scores", _text, [Part("scored", "rows/part-*.parquet", "the rows with their scores"), REJECTS])


def score_manifest(stats: Stats, *, hashed: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's part of a score run, from its statistics and its fingerprint inputs `hashed`.

    `model` has the name of the scorer, its head, template and activation.
    """
    counts, errors = stats.counts, stats.under("errors")
    reused = counts["pairs", "reused"]
    rows, unreadable, unscored = counts["rows", "read"], counts["rows", "rejected"], sum(errors.values())
    pairs = counts["pairs", "scored"] + unscored
    lengths = stats.under("lengths")
    return {
        "model": {**model, **hashed["model"]},
        "inputs": hashed["files"],
        "totals": {
            "rows": rows,
            "scored": counts["pairs", "scored"],
            "unscored": unscored,
            "distinct": counts["pairs", "distinct"],
            "truncated": counts["pairs", "truncated"],
            **({"reused": reused} if "reuse" in hashed or reused else {}),  # by this launch, or by one before
        },
        "warnings": _warnings(counts["pairs", "truncated"], counts["pairs", "scored"], hashed["model"]["max_length"]),
        "tokens": {
            "real": counts[REAL_TOKENS],
            "padding": counts["tokens", "padding"],
            "out_of_memory": counts["tokens", "out_of_memory"],
            "this_launch": counts["launch", "tokens"],
        },
        "scores": {"all": stats.under("scores"), "bins": SCORE_BINS, "bins_per_score": BINS_PER_SCORE},
        "lengths": {"tokens_per_bin": TOKENS_PER_BIN, "pairs": [int(lengths.get(b, 0)) for b in _bins(lengths)]},
        "errors": errors,
        "rejects": count_rejects(stats, lost=unreadable + unscored, attempted=unreadable + pairs, of="rows and pairs"),
        "samples": samples(stats, "highest", "lowest", "any", "rejects"),
    }


def joint_manifest(stats: Stats, *, hashed: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the manifest's part of a run with several scorers, from its statistics and fingerprint inputs `hashed`.

    `runs` has the `COUNTED` parts of the manifest of each scorer's own run, by its column. The reject rate is the
    largest among the scorers: a row that cannot be read is lost for each of them.
    """
    counts, unreadable = stats.counts, stats.counts["rows", "rejected"]
    scored = {name: counts["pairs", name, "scored"] for name in runs}
    unscored = {name: counts["pairs", name, "unscored"] for name in runs}
    lost = {name: unreadable + unscored[name] for name in runs}
    attempted = {name: lost[name] + scored[name] for name in runs}
    reused = [run["totals"]["reused"] for run in runs.values() if "reused" in run["totals"]]
    worst = max(runs, key=lambda name: lost[name] / max(attempted[name], 1))
    return {
        "scorers": {name: dict(run) for name, run in runs.items()},
        "inputs": hashed["files"],
        "totals": {
            "rows": counts["rows", "read"],
            "scored": sum(scored.values()),
            "unscored": sum(unscored.values()),
            **({"reused": sum(reused)} if reused else {}),
        },
        "warnings": [f"{name}: {warning}" for name, run in runs.items() for warning in run["warnings"]],
        "rejects": count_rejects(
            stats, lost=lost[worst], attempted=attempted[worst], of=f"rows and pairs of {worst!r}"
        ),
        "samples": samples(stats, "any", "rejects"),
    }


def _warnings(truncated: int, scored: int, max_length: int) -> list[str]:
    if truncated <= _CUT_SHARE * scored:
        return []
    return [
        f"{share(truncated, scored)} of the pairs are longer than {max_length:,} tokens and were cut; give a greater "
        "--max-length if the model has the positions"
    ]


def _bins(counts: Mapping[str, int]) -> list[str]:
    """Return the keys of all bins from the first to the last one that is not empty."""
    return [f"{number:05d}" for number in range(max(map(int, counts), default=-1) + 1)]
