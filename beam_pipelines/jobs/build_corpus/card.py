"""The dataset card of a corpus: its origin, and the meaning of its columns and labels."""

from collections.abc import Iterator, Mapping
from typing import Any

from beam_pipelines.jobs.build_corpus.sources import SOURCES
from beam_pipelines.report.text import clean, flatten, plural
from beam_pipelines.runs.card import REJECTS, Card, Part, table

_MOST_GENERATORS = 50

_ORIGIN = {
    "instruction_id": ("text", "hash of dataset, subset, split, template and example"),
    "dataset": ("text", ""),
    "subset": ("text or null", ""),
    "split": ("text or null", ""),
    "template_id": ("text", "of the PromptSource template"),
}
_PAIRS = {
    "pair_id": ("text", "hash of instruction and response; unique"),
    **_ORIGIN,
    "instruction": ("text", ""),
    "response": ("text", ""),
    "label": ("float32", "how correct the response is, from 0 to 1"),
    "label_source": ("text", "where the label is known from; see above"),
    "generator": ("text or null", "the model that wrote this response, if one did"),
}
_INSTRUCTIONS = {
    **_ORIGIN,
    "template_name": ("text", ""),
    "example_id": ("text", "file and place of the source row"),
    "instruction": ("text", ""),
    "references": ("list of texts", "the correct responses, at least one"),
    "choices": ("list of texts or null", "all answer choices, where the template has some"),
}
_PARTS = (
    Part("pairs", "pairs/*.parquet", "the labelled pairs, one row for each (instruction, response)", _PAIRS),
    Part("instructions", "instructions/*.parquet", "the instructions with their correct responses", _INSTRUCTIONS),
    REJECTS,
)


def _title(manifest: Mapping[str, Any]) -> str:
    if manifest["configuration"]["instructions_only"]:
        return "Instructions with references"
    return "Instruction-response pairs with correctness labels"


def _text(manifest: Mapping[str, Any]) -> str:
    totals, pairs = manifest["totals"], manifest["pairs"]
    origin = f"{plural(totals['instructions'], 'instruction')} rendered from {plural(totals['rows'], 'source row')}"
    settings = ", ".join(f"{name} {value}" for name, value in flatten(manifest["configuration"]))
    sections = [f"{origin}, and {plural(totals['pairs'], 'labelled pair')}." if pairs else f"{origin}."]
    if pairs:
        rows = [[f"`{s.key}`", f"{pairs[s.key]['written']:,}", s.meaning] for s in SOURCES if s.key in pairs]
        sections.append("## Labels\n\n" + table(["label_source", "pairs", ""], rows))
    if manifest["generators"]:
        sections.append("Responses of language models: " + ", ".join(_generators(manifest["generators"])) + ".")
    sections.append("## Datasets and their templates\n\n" + "\n".join(_datasets(manifest)))
    sections.append(f"Settings: {settings}.")
    return "\n\n".join(sections)


def _generators(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the generators with the most pairs, in the order of their names."""
    most = sorted(sorted(counts, key=lambda name: -counts[name])[:_MOST_GENERATORS])
    yield from (f"{_line(name)} ({plural(counts[name], 'pair')})" for name in most)
    if len(counts) > len(most):
        yield f"and {plural(len(counts) - len(most), 'other generator')}"


def _datasets(manifest: Mapping[str, Any]) -> Iterator[str]:
    for label, dataset in manifest["datasets"].items():
        templates = dataset["templates"].values()
        instructions = plural(sum(template["rendered"] for template in templates), "instruction")
        names = "; ".join(_line(template["name"]) for template in templates)
        yield f"- **{_line(label)}**: {instructions} from {plural(dataset['rows'], 'source row')} by {names}"


def _line(text: str) -> str:
    return " ".join(clean(text).split())


CARD = Card(_title, _text, _PARTS)
