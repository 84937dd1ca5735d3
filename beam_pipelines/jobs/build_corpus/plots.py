"""Plots of a build-corpus report, each a function of the manifest; None where there is nothing to draw."""

from collections.abc import Mapping, Sequence
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
from beam_pipelines.report.tables import reason_bars
from beam_pipelines.report.text import shorten


def labels(manifest: Mapping[str, Any]) -> Markup | None:
    """Draw a histogram of labels for each source that has pairs."""
    rows = _by_source(manifest["labels"])
    return histogram_rows(rows, title="Histograms of labels from 0 to 1, by label source") if rows else None


def _by_source(counted: Mapping[str, Sequence[int]]) -> list[Histogram]:
    """Return the histogram of each label source that counts anything."""
    present = [source for source in SOURCES if any(counted.get(source.key, ()))]
    return [Histogram(source.label, counted[source.key], source.colour) for source in present]


def _parts(template: Mapping[str, Any], *, with_pairs: bool) -> dict[str, int]:
    """Return a template's pairs by the colour of their source, or its instructions if the corpus has no pairs."""
    if not with_pairs:
        return {"accent": template["rendered"]}
    return {source.colour: template["pairs"].get(source.key, 0) for source in SOURCES}


def pairs_by_template(manifest: Mapping[str, Any]) -> Markup | None:
    """Draw a bar for each template, or for each dataset if there are too many templates."""
    datasets, with_pairs = manifest["datasets"], bool(manifest["pairs"])
    if not datasets:
        return None
    bars = _by_template(datasets, with_pairs) if bars_are_templates(manifest) else _by_dataset(datasets, with_pairs)
    noun = "pairs" if with_pairs else "instructions"
    return stacked_bars(bars, title=f"{noun.capitalize()} by dataset and template", axis=noun)


def bars_are_templates(manifest: Mapping[str, Any]) -> bool:
    """Return whether `pairs_by_template` draws templates rather than datasets."""
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
    bars = [
        Bar(label, sum_parts(_parts(t, with_pairs=with_pairs) for t in dataset["templates"].values()))
        for label, dataset in datasets.items()
    ]
    return bars if len(bars) <= MOST_ROWS else longest(bars, "dataset", MOST_ROWS)


def instruction_lengths(manifest: Mapping[str, Any]) -> Markup | None:
    """Draw the lengths of instructions by dataset; of too many datasets, those with the most instructions."""
    counted = manifest["lengths"]["instruction"]
    found = [label for label in manifest["datasets"] if any(counted.get(label, ()))]
    most = set(sorted(found, key=lambda label: -sum(counted[label]))[:MOST_ROWS])
    rows = [Histogram(label, counted[label], "accent", "instruction") for label in found if label in most]
    title = "Distributions of instruction lengths in characters, by dataset"
    return density_rows(rows, manifest["lengths"]["edges"], title=title) if rows else None


def response_lengths(manifest: Mapping[str, Any]) -> Markup | None:
    """Draw the lengths of responses by label source."""
    rows = _by_source(manifest["lengths"]["response"])
    title = "Distributions of response lengths in characters, by label source"
    return density_rows(rows, manifest["lengths"]["edges"], title=title) if rows else None


def not_applicable(manifest: Mapping[str, Any]) -> Markup | None:
    """Draw the templates that did not apply to some rows."""
    bars = [
        Bar(f"{shorten(template['name'], 34)} ({shorten(label, 22)})", {"quiet": template["not_applicable"]})
        for label, dataset in manifest["datasets"].items()
        for template in dataset["templates"].values()
        if template["not_applicable"]
    ]
    return reason_bars(bars, "template", title="Rows that a template did not apply to", axis="rows")
