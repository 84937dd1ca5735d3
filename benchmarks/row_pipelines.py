"""The peers of build-corpus: the obvious Beam pipeline, with rows as dicts, in two modes.

    python -m benchmarks.row_pipelines --mode compile --mixture FILE.yaml --output DIR [--candidates PATTERN] [FLAGS]

Both read with ReadFromParquet, render every template over every row, label, key by pair, keep the best label of each,
and write with WriteToParquet. They make the pairs of build-corpus, except that mismatched responses are drawn
differently; they write no instructions, rejects, manifest or report. The modes:

- `compile`: jinja2 compiles a template for each row, as PromptSource's `Template.apply` does, and Rouge-L is that of
  rouge_score.
- `cached`: templates are compiled once and Rouge-L is that of this project, both of which a row pipeline can use.

Two choices make the peers faster: a Reshuffle after reading (small files would otherwise keep one worker busy), and
mismatched responses drawn within batches instead of a shuffle by template.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import jinja2
from apache_beam.io.parquetio import ReadFromParquet, WriteToParquet
from apache_beam.options.pipeline_options import PipelineOptions
from jinja2.filters import do_truncate
from rouge_score.rouge_scorer import RougeScorer

from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.files import Template
from beam_pipelines.templates.mixture import Mixture, Negatives, load_mixture
from benchmarks.machine import make_parser
from benchmarks.rendering import escape, split
from cappy_model.metrics.rouge import RougeL
from schemas.ids import digest, pair_ids
from schemas.records import GENERATED, GROUND_TRUTH, LABEL_SOURCES, LABELLED_PAIR, MISMATCH, WRONG_CHOICE

MODES = ("compile", "cached")
BATCH = 500
REDRAWS = 5

Row = dict[str, Any]
Example = dict[str, Any]
Pair = dict[str, Any]
Rendering = tuple[str, str, list[str] | None]


class CompileAtEachCall:
    """Renderer that compiles the template at each call, as PromptSource's `Template.apply` does.

    PromptSource truncates by rewriting the source. To match build-corpus, only values of the input side are truncated,
    as they are written. Few inputs are long enough, so a long one is rendered a second time.
    """

    def __init__(self, truncate: int | None) -> None:
        self._truncate, self._plain, self._cutting = truncate, _environment(), _environment(truncate)

    def render(self, template: Template, row: Row) -> Rendering | None:
        """Return (instruction, reference, choices), or None if the template does not apply to the row."""
        variables = {key: escape(value) for key, value in row.items()}
        choices = None
        if template.answer_choices:
            choices = split(self._plain.from_string(template.answer_choices).render(**variables))
            variables["answer_choices"] = choices
        parts = split(self._plain.from_string(template.jinja).render(**variables))
        if len(parts) != 2 or not all(parts):
            return None
        if self._truncate is not None and len(parts[0]) > self._truncate:
            parts[0] = split(self._cutting.from_string(template.jinja).render(**variables))[0]
        return parts[0], parts[1], choices


def _environment(truncate: int | None = None) -> jinja2.Environment:
    environment = jinja2.Environment()
    if truncate is not None:
        environment.finalize = lambda value: do_truncate(environment, str(value), truncate)
    environment.globals["zip"] = zip
    environment.filters["choice"] = random.choice
    return environment


class CompileOnce:
    """Renderer with the compiled templates of this project."""

    def __init__(self, truncate: int | None, templates: Iterable[Template]) -> None:
        self._compiled = {id(item): CompiledTemplate(item, truncate=truncate, seed=0) for item in templates}

    def render(self, template: Template, row: Row) -> Rendering | None:
        """Return (instruction, reference, choices), or None if the template does not apply to the row."""
        rendered = self._compiled[id(template)].render(row, "")
        return (rendered.instruction, rendered.references[0], rendered.choices) if rendered else None


class PeerRougeL:
    """Rouge-L of rouge_score, with the interface of this project's."""

    def __init__(self) -> None:
        self._scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def score(self, references: Sequence[str], response: str) -> float:
        """Return the largest F-measure over the references."""
        return max(float(self._scorer.score(reference, response)["rougeL"].fmeasure) for reference in references)


def rouge_of(mode: str) -> RougeL | PeerRougeL:
    """Return the Rouge-L of a mode."""
    return RougeL() if mode == "cached" else PeerRougeL()


class RenderTemplates(beam.DoFn):
    """Render rows: (number of the dataset, row) -> an example for each template that applies."""

    def __init__(self, mixture: str, mode: str) -> None:
        self._url, self._mode = mixture, mode

    def setup(self) -> None:
        mixture = load_mixture(self._url, {})
        self._datasets = mixture.datasets
        self._renderer: CompileAtEachCall | CompileOnce = CompileAtEachCall(mixture.file.truncate)
        if self._mode == "cached":
            templates = [template for dataset in mixture.datasets for template in dataset.templates]
            self._renderer = CompileOnce(mixture.file.truncate, templates)

    def process(self, element: tuple[int, Row]) -> Iterator[Example]:
        number, values = element
        dataset = self._datasets[number]
        row = {dataset.variable(column): value for column, value in values.items()}
        if row.get("label", 0) in (None, -1):
            return
        for template in dataset.templates:
            rendered = self._renderer.render(template, row)
            if rendered is None:
                continue
            instruction, reference, choices = rendered
            yield {
                "instruction_id": digest(dataset.label, template.id, instruction),
                "dataset": dataset.entry.name,
                "subset": dataset.entry.subset,
                "split": dataset.entry.split,
                "template_id": template.id,
                "instruction": instruction,
                "references": [reference],
                "choices": choices,
            }


def pair_of(example: Example, response: str, label: float, source: str, generator: str | None = None) -> Pair:
    """Return a LABELLED_PAIR row."""
    pair = {name: example[name] for name in LABELLED_PAIR.names if name in example}
    pair.update(pair_id=pair_ids(example["instruction"])(response), response=response)
    pair.update(label=label, label_source=source, generator=generator)
    return pair


def ground_truth_and_wrong_choices(example: Example, limit: int) -> Iterator[Pair]:
    """Yield the pairs of one example: its reference, and its first `limit` other choices."""
    for reference in example["references"]:
        yield pair_of(example, reference, 1.0, GROUND_TRUTH)
    choices = dict.fromkeys(choice.strip() for choice in example["choices"] or [])
    wrong = [choice for choice in choices if choice and choice not in example["references"]]
    for choice in wrong[:limit]:
        yield pair_of(example, choice, 0.0, WRONG_CHOICE)


class Mismatch(beam.DoFn):
    """Pair examples without choices with responses of other examples of the same batch and template."""

    def __init__(self, mode: str, negatives: Negatives) -> None:
        self._mode, self._negatives = mode, negatives

    def setup(self) -> None:
        self._rouge = rouge_of(self._mode)

    def process(self, batch: list[Example]) -> Iterator[Pair]:
        groups: dict[str, list[Example]] = {}
        for example in batch:
            groups.setdefault(example["template_id"], []).append(example)
        for group in groups.values():
            for example in group:
                for response in self._draw(example, group):
                    yield pair_of(example, response, 0.0, MISMATCH)

    def _draw(self, example: Example, group: Sequence[Example]) -> list[str]:
        draws = random.Random(example["instruction_id"])
        drawn: list[str] = []
        for _ in range(self._negatives.mismatched + REDRAWS):
            if len(drawn) == self._negatives.mismatched:
                break
            response = draws.choice(group)["references"][0]
            known = response in drawn or response in example["references"]
            if not known and self._rouge.score(example["references"], response) < self._negatives.overlap_limit:
                drawn.append(response)
        return drawn


class LabelCandidates(beam.DoFn):
    """Label candidates by Rouge-L: (key of the instruction's text, {examples, candidates}) -> pairs."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def setup(self) -> None:
        self._rouge = rouge_of(self._mode)

    def process(self, element: tuple[str, Mapping[str, Iterable[Any]]]) -> Iterator[Pair]:
        examples = list(element[1]["examples"])
        if not examples:
            return
        references = [reference for example in examples for reference in example["references"]]
        for candidate in element[1]["candidates"]:
            response = candidate["response"].strip()
            if response:
                label = self._rouge.score(references, response)
                yield pair_of(examples[0], response, label, GENERATED, candidate["generator"])


def by_instruction(row: Row) -> tuple[str, Row]:
    """Key a row by the text of its instruction."""
    return digest(row["instruction"]), row


def by_pair(pair: Pair) -> tuple[str, Pair]:
    """Key a pair by its texts."""
    return pair["pair_id"], pair


def best_of(_: str, pairs: Iterable[Pair]) -> Pair:
    """Merge equal pairs: the most reliable label, and the generator of a generated pair."""
    equal = list(pairs)
    best = min(equal, key=lambda pair: (LABEL_SOURCES.index(pair["label_source"]), -pair["label"]))
    generator = min((pair["generator"] for pair in equal if pair["generator"]), default=None)
    return {**best, "generator": generator}


def read_rows(pipeline: beam.Pipeline, mixture: Mixture) -> beam.PCollection:
    """Read all rows of a mixture as (number of the dataset, row)."""
    parts = []
    for number, dataset in enumerate(mixture.datasets):
        for index, path in enumerate(dataset.paths):
            rows = pipeline | f"Read {dataset.label} {index}" >> ReadFromParquet(path)
            parts.append(rows | f"Number {dataset.label} {index}" >> beam.Map(lambda row, number=number: (number, row)))
    return parts | beam.Flatten() | beam.Reshuffle()


def build(pipeline: beam.Pipeline, *, mixture_url: str, mode: str, candidates: str | None, output: str) -> None:
    """Build the pipeline."""
    mixture = load_mixture(mixture_url, {})
    negatives = mixture.file.negatives
    examples = read_rows(pipeline, mixture) | "Render" >> beam.ParDo(RenderTemplates(mixture_url, mode))
    pairs = [
        examples | "Label" >> beam.FlatMap(ground_truth_and_wrong_choices, negatives.wrong_choices),
        examples
        | "Without choices" >> beam.Filter(lambda example: example["choices"] is None)
        | "Batch" >> beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
        | "Mismatch" >> beam.ParDo(Mismatch(mode, negatives)),
    ]
    if candidates:
        rows = pipeline | "Read candidates" >> ReadFromParquet(candidates)
        keyed = {
            "examples": examples | "Key examples" >> beam.Map(by_instruction),
            "candidates": rows | "Key candidates" >> beam.Map(by_instruction),
        }
        pairs.append(keyed | beam.CoGroupByKey() | "Label candidates" >> beam.ParDo(LabelCandidates(mode)))
    merged = (
        pairs
        | "All pairs" >> beam.Flatten()
        | "Key pairs" >> beam.Map(by_pair)
        | beam.GroupByKey()
        | beam.MapTuple(best_of)
    )
    write = WriteToParquet(f"{output}/pairs/shard", LABELLED_PAIR, codec="zstd", file_name_suffix=".parquet")
    merged | "Write" >> write


def main(argv: Sequence[str] | None = None) -> None:
    """Run the pipeline."""
    parser = make_parser(__doc__)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--mixture", required=True, metavar="FILE.yaml", help="as of build-corpus; Parquet inputs")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--candidates", metavar="PATTERN", help="rows of the CANDIDATE schema, as Parquet")
    own, rest = parser.parse_known_args(argv)
    with beam.Pipeline(options=PipelineOptions(rest)) as pipeline:
        build(pipeline, mixture_url=own.mixture, mode=own.mode, candidates=own.candidates, output=own.output)


if __name__ == "__main__":
    # Imported by its own name, so that workers in other processes can import what they unpickle.
    from benchmarks.row_pipelines import main as run

    run()
