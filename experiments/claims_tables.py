"""Tables of the claims from the metrics.json of each evaluation.

    python -m experiments.claims_tables WORK [WORK ...]

prints the tables of one folder, or compares the folders of several recipes, with means over their seeds.
"""

import argparse
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
_SELF_SCORE = "self-score:mean"
_ORDERED = {"scorer": "alone", "scorer, adapted": "score", "self-score, mean": "log_likelihood_mean"}


def all_tables(work: Path) -> str:
    """Return all tables, in Markdown, of a folder written by `experiments.claims`; a claim not tried has none."""
    parts = []
    if _tried(work / "classification"):
        parts += [
            "### Alone: accuracy over held-out rows",
            _by_dataset(_measure(work / "classification", "accuracy"), decimals=3),
        ]
    boosts = [_measure(folder, "rouge_l") for folder in _boosts(work)]
    if boosts:
        parts += [
            "### Boost and adapted: mean Rouge-L (x 100) of the chosen candidate",
            _boost_means(boosts),
            *(_differences(measure, seed) for seed, measure in enumerate(boosts)),
            "Spearman correlation with Rouge-L among the candidates of an instruction:",
            _orders(work / "boost", len(boosts)),
        ]
    if _tried(work / "ranking"):
        parts.append("### Ranking: solutions of held-out GSM8K problems")
        for name, measure in _metrics(work / "ranking")["measures"].items():
            parts.append(f"{name}\n\n{_by_dataset(measure, decimals=3)}")
    return "\n\n".join(parts)


def comparison(works: Sequence[Path]) -> str:
    """Return a table of folders by measures: means over the seeds, empty where a claim was not tried."""
    rows = [{"": work.name, **_summary(work)} for work in works]
    columns = dict.fromkeys(column for row in rows for column in row)
    return markdown_table([{column: row.get(column, "") for column in columns} for row in rows])


def _summary(work: Path) -> dict[str, str]:
    """Return the means over seeds of the scorers' accuracy, chosen candidates (Rouge-L x 100) and AUC."""
    found = {}
    if _tried(work / "classification"):
        measure = _measure(work / "classification", "accuracy")
        for dataset, scope in {**measure["datasets"], "accuracy, mean": measure["macro"]}.items():
            found[dataset] = f"{_mean_of(scope, f'{_SCORER}alone'):.3f}"
    boosts = [_measure(folder, "rouge_l")["macro"] for folder in _boosts(work)]
    for name, method in (("boost", f"{_SCORER}alone"), ("adapted", f"{_SCORER}score"), ("self-score", _SELF_SCORE)):
        if boosts:
            found[name] = f"{100 * fmean(scope['methods'][method]['value'] for scope in boosts):.1f}"
    if _tried(work / "ranking"):
        found["ranking, AUC"] = f"{_mean_of(_measure(work / 'ranking', 'auc')['macro'], f'{_SCORER}adapted'):.3f}"
    return found


def _mean_of(scope: Measure, prefix: str) -> float:
    """Return the mean of the methods with the names `prefix` and a seed."""
    return fmean(entry["value"] for name, entry in scope["methods"].items() if name.startswith(prefix))


def _boosts(work: Path) -> list[Path]:
    return [folder for folder in sorted((work / "boost").glob("seed*")) if _tried(folder)]


def _tried(folder: Path) -> bool:
    return (folder / "evaluation" / "metrics.json").exists()


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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="+", type=Path, metavar="WORK", help="folders written by experiments.claims")
    works = parser.parse_args(argv).works
    print(all_tables(works[0]) if len(works) == 1 else comparison(works))


if __name__ == "__main__":
    main()
