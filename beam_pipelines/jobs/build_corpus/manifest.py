"""The manifest of a corpus, made of its stats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_pipelines.runs.job import count_rejects
from beam_pipelines.templates.mixture import Mixture
from schemas.records import LABEL_SOURCES, OUTCOMES
from schemas.stats import LABEL_BINS, LENGTH_EDGES, Stats

CANDIDATES = "(candidates)"
"""What stands for the candidates among the inputs, where others have the label of their dataset."""


@dataclass(frozen=True)
class CorpusSummary:
    """Makes a corpus's part of the manifest, for its mixture and its fingerprinted facts."""

    mixture: Mixture
    facts: Mapping[str, Any]

    def __call__(self, stats: Stats) -> dict[str, Any]:
        """Datasets, totals, pairs, labels, lengths, rejects and samples; every number comes from the stats."""
        datasets = self._datasets(stats)
        outcomes = {name: sum(_over_templates(datasets, name)) for name in OUTCOMES}
        candidates = stats.under("candidates")
        attempted = sum(outcomes.values()) + candidates.get("read", 0)
        lost = outcomes["rejected"] + candidates.get("rejected", 0)
        pairs = {source: stats.under("pairs", source) for source in LABEL_SOURCES if stats.under("pairs", source)}
        return {
            "inputs": self._inputs(),
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
            "rejects": count_rejects(
                stats, lost=lost, attempted=attempted, of="row x template renderings and candidates"
            ),
            "notes": stats.under("notes"),
            "samples": self._samples(stats),
        }

    def _datasets(self, stats: Stats) -> dict[str, Any]:
        datasets: dict[str, Any] = {}
        for dataset in self.mixture.datasets:
            entry, templates = dataset.entry, {}
            for template in dataset.templates:
                counts = stats.under("templates", dataset.label, template.id)
                place = (entry.name, entry.subset or "", entry.split or "", template.id)
                outcomes = {name: counts.get(name, 0) for name in OUTCOMES}
                templates[template.id] = {
                    "name": template.name,
                    **outcomes,
                    "without_wrong": stats.counts["without_wrong", *place],
                    "pairs": stats.under("pairs_of", *place),
                }
            datasets[dataset.label] = {"rows": stats.counts["rows", dataset.label], "templates": templates}
        return datasets

    def _inputs(self) -> list[dict[str, Any]]:
        datasets = [(dataset["name"], dataset["files"]) for dataset in self.facts["datasets"]]
        candidates = (CANDIDATES, self.facts["candidates"] or [])
        return [{"dataset": name, **file} for name, files in (*datasets, candidates) for file in files]

    def _samples(self, stats: Stats) -> dict[str, Any]:
        names = {template.id: template.name for dataset in self.mixture.datasets for template in dataset.templates}
        pairs = {
            source: [{**row, "template_name": names[row["template_id"]]} for _, row in stats.samples[source]]
            for source in LABEL_SOURCES
            if source in stats.samples
        }
        return {"pairs": pairs, "rejects": [row for _, row in stats.samples.get("rejects", [])]}


def _over_templates(datasets: Mapping[str, Any], outcome: str) -> list[int]:
    return [template[outcome] for dataset in datasets.values() for template in dataset["templates"].values()]


def _histogram(counts: Mapping[str, int], bins: int) -> list[int]:
    dense = [0] * bins
    for bucket, count in counts.items():
        dense[int(bucket)] = count
    return dense


def _lengths(stats: Stats) -> dict[str, Any]:
    edges = LENGTH_EDGES.tolist()
    lengths: dict[str, Any] = {"edges": edges}
    for column in ("instruction", "response"):
        by_key = stats.under("lengths", column)
        lengths[column] = {key: _histogram(counts, len(edges)) for key, counts in by_key.items()}
    return lengths
