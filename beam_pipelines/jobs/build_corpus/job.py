"""build-corpus: datasets and templates -> a labelled corpus of instruction-response pairs."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import absolute
from beam_pipelines.jobs.build_corpus.candidates import NEEDED, PlaceCandidates, candidate_columns
from beam_pipelines.jobs.build_corpus.card import card
from beam_pipelines.jobs.build_corpus.estimate import Source, corpus_work
from beam_pipelines.jobs.build_corpus.labelling import LabelAndWrite
from beam_pipelines.jobs.build_corpus.manifest import CorpusSummary
from beam_pipelines.jobs.build_corpus.negatives import AddWrongResponses
from beam_pipelines.jobs.build_corpus.page import warnings
from beam_pipelines.jobs.build_corpus.render import RenderPlan, RenderTemplates, WriteInstructions, threshold
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import forecast
from beam_pipelines.runners.options import JobConfig, positive
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.job import Job, Run
from beam_pipelines.runs.progress import Stage
from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.mixture import Dataset, Mixture, load_mixture
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.shuffle import GroupIntoShards, finishing_memory, shards_for
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.ids import digest
from schemas.manifest import FORMAT_VERSION

JOB = "build-corpus"


@dataclass(frozen=True, kw_only=True)
class BuildCorpusConfig(JobConfig):
    """What build-corpus is told beside what every job is. `shards` None: by the size of the inputs."""

    mixture: str
    candidates: str | None = None
    instructions_only: bool = False
    shards: int | None = None


@dataclass(frozen=True)
class CorpusPlan:
    """A configuration with everything looked up: the mixture, its inputs (one for each dataset), and what follows.

    `bytes` is about how much text the pairs have.
    """

    config: BuildCorpusConfig
    mixture: Mixture
    inputs: tuple[Input, ...]
    wanted: tuple[ReadSpec, ...]
    candidates: Input | None
    bytes: int
    shards: int

    @property
    def memory(self) -> int:
        """Bytes that a machine needs which finishes shards."""
        return finishing_memory(self.bytes, self.shards)

    @property
    def folder(self) -> OutputDir:
        """Where everything is written."""
        return OutputDir(absolute(self.config.output), self.config.storage)

    @property
    def render_plans(self) -> list[RenderPlan]:
        """How each dataset is rendered."""
        truncate, seed = self.mixture.file.truncate, self.config.seed
        return [
            RenderPlan(
                dataset, truncate, seed, threshold(dataset.entry.max_examples, len(dataset.templates), found.rows)
            )
            for dataset, found in zip(self.mixture.datasets, self.inputs, strict=True)
        ]

    @property
    def instructions(self) -> int:
        """About how many instructions there will be: every kept row under every template."""
        return sum(self.made_of(*pair) for pair in zip(self.render_plans, self.inputs, strict=True))

    @staticmethod
    def made_of(plan: RenderPlan, source: Input) -> int:
        """About how many instructions one dataset will have, as if every template rendered for every row."""
        return source.rows * len(plan.dataset.templates) * plan.keep // 2**64

    @property
    def units(self) -> int:
        """About how many units the datasets have; a little more where rows are large or compressed."""
        found = zip(self.wanted, self.inputs, strict=True)
        return sum(-(-file.rows // wanted.unit_rows) for wanted, source in found for file in source.files)


def plan(config: BuildCorpusConfig) -> CorpusPlan:
    """Reads the mixture and looks into every input.

    Raises UsageError or CappyError, naming the value and the place, for anything that is wrong before a row is read.
    """
    if config.instructions_only and config.candidates:
        raise UsageError("--candidates and --instructions-only exclude each other: candidates make pairs")
    if config.instructions_only and config.shards:
        raise UsageError("--shards and --instructions-only exclude each other: shards are files of pairs")
    mixture = load_mixture(absolute(config.mixture), config.storage)
    inputs: list[Input] = []
    for group, dataset in enumerate(mixture.datasets):
        first = sum(len(source.files) for source in inputs)
        inputs.append(open_input(dataset.paths, config.storage, group=group, first=first, limit=config.limit))
    wanted = [_wanted(*pair) for pair in zip(mixture.datasets, inputs, strict=True)]
    candidates = None
    if config.candidates:
        candidates = open_input([absolute(config.candidates)], config.storage, limit=config.limit)
        candidate_columns(candidates.schema)
    size = _estimated_bytes(mixture, inputs, candidates)
    shards = config.shards or shards_for(size)
    return CorpusPlan(config, mixture, tuple(inputs), tuple(wanted), candidates, size, shards)


def _wanted(dataset: Dataset, source: Input) -> ReadSpec:
    """The columns that the templates of a dataset use. Raises CappyError for a variable that no column gives."""
    variables: dict[str, str] = {}
    for template in dataset.templates:
        for variable in CompiledTemplate(template, truncate=None, seed=0).variables:
            variables.setdefault(variable, template.name)
    columns = {dataset.variable(column): column for column in source.schema.names}
    if len(columns) < len(source.schema):
        raise CappyError(f"dataset {dataset.label}: two columns become one variable: {', '.join(source.schema.names)}")
    unknown = sorted(set(dataset.entry.rename) - set(source.schema.names))
    if unknown:
        raise CappyError(f"dataset {dataset.label}: `rename` names {unknown[0]!r}; {_columns(source)}")
    for variable, user in sorted(variables.items()):
        if variable not in columns:
            raise CappyError(
                f"dataset {dataset.label}: template {user!r} uses {variable!r}; {_columns(source)}. "
                "`rename` maps columns to variables, and `templates` can leave a template out."
            )
    # A template may use no column at all; one is read for the number of rows.
    used = [columns[variable] for variable in variables] or source.schema.names[:1]
    fields = [source.schema.field(column) for column in used]
    return ReadSpec(pa.schema(fields), max(1, CHUNK_ROWS // len(dataset.templates)))


def _columns(source: Input) -> str:
    return f"the columns are {', '.join(source.schema.names)}"


def _estimated_bytes(mixture: Mixture, inputs: list[Input], candidates: Input | None) -> int:
    """About the bytes of all pairs: rows x templates x (reference and wrong responses), and the candidates."""
    negatives = mixture.file.negatives
    each = 1 + max(negatives.wrong_choices, negatives.mismatched)
    total = 0
    for dataset, source in zip(mixture.datasets, inputs, strict=True):
        keep = threshold(dataset.entry.max_examples, len(dataset.templates), source.rows)
        total += source.bytes * len(dataset.templates) * each * keep // 2**64
    return total + (candidates.bytes if candidates else 0)


def facts(plan: CorpusPlan) -> dict[str, Any]:
    """Everything that shapes the bytes of the corpus: what the fingerprint is made of."""
    config, file = plan.config, plan.mixture.file
    datasets = []
    for dataset, source in zip(plan.mixture.datasets, plan.inputs, strict=True):
        entry = {"rename": dataset.entry.rename, "max_examples": dataset.entry.max_examples}
        templates = [
            {"name": t.name, "id": t.id, "texts": digest(t.jinja, t.answer_choices)} for t in dataset.templates
        ]
        files = [found.fingerprint_inputs() for found in source.files]
        datasets.append({"name": dataset.label, **entry, "templates": templates, "files": files})
    return {
        "job": JOB,
        "format_version": FORMAT_VERSION,
        "settings": {
            "seed": config.seed,
            "limit": config.limit,
            "instructions_only": config.instructions_only,
            "shards": None if config.instructions_only else plan.shards,
            "truncate": file.truncate,
            "rouge": file.rouge,
            "negatives": file.negatives.model_dump(),
        },
        "datasets": datasets,
        "candidates": [found.fingerprint_inputs() for found in plan.candidates.files] if plan.candidates else None,
    }


def build(root: beam.Pipeline, plan: CorpusPlan, finish: FinishRun) -> None:
    """Datasets are rendered and written, then sliced with the candidates into shards, labelled, merged and written."""
    config, file, folder = plan.config, plan.mixture.file, plan.folder
    rendered = (
        root
        | "Datasets" >> beam.Create([found for source in plan.inputs for found in source.files])
        | "ReadDatasets" >> ReadInputs(plan.wanted, folder)
        | "RenderTemplates" >> RenderTemplates(plan.render_plans)
    )
    all_stats = [rendered | "WriteInstructions" >> WriteInstructions(folder)]
    if not config.instructions_only:
        add_wrong = AddWrongResponses(file.negatives, file.rouge, config.seed)
        instructions, counted = rendered | "AddWrongResponses" >> add_wrong
        chunks = [instructions]
        all_stats.append(counted)
        if plan.candidates:
            candidates, counted = (
                root
                | "Candidates" >> beam.Create(plan.candidates.files)
                | "ReadCandidates"
                >> ReadInputs([ReadSpec(candidate_columns(plan.candidates.schema), CHUNK_ROWS)], folder)
                | "PlaceCandidates" >> PlaceCandidates(folder)
            )
            chunks.append(candidates)
            all_stats.append(counted)
        all_stats.append(
            chunks
            | "Chunks" >> beam.Flatten()
            | "GroupIntoShards" >> GroupIntoShards("instruction", plan.shards)
            | "LabelAndWrite" >> LabelAndWrite(folder, plan.shards, file.rouge).with_resource_hints(min_ram=plan.memory)
        )
    all_stats | "AllStats" >> beam.Flatten() | "FinishRun" >> finish


def run(config: BuildCorpusConfig, options: PipelineOptions) -> dict[str, Any]:
    """Builds a corpus; its manifest. A finished one is recognised and left alone. Raises CappyError."""
    planned = plan(config)
    known = facts(planned)
    stages = [Stage("instructions", planned.instructions, planned.units, resumes=False)]
    stages += [] if config.instructions_only else [Stage("pairs", None, planned.shards, resumes=False)]
    described = card(instructions_only=config.instructions_only)
    inputs = [*planned.inputs, *([planned.candidates] if planned.candidates else [])]
    run = Run(planned.folder, inputs, known, described, CorpusSummary(planned.mixture, known), stages)
    return run.carry_out(config, options, lambda root, finish: build(root, planned, finish))


def dry_run(config: BuildCorpusConfig, options: PipelineOptions) -> str:
    """What the job would do: inputs, units, rows, instructions and shards, and about how long it takes."""
    planned = plan(config)
    lines = [f"{'dataset':32} {'files':>6} {'rows':>12} {'templates':>9} {'instructions, at most':>22}"]
    for found, source in zip(planned.render_plans, planned.inputs, strict=True):
        instructions, templates = planned.made_of(found, source), len(found.dataset.templates)
        lines.append(
            f"{found.dataset.label:32} {len(source.files):>6,} {source.rows:>12,} {templates:>9} {instructions:>22,}"
        )
    shards = "no pairs" if config.instructions_only else f"{plural(planned.shards, 'shard')} of pairs"
    candidates = f", {plural(planned.candidates.rows, 'candidate')}" if planned.candidates else ""
    lines.append(
        f"at most {plural(planned.instructions, 'instruction')}{candidates}, "
        f"about {plural(planned.units, 'unit')}, {shards}"
    )
    work = corpus_work(_sources(planned), planned.mixture.file, pairs=not config.instructions_only)
    without = ", candidates not counted" if candidates else ""
    lines.append(f"by timing some rows of each dataset here{without}: {forecast(work, options, 'core')}")
    return "\n".join(lines)


def _sources(planned: CorpusPlan) -> list[Source]:
    found = zip(planned.render_plans, planned.inputs, planned.wanted, strict=True)
    return [
        Source(plan, source.first_with_rows, wanted, planned.made_of(plan, source)) for plan, source, wanted in found
    ]


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mixture", required=True, metavar="FILE", help="YAML file of datasets and templates")
    parser.add_argument(
        "--candidates",
        metavar="PATTERN",
        help="files of responses sampled from models, to be labelled too, with the columns "
        f"{', '.join(NEEDED)}; relative to the working directory",
    )
    parser.add_argument("--instructions-only", action="store_true", help="no pairs: only the instructions")
    parser.add_argument("--shards", type=positive, metavar="N", help="files of pairs (default: by size)")


def _summary(manifest: Mapping[str, Any]) -> str:
    totals, rejects = manifest["totals"], manifest["rejects"]
    pairs = f" and {plural(totals['pairs'], 'pair')}" if manifest["pairs"] else ""
    candidates = f" and {plural(totals['candidates'], 'candidate')}" if totals["candidates"] else ""
    made = f"{plural(totals['instructions'], 'instruction')}{pairs}"
    read = f"{plural(totals['rows'], 'source row')}{candidates}"
    line = f"{made} from {read}, {plural(rejects['rows'], 'reject row')}, in {manifest['seconds']} s"
    return "\n".join([line, *(f"warning: {warning}" for warning in warnings(manifest))])


BUILD_CORPUS: Job = Job(
    name=JOB,
    help="datasets and templates -> a labelled corpus",
    config=BuildCorpusConfig,
    add_flags=_add_flags,
    run=run,
    dry_run=dry_run,
    summary=_summary,
    local_mode="multi_processing",
)

if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main(["build-corpus", *sys.argv[1:]]))
