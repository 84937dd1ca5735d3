"""The page of a build-corpus run."""

from collections.abc import Mapping
from typing import Any

from beam_pipelines.jobs.build_corpus.job import plots as corpus_plots
from beam_pipelines.jobs.build_corpus.job import tables as corpus_tables
from beam_pipelines.jobs.build_corpus.sources import SOURCES
from beam_pipelines.report import tables as common
from beam_pipelines.report import text as words
from beam_pipelines.report.frame import KeyFigure, Page

NOTES = {
    "target_not_in_choices": "instructions whose correct response is not among their answer choices; they stay, "
    "and so do their wrong choices",
    "mismatch_skipped": "instructions without a mismatched response: each one drawn equalled a reference "
    "or overlapped one too much",
    "empty_generations": "candidates dropped because their response is empty",
    "no_rouge_tokens": "responses in which Rouge's tokenizer finds no word, such as one in another script "
    "or of symbols alone; in parity mode their label is 0",
}

MOST_WARNINGS = 10
OPEN_SAMPLES = 2
"""Sample pairs of each source that are shown at once; the rest are folded."""


def warnings(manifest: Mapping[str, Any]) -> list[str]:
    """What a finished corpus may be unfit for: templates most of whose instructions have no wrong response."""
    limit = manifest["configuration"]["negatives"]["overlap_limit"]
    found = [
        f"{label} {template['name']}: {words.number(template['without_wrong'])} of "
        f"{words.plural(template['rendered'], 'instruction')} have no wrong response (overlap_limit {limit})"
        for label, dataset in manifest["datasets"].items()
        for template in dataset["templates"].values()
        if template["without_wrong"] > template["rendered"] / 2
    ]
    more = len(found) - MOST_WARNINGS
    return [*found[:MOST_WARNINGS], *([f"and {words.plural(more, 'more template')}"] if more > 0 else [])]


def corpus_page(manifest: Mapping[str, Any]) -> Page:
    """The page for the manifest of a build-corpus run."""
    written = {source: counts["written"] for source, counts in manifest["pairs"].items()}
    return Page(
        template="corpus.html.j2",
        title="build-corpus",
        headline=_headline(manifest, sum(written.values())),
        lead=_lead(manifest, written),
        figures=_figures(manifest, sum(written.values())),
        content={
            **common.content(manifest),
            "shares": _shares(written),
            "labels": corpus_plots.labels(manifest),
            "pairs_by_template": corpus_plots.pairs_by_template(manifest),
            "bars_are_templates": corpus_plots.bars_are_templates(manifest),
            "instruction_lengths": corpus_plots.instruction_lengths(manifest),
            "response_lengths": corpus_plots.response_lengths(manifest),
            "not_applicable": corpus_plots.not_applicable(manifest),
            "merging": corpus_tables.merging(manifest),
            "template_pairs": corpus_tables.template_pairs(manifest),
            "accounting": corpus_tables.accounting(manifest, by_template=False),
            "template_accounting": corpus_tables.accounting(manifest, by_template=True),
            "notes": _notes(manifest),
            "warnings": warnings(manifest),
            "samples": [(source, manifest["samples"]["pairs"].get(source.key, [])) for source in SOURCES],
            "open_samples": OPEN_SAMPLES,
        },
    )


def _templates(manifest: Mapping[str, Any]) -> int:
    return sum(len(dataset["templates"]) for dataset in manifest["datasets"].values())


def _headline(manifest: Mapping[str, Any], written: int) -> str:
    made = words.plural(manifest["totals"]["instructions"], "instruction")
    datasets = words.plural(len(manifest["datasets"]), "dataset")
    origin = f"{made} from {datasets} and {words.plural(_templates(manifest), 'template')}"
    return f"{origin}, with {words.plural(written, 'labelled pair')}" if manifest["pairs"] else origin


def _lead(manifest: Mapping[str, Any], written: Mapping[str, int]) -> str:
    """One or two sentences that say what the pairs are and whether anything went wrong."""
    total = sum(written.values())
    kinds = [f"{words.share(written[s.key], total)} are {s.plural}" for s in SOURCES if written.get(s.key)]
    if kinds:
        first = f"Of the pairs, {words.listing(kinds)}."
    elif manifest["pairs"]:
        first = "No pairs were written."
    else:
        first = "Instructions only: no labelled pairs were asked for."
    return f"{first} {common.rejected_in_words(manifest)}"


def _figures(manifest: Mapping[str, Any], written: int) -> list[KeyFigure]:
    totals = manifest["totals"]
    files = sum(entry["dataset"] in manifest["datasets"] for entry in manifest["inputs"])
    others = words.plural(len(manifest["inputs"]) - files, "file")
    figures = [
        KeyFigure(words.number(totals["rows"]), "source rows", words.plural(files, "input file")),
        KeyFigure(words.number(totals["instructions"]), "instructions", words.plural(_templates(manifest), "template")),
    ]
    if manifest["pairs"]:
        ratio = f"{written / totals['instructions']:.2f} per instruction" if totals["instructions"] else ""
        figures.append(KeyFigure(words.number(written), "labelled pairs", ratio))
    if totals["candidates"]:
        figures.append(KeyFigure(words.number(totals["candidates"]), "candidates", f"of language models, {others}"))
    return figures + common.last_figures(manifest)


def _shares(written: Mapping[str, int]) -> list[dict[str, object]]:
    """The sources that have pairs, each with its count and its share of all pairs."""
    total = sum(written.values())
    present = [(source, written[source.key]) for source in SOURCES if written.get(source.key)]
    return [{"source": source, "count": count, "share": words.share(count, total)} for source, count in present]


def _notes(manifest: Mapping[str, Any]) -> list[tuple[int, str]]:
    """What was counted by the way, explained; what did not occur is left out."""
    return [(count, NOTES.get(name, words.human(name))) for name, count in manifest["notes"].items() if count]
