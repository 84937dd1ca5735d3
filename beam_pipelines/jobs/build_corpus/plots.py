"""The plots of a build-corpus report, each a function of the manifest; None where there is nothing to draw."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from beam_pipelines.jobs.build_corpus.sources import SOURCES
from beam_pipelines.report.plots import (
    MOST_ROWS,
    Bar,
    Histogram,
    density_rows,
    histogram_rows,
    longest,
    stacked_bars,
    sum_parts,
)
from beam_pipelines.report.tables import MOST_REASONS, WORDY
from beam_pipelines.report.text import shorten


def labels(manifest: Mapping[str, Any]) -> Markup | None:
    """Histograms of the labels, one per source that has pairs."""
    counted = manifest["labels"]
    rows = [
        Histogram(source.label, counted[source.key], source.colour)
        for source in SOURCES
        if any(counted.get(source.key, ()))
    ]
    return histogram_rows(rows, title="Histograms of labels from 0 to 1, by label source") if rows else None


def _parts(template: Mapping[str, Any], *, with_pairs: bool) -> dict[str, int]:
    """A template's pairs by the colour of their source; its instructions when the corpus has no pairs."""
    if not with_pairs:
        return {"accent": template["rendered"]}
    return {source.colour: template["pairs"].get(source.key, 0) for source in SOURCES}


def pairs_by_template(manifest: Mapping[str, Any]) -> Markup | None:
    """Bars by dataset and template, or by dataset alone where the templates are too many to read."""
    datasets, with_pairs = manifest["datasets"], bool(manifest["pairs"])
    if not datasets:
        return None
    bars = _by_template(datasets, with_pairs) if bars_are_templates(manifest) else _by_dataset(datasets, with_pairs)
    return stacked_bars(bars, title=f"{'Pairs' if with_pairs else 'Instructions'} by dataset and template")


def bars_are_templates(manifest: Mapping[str, Any]) -> bool:
    """Whether `pairs_by_template` draws each template, or only datasets."""
    datasets = manifest["datasets"]
    return len(datasets) + sum(len(dataset["templates"]) for dataset in datasets.values()) <= MOST_ROWS


def _by_template(datasets: Mapping[str, Any], with_pairs: bool) -> list[Bar]:
    bars = []
    for label, dataset in datasets.items():
        bars.append(Bar(label))
        members = [Bar(t["name"], _parts(t, with_pairs=with_pairs)) for t in dataset["templates"].values()]
        bars += sorted(members, key=lambda bar: -bar.total)
    return bars


def _by_dataset(datasets: Mapping[str, Any], with_pairs: bool) -> list[Bar]:
    bars = []
    for label, dataset in datasets.items():
        bars.append(Bar(label, sum_parts(_parts(t, with_pairs=with_pairs) for t in dataset["templates"].values())))
    return bars if len(bars) <= MOST_ROWS else longest(bars, "dataset", MOST_ROWS)


def instruction_lengths(manifest: Mapping[str, Any]) -> Markup | None:
    """How long the instructions of each dataset are; of too many datasets, those with the most instructions."""
    counted = manifest["lengths"]["instruction"]
    found = [label for label in manifest["datasets"] if any(counted.get(label, ()))]
    most = set(sorted(found, key=lambda label: -sum(counted[label]))[:MOST_ROWS])
    rows = [Histogram(label, counted[label], "accent", "instruction") for label in found if label in most]
    title = "Distributions of instruction lengths in characters, by dataset"
    return density_rows(rows, manifest["lengths"]["edges"], title=title) if rows else None


def response_lengths(manifest: Mapping[str, Any]) -> Markup | None:
    """How long the responses of each source are."""
    counted = manifest["lengths"]["response"]
    rows = [
        Histogram(source.label, counted[source.key], source.colour)
        for source in SOURCES
        if any(counted.get(source.key, ()))
    ]
    title = "Distributions of response lengths in characters, by label source"
    return density_rows(rows, manifest["lengths"]["edges"], title=title) if rows else None


def not_applicable(manifest: Mapping[str, Any]) -> Markup | None:
    """The templates that did not apply to some rows."""
    templates = [
        Bar(f"{shorten(template['name'], 34)} ({shorten(label, 22)})", {"quiet": template["not_applicable"]})
        for label, dataset in manifest["datasets"].items()
        for template in dataset["templates"].values()
        if template["not_applicable"]
    ]
    bars = longest(templates, "template", MOST_REASONS)
    return stacked_bars(bars, title="Rows that a template did not apply to", label_width=WORDY) if bars else None
