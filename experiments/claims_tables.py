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
_SCORER, _ADAPTED = "scorer:alone", "scorer:score"
_SELF_SCORE = "self-score:mean"
_NAMES = {_SCORER: "scorer", _ADAPTED: "scorer, adapted"}


def all_tables(work: Path) -> str:
    """Return all tables, in Markdown, of a folder written by `experiments.claims`; a claim not tried has none."""
    parts = []
    if _tried(work / "classification"):
        parts += [
            "### Alone: accuracy over held-out rows",
            _by_dataset(_measure(work / "classification", "accuracy"), decimals=3),
        ]
    if _tried(work / "boost"):
        measures = [_measure(folder, "rouge_l") for folder in (work / "boost", *_adapted(work))]
        parts += [
            "### Boost and adapted: mean Rouge-L (x 100) of the chosen candidate",
            _means(measures),
            *map(_differences, measures),
            "Spearman correlation with Rouge-L among the candidates of an instruction:",
            _orders(work),
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
            found[dataset] = f"{_mean_of(scope, _SCORER):.3f}"
    if _tried(work / "boost"):
        scope = _measure(work / "boost", "rouge_l")["macro"]
        found |= {"boost": f"{100 * _mean_of(scope, _SCORER):.1f}"}
        adapted = [_measure(folder, "rouge_l")["macro"] for folder in _adapted(work)]
        if adapted:
            found["adapted"] = f"{100 * fmean(_mean_of(scope, _ADAPTED) for scope in adapted):.1f}"
        found["self-score"] = f"{100 * _mean_of(scope, _SELF_SCORE):.1f}"
    if _tried(work / "ranking"):
        scope = _measure(work / "ranking", "auc_over_all")["macro"]
        found["ranking, AUC"] = f"{_mean_of(scope, 'scorer:adapted'):.3f}"
    return found


def _mean_of(scope: Measure, prefix: str) -> float:
    """Return the mean of the methods whose names are `prefix` and a seed."""
    return fmean(entry["value"] for name, entry in scope["methods"].items() if name.rstrip("0123456789") == prefix)


def _adapted(work: Path) -> list[Path]:
    return [folder for folder in sorted((work / "adapted").glob("seed*")) if _tried(folder)]


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


def _means(measures: Sequence[Measure]) -> str:
    """Return a table of methods by tasks: means over the seeds. Baselines do not depend on the seed."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measure in measures:
        for task, scope in {**measure["datasets"], "mean": measure["macro"]}.items():
            for method, entry in scope["methods"].items():
                kind = method.rstrip("0123456789")
                if measure is measures[0] or kind == _ADAPTED:
                    found[_NAMES.get(kind, method)][task].append(entry["value"])
    rows = []
    for name in sorted(found, key=lambda name: name not in _NAMES.values()):
        row = {"mean over seeds (lowest to highest)": name}
        for task, values in found[name].items():
            spread = f" ({100 * min(values):.1f} to {100 * max(values):.1f})" if min(values) < max(values) else ""
            row[task] = f"{100 * fmean(values):.1f}{spread}"
        rows.append(row)
    return markdown_table(rows)


def _differences(measure: Measure) -> str:
    """Return a table of the paired differences between scorers and the methods they are compared with."""
    rows = []
    for entry in measure["macro"]["differences"]:
        compared = f"{entry['method'].removeprefix('scorer:')} minus {entry['to'].removeprefix('scorer:')}"
        difference = f"{100 * entry['value']:+.1f} ({100 * entry['low']:+.1f} to {100 * entry['high']:+.1f})"
        rows.append({"mean of the tasks": compared, "paired difference": difference})
    return markdown_table(rows)


def _orders(work: Path) -> str:
    """Return a table of rank correlations between scores and Rouge-L, by task: means over instructions and seeds."""
    last = max((work / "boost").glob("alone*"), key=lambda folder: int(folder.name.removeprefix("alone")))
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    _correlate(sorted(last.glob("rows/*.parquet")), {"alone": "scorer", "log_likelihood_mean": "self-score"}, found)
    for folder in _adapted(work):
        _correlate(sorted(folder.glob("*/scored/rows/*.parquet")), {"score": "scorer, adapted"}, found)
    tasks, names = (sorted({key[place] for key in found}) for place in (1, 0))
    means = {key: f"{fmean(values):+.3f}" for key, values in found.items()}
    return markdown_table([{"": name, **{task: means[name, task] for task in tasks}} for name in names])


def _correlate(files: Sequence[Path], columns: Mapping[str, str], found: dict[tuple[str, str], list[float]]) -> None:
    """Append the correlation of each instruction to those of its method (named by column, less its seed) and task."""
    rouge, frame = RougeL(), ds.dataset(files).to_table().to_pandas()
    pairs = zip(frame["references"], frame["response"], strict=True)
    frame["rouge_l"] = [rouge.score(list(references), response) for references, response in pairs]
    for (task, _), candidates in frame.groupby(["dataset", "instruction_id"]):
        for column in frame.columns:
            name = columns.get(column.rstrip("0123456789"))
            if name and candidates["rouge_l"].nunique() > 1 and candidates[column].nunique() > 1:
                found[name, task].append(float(spearmanr(candidates[column], candidates["rouge_l"]).statistic))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="+", type=Path, metavar="WORK", help="folders written by experiments.claims")
    works = parser.parse_args(argv).works
    print(all_tables(works[0]) if len(works) == 1 else comparison(works))


if __name__ == "__main__":
    main()
