"""The job `build-corpus`: how it is planned, fingerprinted and built."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.inputs import Input
from beam_pipelines.io.storage import absolute
from beam_pipelines.jobs.build_corpus.candidates import (
    PLACED_CANDIDATE,
    TEXTS_OF_CANDIDATES,
    candidate_columns,
    place_candidates,
)
from beam_pipelines.jobs.build_corpus.card import CARD
from beam_pipelines.jobs.build_corpus.config import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus.datasets import DatasetPlan, plan_dataset
from beam_pipelines.jobs.build_corpus.estimate import corpus_cost
from beam_pipelines.jobs.build_corpus.labelling import finish_shard
from beam_pipelines.jobs.build_corpus.manifest import corpus_manifest
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION, reduce_instructions
from beam_pipelines.jobs.build_corpus.page import few_wrong, page, warnings
from beam_pipelines.jobs.build_corpus.preview import preview, show, silent_in
from beam_pipelines.jobs.build_corpus.render import RenderTemplates
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import forecast
from beam_pipelines.runners.options import Placement
from beam_pipelines.runners.pipeline_job import ManifestOf, PipelineJob, Plan
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.inputs import open_inputs
from beam_pipelines.runs.progress import Stage
from beam_pipelines.templates.mixture import MixtureFile, load_mixture
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.results import write_result
from beam_pipelines.transforms.shuffle import FinishShards, GroupIntoShards, ReduceUnits, finishing_memory, shards_for
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError
from schemas.ids import digest


@dataclass(frozen=True)
class CorpusPlan(Plan):
    """A configuration with the mixture, its datasets and the candidates inspected.

    `inputs` are those of the datasets, then the candidates. `bytes` is the approximate text of all pairs.
    """

    config: BuildCorpusConfig
    mixture: MixtureFile
    datasets: tuple[DatasetPlan, ...]
    candidates: Input | None
    bytes: int
    shards: int

    @property
    def instructions(self) -> int:
        """The approximate number of instructions: an upper bound."""
        return sum(dataset.instructions for dataset in self.datasets)

    @property
    def units(self) -> int:
        """The approximate number of units of the datasets."""
        return sum(dataset.input.units(dataset.read) for dataset in self.datasets)


def plan(config: BuildCorpusConfig, placement: Placement) -> CorpusPlan:
    """Read the mixture and inspect every input. The plan is the same wherever the job runs.

    Raises UsageError or CappyError, naming the value and the place, for anything that is wrong before a row is read.
    """
    mixture = load_mixture(absolute(config.mixture), config.storage)
    datasets: list[DatasetPlan] = []
    inputs: list[Input] = []
    for group, dataset in enumerate(mixture.datasets):
        first = sum(len(source.files) for source in inputs)
        reading = replace(config, **dataset.entry.reading)
        inputs.append(open_inputs(reading, dataset.paths, templates=True, group=group, first=first))
        datasets.append(plan_dataset(dataset, inputs[-1], mixture=mixture.file, seed=config.seed))
    candidates, size = None, sum(dataset.pair_bytes(mixture.file.negatives) for dataset in datasets)
    if config.candidates:
        fixed = replace(config, text_columns=())  # the types of their columns are
        candidates = open_inputs(fixed, config.candidates, text=TEXTS_OF_CANDIDATES)
        candidate_columns(candidates.schema)
        inputs.append(candidates)
        size += candidates.bytes
    known = {name for source in inputs for name in (*source.schema.names, *source.unusable)}
    unknown = [name for name in config.text_columns if name not in known]
    if unknown:
        raise CappyError(f"--text-columns {unknown[0]}: no dataset of {config.mixture} has such a column")
    shards = config.shards or shards_for(size)
    return CorpusPlan(config, tuple(inputs), mixture.file, tuple(datasets), candidates, size, shards)


def fingerprint_inputs(plan: CorpusPlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the corpus."""
    config, mixture, candidates = plan.config, plan.mixture, plan.candidates
    return {
        "settings": {
            "seed": config.seed,
            "limit": config.limit,
            "instructions_only": config.instructions_only,
            "shards": None if config.instructions_only else plan.shards,
            "truncate": mixture.truncate,
            "rouge": mixture.rouge,
            "negatives": mixture.negatives.model_dump(),
        },
        "datasets": [
            {
                "name": planned.dataset.label,
                "rename": planned.dataset.entry.rename,
                "max_examples": planned.dataset.entry.max_examples,
                **({"reading": planned.dataset.entry.reading} if planned.dataset.entry.reading else {}),
                "templates": [
                    {"name": template.name, "id": template.id, "texts": digest(template.jinja, template.answer_choices)}
                    for template in planned.dataset.templates
                ],
                "files": [file.fingerprint_inputs() for file in planned.input.files],
                # Earlier versions printed 3.50 as 3.5, and 5 beside 4.5 as 5.0.
                **({"values": "as written"} if "json" in planned.read.as_written.values() else {}),
            }
            for planned in plan.datasets
        ],
        "candidates": [file.fingerprint_inputs() for file in candidates.files] if candidates else None,
    }


def build(root: beam.Pipeline, plan: CorpusPlan, finish: FinishRun) -> None:
    """Render and write the datasets; slice them, with the candidates, into shards; label, merge and write the pairs."""
    output = plan.output
    rendered = (
        root
        | "Datasets" >> beam.Create([file for dataset in plan.datasets for file in dataset.input.files])
        | "ReadDatasets" >> ReadInputs([dataset.read for dataset in plan.datasets], output)
        | "RenderTemplates" >> beam.ParDo(RenderTemplates([dataset.render for dataset in plan.datasets]))
    )
    all_stats = [rendered | "WriteInstructions" >> beam.Map(write_result, output, "instructions")]
    if not plan.config.instructions_only:
        all_stats += _write_pairs(root, rendered, plan)
    all_stats | "AllStats" >> beam.Flatten() | "FinishRun" >> finish


def _write_pairs(root: beam.Pipeline, rendered: beam.PCollection, plan: CorpusPlan) -> list[beam.PCollection]:
    """Label the rendered instructions and the candidates, and write the pairs; return all statistics."""
    output, rouge = plan.output, RougeL(plan.mixture.rouge)
    add_wrong = partial(reduce_instructions, rouge=rouge, negatives=plan.mixture.negatives, seed=plan.config.seed)
    instructions, counted = rendered | "AddWrongResponses" >> ReduceUnits(add_wrong, output)
    chunks, all_stats = [instructions], [counted]
    if plan.candidates:
        columns = candidate_columns(plan.candidates.schema)
        candidates, counted = (
            root
            | "Candidates" >> beam.Create(plan.candidates.files)
            | "ReadCandidates" >> ReadInputs([plan.candidates.read_spec(columns, CHUNK_ROWS)], output)
            | "PlaceCandidates" >> ReduceUnits(place_candidates, output)
        )
        chunks.append(candidates)
        all_stats.append(counted)
    schemas, label = (LABELLED_INSTRUCTION, PLACED_CANDIDATE), partial(finish_shard, rouge=rouge)
    write_pairs = FinishShards(label, schemas, plan.shards, output, "pairs")
    write_pairs.with_resource_hints(min_ram=finishing_memory(plan.bytes, plan.shards))
    written = (
        chunks
        | "Chunks" >> beam.Flatten()
        | "GroupIntoShards" >> GroupIntoShards("instruction", plan.shards)
        | "WritePairs" >> write_pairs
    )
    return [*all_stats, written]


def stages(plan: CorpusPlan) -> list[Stage]:
    """Return the folders that fill up: the instructions, then the pairs."""
    instructions = Stage("instructions", plan.instructions, plan.units, resumes=False)
    pairs = Stage("pairs", None, plan.shards, resumes=False)
    return [instructions] if plan.config.instructions_only else [instructions, pairs]


def manifest(plan: CorpusPlan, hashed: Mapping[str, Any]) -> ManifestOf:
    """Return the function that makes the manifest's part of a corpus."""
    entries = {planned.dataset.label: planned.dataset.entry for planned in plan.datasets}
    places = {label: (entry.name, entry.subset or "", entry.split or "") for label, entry in entries.items()}
    return partial(corpus_manifest, hashed=hashed, places=places)


def check(plan: CorpusPlan) -> list[str]:
    """Return a warning for each template that renders none of the first rows of its dataset.

    Raises CappyError if no template renders any row at all.
    """
    return silent_in([preview(planned, examples=1) for planned in plan.datasets])


def describe(plan: CorpusPlan, options: PipelineOptions) -> str:
    """Describe datasets, units, rows, instructions, shards and the approximate duration, measured on some rows.

    With --show, return examples of each template instead. Raises CappyError as `check`.
    """
    if plan.config.show:
        return "\n\n".join(show(planned, plan.config.show) for planned in plan.datasets)
    warned = check(plan)
    lines = [f"{'dataset':32} {'files':>6} {'rows':>12} {'templates':>9} {'instructions, at most':>22}"]
    for planned in plan.datasets:
        name, source, templates = planned.dataset.label, planned.input, len(planned.dataset.templates)
        rows = f"{len(source.files):>6,} {source.rows:>12,} {templates:>9}"
        lines.append(f"{name:32} {rows} {planned.instructions:>22,}")
    shards = "no pairs" if plan.config.instructions_only else f"{plural(plan.shards, 'shard')} of pairs"
    candidates = f", {plural(plan.candidates.rows, 'candidate')}" if plan.candidates else ""
    instructions, units = plural(plan.instructions, "instruction"), plural(plan.units, "unit")
    lines.append(f"at most {instructions}{candidates}, about {units}, {shards}")
    cost = corpus_cost(plan.datasets, plan.mixture, pairs=not plan.config.instructions_only)
    without = ", candidates not counted" if candidates else ""
    lines.append(f"measured on some rows of each dataset here{without}: {forecast(cost, options, 'core')}")
    lines += [f"warning: {warning}" for warning in warned]
    return "\n".join(lines)


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in a line, with a line for each warning."""
    totals, rejects = manifest["totals"], manifest["rejects"]
    pairs = f" and {plural(totals['pairs'], 'pair')}" if manifest["pairs"] else ""
    candidates = f" and {plural(totals['candidates'], 'candidate')}" if totals["candidates"] else ""
    written = f"{plural(totals['instructions'], 'instruction')}{pairs}"
    read = f"{plural(totals['rows'], 'source row')}{candidates}"
    line = f"{written} from {read}, {plural(rejects['rows'], 'reject row')}, in {manifest['seconds']} s"
    found = [*warnings(manifest), *few_wrong(manifest)]
    return "\n".join([line, *(f"warning: {warning}" for warning in found)])


JOB = PipelineJob(
    name="build-corpus",
    plan=plan,
    fingerprint_inputs=fingerprint_inputs,
    build=build,
    stages=stages,
    manifest=manifest,
    card=CARD,
    describe=describe,
    summarise=summarise,
    page=page,
    check=check,
)
