"""The peers of build-corpus: the Beam pipeline that one would write first, with rows as dicts, in two modes.

    python -m benchmarks.row_pipelines --mode compile --mixture FILE.yaml --output DIR [--candidates PATTERN] [FLAGS]

Both read with ReadFromParquet, render every template over every row, label, key by pair, keep the best label of each,
and write with WriteToParquet. They make the pairs of build-corpus, but for mismatched responses, which are drawn
differently; they write no instructions, rejects, manifest or report. The modes:

- `compile` is what there was before: jinja2 compiles a template for each row, as PromptSource's `Template.apply` does,
  and Rouge-L comes from rouge_score.
- `cached` has the parts of this project that a row pipeline can use: templates compiled once, and its Rouge-L.

Two departures from the first draft speed the peers up: a Reshuffle after reading (small files would keep one worker
busy otherwise), and mismatched responses drawn within batches in place of a shuffle by template.
"""

import argparse
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
from cappy_model.metrics.rouge import RougeL
from schemas.ids import digest, pair_ids
from schemas.records import GENERATED, GROUND_TRUTH, LABEL_SOURCES, LABELLED_PAIR, MISMATCH, WRONG_CHOICE

MODES = ("compile", "cached")
BATCH = 500
REDRAWS = 5
PIPE_PROTECTOR = "3ed2dface8203c4c9dfb1a5dc58e41e0"  # PromptSource's own, for `|||` in data

Row = dict[str, Any]
Example = dict[str, Any]
Pair = dict[str, Any]
Rendering = tuple[str, str, list[str] | None]


class CompileAtEachCall:
    """Renders as PromptSource's `Template.apply` does: from the template's source, at each call.

    PromptSource truncates by rewriting the source; to give what build-corpus gives, values of the input side are
    truncated as they are written. Few inputs are long enough, so it is done by rendering once more when one is.
    """

    def __init__(self, truncate: int | None) -> None:
        self._truncate = truncate
        self._plain = _environment()
        self._cutting = _environment(truncate)

    def render(self, template: Template, row: Row) -> Rendering | None:
        """(instruction, reference, choices), or None for a row that the template does not apply to."""
        variables = {key: _protect(value) for key, value in row.items()}
        choices = None
        if template.answer_choices:
            choices = _parts(self._plain.from_string(template.answer_choices).render(**variables))
            variables["answer_choices"] = choices
        parts = _parts(self._plain.from_string(template.jinja).render(**variables))
        if len(parts) != 2 or not all(parts):
            return None
        if self._truncate is not None and len(parts[0]) > self._truncate:
            parts[0] = _parts(self._cutting.from_string(template.jinja).render(**variables))[0]
        return parts[0], parts[1], choices


def _environment(truncate: int | None = None) -> jinja2.Environment:
    environment = jinja2.Environment()
    if truncate is not None:
        environment.finalize = lambda value: do_truncate(environment, str(value), truncate)
    environment.globals["zip"] = zip
    environment.filters["choice"] = random.choice
    return environment


def _protect(value: Any) -> Any:
    return value.replace("|||", PIPE_PROTECTOR) if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    return [part.replace(PIPE_PROTECTOR, "|||").strip() for part in text.split("|||")]


class CompileOnce:
    """Renders with this project's compiled templates."""

    def __init__(self, truncate: int | None, templates: Iterable[Template]) -> None:
        self._compiled = {id(item): CompiledTemplate(item, truncate=truncate, seed=0) for item in templates}

    def render(self, template: Template, row: Row) -> Rendering | None:
        """(instruction, reference, choices), or None for a row that the template does not apply to."""
        rendered = self._compiled[id(template)].render(row, "")
        return (rendered.instruction, rendered.references[0], rendered.choices) if rendered else None


class PeerRougeL:
    """rouge_score's Rouge-L, with the `score` of this project's."""

    def __init__(self) -> None:
        self._scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def score(self, references: Sequence[str], response: str) -> float:
        """The best F-measure over the references."""
        return max(float(self._scorer.score(reference, response)["rougeL"].fmeasure) for reference in references)


def rouge_of(mode: str) -> RougeL | PeerRougeL:
    """The Rouge-L of a mode."""
    return RougeL() if mode == "cached" else PeerRougeL()


class RenderTemplates(beam.DoFn):
    """(number of the dataset, row) -> an example for each template that applies."""

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
    """A row of LABELLED_PAIR."""
    pair = {name: example[name] for name in LABELLED_PAIR.names if name in example}
    pair.update(pair_id=pair_ids(example["instruction"])(response), response=response)
    pair.update(label=label, label_source=source, generator=generator)
    return pair


def ground_truth_and_wrong_choices(example: Example, limit: int) -> Iterator[Pair]:
    """The pairs that an example makes alone: its reference, and the first `limit` other choices."""
    for reference in example["references"]:
        yield pair_of(example, reference, 1.0, GROUND_TRUTH)
    choices = dict.fromkeys(choice.strip() for choice in example["choices"] or [])
    wrong = [choice for choice in choices if choice and choice not in example["references"]]
    for choice in wrong[:limit]:
        yield pair_of(example, choice, 0.0, WRONG_CHOICE)


class Mismatch(beam.DoFn):
    """Batches of examples without choices -> pairs with responses of other examples of the same batch and template."""

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
    """(key, {examples, candidates}) of one instruction's text -> its candidates as pairs labelled by Rouge-L."""

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
    """A row keyed by the text of its instruction."""
    return digest(row["instruction"]), row


def by_pair(pair: Pair) -> tuple[str, Pair]:
    """A pair keyed by its texts."""
    return pair["pair_id"], pair


def best_of(_: str, pairs: Iterable[Pair]) -> Pair:
    """Of equal pairs the one whose label is best known; it takes over the generator of a generated one."""
    equal = list(pairs)
    best = min(equal, key=lambda pair: (LABEL_SOURCES.index(pair["label_source"]), -pair["label"]))
    generator = min((pair["generator"] for pair in equal if pair["generator"]), default=None)
    return {**best, "generator": generator}


def read_rows(pipeline: beam.Pipeline, mixture: Mixture) -> beam.PCollection:
    """(number of the dataset, row) of every row of a mixture."""
    parts = []
    for number, dataset in enumerate(mixture.datasets):
        for index, path in enumerate(dataset.paths):
            rows = pipeline | f"Read {dataset.label} {index}" >> ReadFromParquet(path)
            parts.append(rows | f"Number {dataset.label} {index}" >> beam.Map(lambda row, number=number: (number, row)))
    return parts | beam.Flatten() | beam.Reshuffle()


def build(pipeline: beam.Pipeline, *, mixture_url: str, mode: str, candidates: str | None, output: str) -> None:
    """The whole pipeline."""
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
        rows = (
            pipeline | "Read candidates" >> ReadFromParquet(candidates) | "Key candidates" >> beam.Map(by_instruction)
        )
        keyed = {"examples": examples | "Key examples" >> beam.Map(by_instruction), "candidates": rows}
        pairs.append(keyed | beam.CoGroupByKey() | "Label candidates" >> beam.ParDo(LabelCandidates(mode)))
    merged = (
        pairs
        | "All pairs" >> beam.Flatten()
        | "Key pairs" >> beam.Map(by_pair)
        | beam.GroupByKey()
        | beam.MapTuple(best_of)
    )
    merged | "Write" >> WriteToParquet(
        f"{output}/pairs/shard", LABELLED_PAIR, codec="zstd", file_name_suffix=".parquet"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument(
        "--mixture", required=True, metavar="FILE.yaml", help="as build-corpus takes it; Parquet inputs"
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--candidates", metavar="PATTERN", help="rows of the CANDIDATE schema, as Parquet")
    own, rest = parser.parse_known_args(argv)
    with beam.Pipeline(options=PipelineOptions(rest)) as pipeline:
        build(pipeline, mixture_url=own.mixture, mode=own.mode, candidates=own.candidates, output=own.output)


if __name__ == "__main__":
    # By the module's own name, so that workers in other processes can import what they unpickle.
    from benchmarks.row_pipelines import main as run

    run()
