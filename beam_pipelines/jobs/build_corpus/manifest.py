"""The manifest of a corpus."""

from collections.abc import Mapping
from typing import Any

from beam_pipelines.jobs.build_corpus.render import example_key
from beam_pipelines.report.text import number, plural
from beam_pipelines.runs.manifest import count_rejects, samples
from beam_pipelines.transforms.wordless import WORDLESS, wordless_warnings
from schemas.records import GENERATED, LABEL_SOURCES, OUTCOMES
from schemas.stats import LABEL_BINS, LENGTH_EDGES, Stats

CANDIDATES = "(candidates)"
"""Stands in `inputs` for the dataset of the files of candidates."""

Place = tuple[str, str, str]


def corpus_manifest(stats: Stats, *, hashed: Mapping[str, Any], places: Mapping[str, Place]) -> dict[str, Any]:
    """Return the manifest's part of a corpus, from its statistics and its fingerprint inputs `hashed`.

    `places` has the name, subset and split of each dataset by its label.
    """
    datasets = _datasets(stats, hashed, places)
    outcomes = {name: _over_templates(datasets, name) for name in OUTCOMES}
    candidates = stats.under("candidates")
    attempted = sum(outcomes.values()) + candidates.get("read", 0)
    lost = outcomes["rejected"] + candidates.get("rejected", 0)
    pairs = {source: stats.under("pairs", source) for source in LABEL_SOURCES if stats.under("pairs", source)}
    made = pairs.get(GENERATED, {}).get("made", 0)
    remedy = "`rouge: unicode` in the mixture"
    wordless = wordless_warnings(stats.under(WORDLESS), made, remedy=remedy, worth="get the label 0")
    failure = {} if outcomes["rendered"] else {"failure": _describe_empty(outcomes)}
    return {
        **failure,
        "inputs": _inputs(hashed),
        "totals": {
            "rows": sum(dataset["rows"] for dataset in datasets.values()),
            "instructions": outcomes["rendered"],
            **{name: outcomes[name] for name in OUTCOMES[1:]},
            "candidates": candidates.get("read", 0),
            "pairs": sum(counts["written"] for counts in pairs.values()),
        },
        "datasets": datasets,
        "pairs": pairs,
        "labels": {source: _histogram(stats.under("labels", source), LABEL_BINS) for source in pairs},
        "lengths": _lengths(stats),
        "generators": stats.under("generators"),
        "rejects": count_rejects(stats, lost=lost, attempted=attempted, of="row x template renderings and candidates"),
        "notes": stats.under("notes"),
        "warnings": [*_silent_templates(datasets), *wordless],
        "samples": {"pairs": _sample_pairs(stats, hashed), **samples(stats, "rejects")},
    }


def _describe_empty(outcomes: Mapping[str, int]) -> str:
    found = _outcomes(outcomes) or "the input has no rows"
    return (
        f"the corpus is empty: no template made an instruction ({found}). "
        "build-corpus --show 1 prints what each template makes of the first rows."
    )


def _silent_templates(datasets: Mapping[str, Any]) -> list[str]:
    """Return a warning for each template that made no instruction."""
    return [
        f"{label}: template {template['name']!r} made no instruction of {plural(dataset['rows'], 'row')}: "
        f"{_outcomes(template) or 'there is nothing to render'}"
        for label, dataset in datasets.items()
        for template in dataset["templates"].values()
        if not template["rendered"]
    ]


def _outcomes(counts: Mapping[str, int]) -> str:
    """Return the outcomes other than rendered that occurred, in words."""
    return ", ".join(f"{number(counts[name])} {name.replace('_', ' ')}" for name in OUTCOMES[1:] if counts[name])


def _datasets(stats: Stats, hashed: Mapping[str, Any], places: Mapping[str, Place]) -> dict[str, Any]:
    """Return the rows of each dataset and, by template, what became of them."""
    return {
        dataset["name"]: {
            "rows": stats.counts["rows", dataset["name"]],
            "templates": {
                template["id"]: _template(stats, dataset["name"], template, places[dataset["name"]])
                for template in dataset["templates"]
            },
        }
        for dataset in hashed["datasets"]
    }


def _template(stats: Stats, dataset: str, template: Mapping[str, Any], place: Place) -> dict[str, Any]:
    counts = stats.under("templates", dataset, template["id"])
    key = example_key(dataset, template["id"])
    example = next(iter(samples(stats, key)[key]), None)
    return {
        "name": template["name"],
        **{name: counts.get(name, 0) for name in OUTCOMES},
        "without_wrong": stats.counts["without_wrong", *place, template["id"]],
        "pairs": stats.under("pairs_of", *place, template["id"]),
        "example": example,
    }


def _inputs(hashed: Mapping[str, Any]) -> list[dict[str, Any]]:
    files = [(dataset["name"], file) for dataset in hashed["datasets"] for file in dataset["files"]]
    files += [(CANDIDATES, file) for file in hashed["candidates"] or []]
    return [{"dataset": name, **file} for name, file in files]


def _sample_pairs(stats: Stats, hashed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampled pairs of each label source, with the names of their templates."""
    names = {template["id"]: template["name"] for dataset in hashed["datasets"] for template in dataset["templates"]}
    sampled = samples(stats, *(source for source in LABEL_SOURCES if source in stats.samples))
    return {
        source: [{**row, "template_name": names[row["template_id"]]} for row in rows]
        for source, rows in sampled.items()
    }


def _over_templates(datasets: Mapping[str, Any], outcome: str) -> int:
    return sum(template[outcome] for dataset in datasets.values() for template in dataset["templates"].values())


def _histogram(counts: Mapping[str, int], bins: int) -> list[int]:
    dense = [0] * bins
    for index, count in counts.items():
        dense[int(index)] = count
    return dense


def _lengths(stats: Stats) -> dict[str, Any]:
    edges = LENGTH_EDGES.tolist()
    lengths: dict[str, Any] = {"edges": edges}
    for column in ("instruction", "response"):
        by_key = stats.under("lengths", column)
        lengths[column] = {key: _histogram(counts, len(edges)) for key, counts in by_key.items()}
    return lengths
