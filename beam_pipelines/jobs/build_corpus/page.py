"""The page of a build-corpus run."""

from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipelines.jobs.build_corpus import plots, tables
from beam_pipelines.jobs.build_corpus.sources import SOURCES
from beam_pipelines.report import tables as shared
from beam_pipelines.report import text
from beam_pipelines.report.frame import KeyFigure, Page, count

_NOTES = {
    "target_not_in_choices": "instructions whose correct response is not among their answer choices; they and their "
    "wrong choices are kept",
    "mismatch_skipped": "instructions without a mismatched response: each sampled response equalled a reference "
    "or overlapped with one too much",
    "empty_generations": "candidates dropped because their response is empty",
    "no_rouge_tokens": "responses without tokens for Rouge, such as those of symbols or in another script; their label "
    "is 0 in parity mode",
}

_MOST_WARNINGS = 10
_MOST_EXAMPLES = 200
_OPEN_SAMPLES = 2
"""Sample pairs of a source that are not folded."""


def warnings(manifest: Mapping[str, Any]) -> list[str]:
    """Return the first warnings of the manifest; those of earlier versions have none."""
    return _first(manifest.get("warnings", []), "warning")


def few_wrong(manifest: Mapping[str, Any]) -> list[str]:
    """Return warnings about templates of which most instructions have no wrong response."""
    limit = manifest["configuration"]["negatives"]["overlap_limit"]
    found = [
        f"{label} {template['name']}: {text.number(template['without_wrong'])} of "
        f"{text.plural(template['rendered'], 'instruction')} have no wrong response (overlap_limit {limit})"
        for label, dataset in manifest["datasets"].items()
        for template in dataset["templates"].values()
        if template["without_wrong"] > template["rendered"] / 2
    ]
    return _first(found, "template")


def _first(found: Sequence[str], noun: str) -> list[str]:
    more = len(found) - _MOST_WARNINGS
    return [*found[:_MOST_WARNINGS], *([f"and {text.plural(more, f'more {noun}')}"] if more > 0 else [])]


def page(manifest: Mapping[str, Any]) -> Page:
    """Return the page for the manifest of a build-corpus run."""
    written = {source: counts["written"] for source, counts in manifest["pairs"].items()}
    return Page(
        title="build-corpus",
        headline=_headline(manifest, sum(written.values())),
        lead=_lead(manifest, written),
        figures=_figures(manifest, sum(written.values())),
        content={
            **shared.content(manifest),
            "shares": _shares(written),
            "legend": [(source.colour, source.label) for source in SOURCES if written.get(source.key)],
            "labels": plots.labels(manifest),
            "pairs_by_template": plots.pairs_by_template(manifest),
            "bars_are_templates": plots.bars_are_templates(manifest),
            "instruction_lengths": plots.instruction_lengths(manifest),
            "response_lengths": plots.response_lengths(manifest),
            "not_applicable": plots.not_applicable(manifest),
            "merging": tables.merging(manifest),
            "template_pairs": tables.template_pairs(manifest),
            "accounting": tables.accounting(manifest, by_template=False),
            "template_accounting": tables.accounting(manifest, by_template=True),
            "notes": _notes(manifest),
            "few_wrong": few_wrong(manifest),
            "warnings": warnings(manifest),
            "examples": _examples(manifest),
            "samples": [(source, manifest["samples"]["pairs"].get(source.key, [])) for source in SOURCES],
            "open_samples": _OPEN_SAMPLES,
        },
    )


def _templates(manifest: Mapping[str, Any]) -> int:
    return sum(len(dataset["templates"]) for dataset in manifest["datasets"].values())


def _headline(manifest: Mapping[str, Any], written: int) -> str:
    made = text.plural(manifest["totals"]["instructions"], "instruction")
    datasets = text.plural(len(manifest["datasets"]), "dataset")
    origin = f"{made} from {datasets} and {text.plural(_templates(manifest), 'template')}"
    return f"{origin}, with {text.plural(written, 'labelled pair')}" if manifest["pairs"] else origin


def _lead(manifest: Mapping[str, Any], written: Mapping[str, int]) -> str:
    total = sum(written.values())
    kinds = [f"{text.share(written[s.key], total)} are {s.plural}" for s in SOURCES if written.get(s.key)]
    if kinds:
        first = f"Of the pairs, {text.listing(kinds)}."
    elif manifest["pairs"]:
        first = "No pairs were written."
    else:
        first = "Instructions only: no labelled pairs were requested."
    return f"{first} {shared.rejected_in_words(manifest)}"


def _figures(manifest: Mapping[str, Any], written: int) -> list[KeyFigure]:
    totals = manifest["totals"]
    files = sum(entry["dataset"] in manifest["datasets"] for entry in manifest["inputs"])
    others = text.plural(len(manifest["inputs"]) - files, "file")
    figures = [
        count(totals["rows"], "source row", text.plural(files, "input file")),
        count(totals["instructions"], "instruction", text.plural(_templates(manifest), "template")),
    ]
    if manifest["pairs"]:
        ratio = f"{written / totals['instructions']:.2f} per instruction" if totals["instructions"] else ""
        figures.append(count(written, "labelled pair", ratio))
    if totals["candidates"]:
        figures.append(count(totals["candidates"], "candidate", f"of language models, {others}"))
    return figures + shared.last_figures(manifest)


def _shares(written: Mapping[str, int]) -> list[dict[str, object]]:
    """Return the sources that have pairs, each with its count and its share of all pairs."""
    total = sum(written.values())
    present = [(source, written[source.key]) for source in SOURCES if written.get(source.key)]
    return [{"source": source, "count": pairs, "share": text.share(pairs, total)} for source, pairs in present]


def _examples(manifest: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the first templates that have an example, by dataset; manifests of earlier versions have none."""
    found = [
        (label, {"name": template["name"], **template["example"]})
        for label, dataset in manifest["datasets"].items()
        for template in dataset["templates"].values()
        if template.get("example")
    ]
    examples: dict[str, list[dict[str, Any]]] = {}
    for label, example in found[:_MOST_EXAMPLES]:
        examples.setdefault(label, []).append(example)
    return examples


def _notes(manifest: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the counts of notable cases that occurred, each with its meaning."""
    return [(number, _NOTES.get(name, text.human(name))) for name, number in manifest["notes"].items() if number]
