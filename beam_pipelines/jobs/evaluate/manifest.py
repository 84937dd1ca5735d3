"""The manifest of an evaluation, its dataset card, metrics.json, and the table for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipelines.jobs.evaluate.conclusion import EXAMPLES, RESULTS
from beam_pipelines.jobs.evaluate.config import UNICODE
from beam_pipelines.report.text import listing, plural, share, signed, with_interval
from beam_pipelines.runs.card import REJECTS, Card, Part
from beam_pipelines.runs.manifest import count_rejects, samples
from beam_pipelines.transforms.wordless import WORDLESS, wordless_warnings
from schemas.manifest import METRICS
from schemas.stats import BINS_PER_SCORE, FIXED_POINT, SCORE_BINS, Stats


def _text(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    return (
        f"{plural(totals['examples'], 'example')} of {plural(totals['evaluated'], 'candidate')}, evaluated as "
        f"{manifest['configuration']['task']}. `{METRICS}` has the means with their intervals.\n\n"
        f"```\n{table(manifest)}\n```"
    )


CARD = Card(
    "An evaluation",
    _text,
    [Part("metrics", EXAMPLES, "one row for each example, with the value of each method"), REJECTS],
)


def evaluation_manifest(stats: Stats, *, hashed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's part of an evaluation, from its statistics and its fingerprint inputs `hashed`."""
    counts = stats.counts
    read, rejected = counts["candidates", "read"], counts["candidates", "rejected"]
    ((_, results),) = stats.samples[RESULTS]
    return {
        "inputs": hashed["inputs"],
        "totals": {
            "rows": counts["rows",],
            "candidates": read,
            "evaluated": counts["candidates", "evaluated"],
            "rejected": rejected,
            "duplicates": counts["candidates", "duplicates"],
            "examples": counts["examples", "evaluated"],
            "rejected_examples": counts["examples", "rejected"],
            "unscored": stats.under("unscored"),
            "no_rouge_tokens": counts["no_rouge_tokens",],
        },
        "warnings": wordless_warnings(
            stats.under(WORDLESS), read - rejected, remedy=f"--rouge {UNICODE}", worth="are worth 0"
        ),
        "results": results,
        "reliability": {name: _reliability(bins) for name, bins in stats.under("reliability").items()},
        "rejects": count_rejects(stats, lost=rejected, attempted=read, of="candidates"),
        "samples": samples(stats, "rejects"),
    }


def _reliability(bins: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Return the candidates and their mean value in each bin of scores."""
    found = []
    for number, count in bins["candidates"].items():
        low = (int(number) - SCORE_BINS // 2) / BINS_PER_SCORE
        high = (int(number) + 1 - SCORE_BINS // 2) / BINS_PER_SCORE
        worth = bins["worth"][number] / FIXED_POINT / count
        found.append({"from": low, "to": high, "candidates": count, "worth": worth})
    return found


def metrics(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of metrics.json."""
    return {
        "task": manifest["configuration"]["task"],
        **{name: value for name, value in manifest["configuration"].items() if name == "rouge"},
        "examples": manifest["totals"]["examples"],
        **manifest["results"],
        "reliability": manifest["reliability"],
    }


def table(manifest: Mapping[str, Any]) -> str:
    """Return the results as text tables: each measure with intervals, then by dataset."""
    measures = manifest["results"]["measures"]
    parts = [part for name, measure in measures.items() for part in _measure(name, measure)]
    return "\n\n".join(parts) if parts else "No example could be evaluated."


def _measure(name: str, measure: Mapping[str, Any]) -> list[str]:
    """Return the table of one measure, and one by dataset if there are several."""
    macro, datasets = measure["macro"], measure["datasets"]
    if macro is None:
        return []
    over = f"macro average of {plural(len(datasets), 'dataset')}" if len(datasets) > 1 else next(iter(datasets))
    best = macro["best_baseline"]
    against = {entry["method"]: entry for entry in macro["differences"] if entry["to"] == best}
    rows = [["method", "value", "95% interval", f"minus {best}" if best else "", "95% interval", measure["of"]]]
    for method, entry in macro["methods"].items():
        difference = signed(against[method]) if method in against else ("", "")
        rows.append([method, *with_interval(entry), *difference, f"{entry['count']:,}"])
    parts = [f"{name}, {over}\n{_aligned(rows)}"]
    if len(datasets) > 1:
        grid = [["", *macro["methods"]]]
        for dataset, scope in datasets.items():
            grid.append([dataset, *(with_interval(scope["methods"][method])[0] for method in macro["methods"])])
        # The shorter side goes across.
        turned = grid if len(grid) > len(grid[0]) else list(zip(*grid, strict=True))
        parts.append(f"{name} by dataset\n{_aligned(turned)}")
    return parts


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Align columns of text, the first one left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_fill(cell, width, index) for index, (cell, width) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def _fill(cell: str, width: int, index: int) -> str:
    return cell.rjust(width) if index else cell.ljust(width)


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise in a line what was evaluated."""
    totals = manifest["totals"]
    unscored = [f"{count:,} without {name}" for name, count in totals["unscored"].items() if count]
    lost = (
        f", {share(totals['rejected'], totals['candidates'])} of the candidates rejected" if totals["rejected"] else ""
    )
    return (
        f"{plural(totals['examples'], 'example')} of {plural(totals['evaluated'], 'candidate')}"
        f"{f' ({listing(unscored)})' if unscored else ''}{lost}; {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )
