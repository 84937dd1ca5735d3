"""Tables of the claims from the metrics.json of each evaluation."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.dataset as ds
from scipy.stats import spearmanr

from benchmarks.machine import markdown_table
from cappy_model.metrics.rouge import RougeL

Measure = Mapping[str, Any]
_SCORER = "scorer:"
_ORDERED = {"scorer": "alone", "scorer, adapted": "score", "self-score, mean": "log_likelihood_mean"}


def all_tables(work: Path, seeds: int) -> str:
    """Return all tables, in Markdown, of a folder written by `experiments.claims`."""
    parts = [
        "### Alone: accuracy over held-out rows",
        _by_dataset(_measure(work / "classification", "accuracy"), decimals=3),
        "### Boost and adapted: mean Rouge-L (x 100) of the chosen candidate",
    ]
    boosts = [_measure(work / "boost" / f"seed{seed}", "rouge_l") for seed in range(seeds)]
    parts += [_boost_means(boosts), *(_differences(measure, seed) for seed, measure in enumerate(boosts))]
    parts += [
        "Spearman correlation with Rouge-L among the candidates of an instruction:",
        _orders(work / "boost", seeds),
    ]
    ranking = _metrics(work / "ranking")["measures"]
    parts.append("### Ranking: solutions of held-out GSM8K problems")
    parts += [f"{name}\n\n{_by_dataset(measure, decimals=3)}" for name, measure in ranking.items()]
    return "\n\n".join(parts)


def _metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "evaluation" / "metrics.json").read_text())
    return content


def _measure(folder: Path, name: str) -> Measure:
    found: Measure = _metrics(folder)["measures"][name]
    return found


def _by_dataset(measure: Measure, *, decimals: int) -> str:
    """Return a table of methods by datasets and their mean; each value with its interval."""
    scopes = {**measure["datasets"], "mean": measure["macro"]}
    if len(scopes) == 2:
        scopes.pop("mean")
    rows = [
        {"": method, **{name: _cell(scope["methods"].get(method), decimals) for name, scope in scopes.items()}}
        for method in measure["macro"]["methods"]
    ]
    return markdown_table(rows)


def _cell(entry: Mapping[str, Any] | None, decimals: int) -> str:
    if entry is None or entry["value"] is None:
        return ""
    value = f"{entry['value']:.{decimals}f}"
    return value if entry["low"] is None else f"{value} ({entry['low']:.{decimals}f} to {entry['high']:.{decimals}f})"


def _boost_means(boosts: Sequence[Measure]) -> str:
    """Return a table of methods by tasks: means over the seeds. Baselines do not depend on the seed."""
    scopes = [{**measure["datasets"], "mean": measure["macro"]} for measure in boosts]
    rows = []
    for method in boosts[0]["macro"]["methods"]:
        row = {"mean over seeds (lowest to highest)": method}
        for scope in scopes[0]:
            values = [each[scope]["methods"][method]["value"] for each in scopes]
            spread = f" ({100 * min(values):.1f} to {100 * max(values):.1f})" if min(values) < max(values) else ""
            row[scope] = f"{100 * fmean(values):.1f}{spread}"
        rows.append(row)
    return markdown_table(rows)


def _differences(measure: Measure, seed: int) -> str:
    """Return a table of the paired differences between each scorer and its baselines, over all tasks, of one seed."""
    rows = []
    for entry in measure["macro"]["differences"]:
        compared = f"{entry['method'].removeprefix(_SCORER)} minus {entry['to'].removeprefix(_SCORER)}"
        difference = f"{100 * entry['value']:+.1f} ({100 * entry['low']:+.1f} to {100 * entry['high']:+.1f})"
        rows.append({f"seed {seed}, mean of the tasks": compared, "paired difference": difference})
    return markdown_table(rows)


def _orders(boost: Path, seeds: int) -> str:
    """Return a table of rank correlations between scores and Rouge-L, by task: means over instructions and seeds."""
    rouge, tasks = RougeL(), sorted(folder.parent.name for folder in (boost / "seed0").glob("*/adapted"))
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for task in tasks:
        for seed in range(seeds):
            scored = sorted((boost / f"seed{seed}" / task / "adapted" / "scored").glob("part-*.parquet"))
            frame = ds.dataset(scored).to_table().to_pandas()
            pairs = zip(frame["references"], frame["response"], strict=True)
            frame["rouge_l"] = [rouge.score(list(references), response) for references, response in pairs]
            for _, candidates in frame.groupby("instruction_id"):
                for name, column in _ORDERED.items():
                    if candidates["rouge_l"].nunique() > 1 and candidates[column].nunique() > 1:
                        found[name, task].append(float(spearmanr(candidates[column], candidates["rouge_l"]).statistic))
    return markdown_table(
        [{"": name, **{task: f"{fmean(found[name, task]):+.3f}" for task in tasks}} for name in _ORDERED]
    )
