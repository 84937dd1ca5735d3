"""evaluate: scored candidates with references or labels -> how good the scores are, beside the baselines."""

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
from beam_pipelines.io.storage import absolute, join, read_bytes
from beam_pipelines.jobs.evaluate.columns import GENERATION, TASKS, EvaluatedColumns, evaluated_columns
from beam_pipelines.jobs.evaluate.conclusion import Conclude, EvaluateShards
from beam_pipelines.jobs.evaluate.manifest import CARD, EvaluationSummary, in_words, metrics, table
from beam_pipelines.jobs.evaluate.measure import MeasureCandidates
from beam_pipelines.jobs.rerank.reduction import GROUP
from beam_pipelines.report.text import listing, plural, size
from beam_pipelines.runners.options import JobConfig, positive
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.job import Job, Run
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.shuffle import GroupIntoShards, finishing_memory, shards_for
from cappy_model.metrics.ranking import REPLICATES
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.manifest import FORMAT_VERSION, METRICS, to_json

JOB = "evaluate"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JobConfig):
    """What evaluate is told beside what every job is: a pattern of files, and which of their columns are what.

    `group_column` None: `instruction_id` where there is one, else the instruction. `label_column` None: what a
    candidate is worth follows from the references; ranking needs one. `shards` None: by the size of the input.
    """

    input: str
    task: str = GENERATION
    group_column: str | None = None
    instruction_column: str = "instruction"
    response_column: str = "response"
    score_columns: tuple[str, ...] = ("score",)
    reference_column: str = "references"
    label_column: str | None = None
    shards: int | None = None


@dataclass(frozen=True)
class EvaluatePlan:
    """A configuration with everything looked up."""

    config: EvaluateConfig
    input: Input
    columns: EvaluatedColumns
    shards: int

    @property
    def folder(self) -> OutputDir:
        """Where everything is written."""
        return OutputDir(absolute(self.config.output), self.config.storage)


def plan(config: EvaluateConfig) -> EvaluatePlan:
    """Looks into scored rows. Raises CappyError for a column that is missing or cannot serve, and for an empty input;
    UsageError for what does not go together."""
    _check(config)
    found = open_input([absolute(config.input)], config.storage, limit=config.limit)
    if not found.rows:
        raise CappyError(f"{config.input}: has no rows, so there is nothing to evaluate")
    columns = columns_of(config, found.schema)
    return EvaluatePlan(config, found, columns, config.shards or shards_for(found.bytes))


def columns_of(config: EvaluateConfig, schema: pa.Schema) -> EvaluatedColumns:
    """Which columns of an input with this schema are what. Raises CappyError as `evaluated_columns` does."""
    return evaluated_columns(
        schema,
        task=config.task,
        group=config.group_column,
        instruction=config.instruction_column,
        response=config.response_column,
        scores=config.score_columns,
        reference=config.reference_column,
        label=config.label_column,
    )


def _check(config: EvaluateConfig) -> None:
    if config.task not in TASKS:
        raise UsageError(f"--task {config.task!r} is not known; there are {', '.join(TASKS)}")
    if config.task == GENERATION and config.label_column is not None:
        raise UsageError(
            f"--label-column {config.label_column!r}: --task generation compares responses with references; "
            "--task ranking compares scores with labels"
        )
    repeated = [name for name in config.score_columns if config.score_columns.count(name) > 1]
    if repeated or not config.score_columns:
        raise UsageError(f"--score-column {repeated[0]!r} is named twice" if repeated else "--score-column names none")


def facts(plan: EvaluatePlan) -> dict[str, Any]:
    """Everything that shapes the bytes of the results: what the fingerprint is made of."""
    config, columns = plan.config, plan.columns
    names = (
        *("group", "instruction", "response", "references", "label"),
        *("generator", "decoding", "sample_index", "template"),
    )
    return {
        "job": JOB,
        "format_version": FORMAT_VERSION,
        "settings": {
            "task": config.task,
            "seed": config.seed,
            "limit": config.limit,
            "columns": {
                **{name: getattr(columns, name) for name in names},
                "example": columns.example,
                "dataset": list(columns.dataset),
                "methods": dict(columns.methods),
            },
            "replicates": REPLICATES,
            "shards": plan.shards,
        },
        "inputs": [file.fingerprint_inputs() for file in plan.input.files],
    }


def build(root: beam.Pipeline, plan: EvaluatePlan, finish: FinishRun) -> None:
    """Candidates are measured and brought together by example; all examples come together in the last step."""
    folder, columns, shards = plan.folder, plan.columns, plan.shards
    evaluate, conclude = EvaluateShards(folder, columns, shards), Conclude(folder, columns, plan.config.seed)
    for holding in (evaluate, conclude):
        holding.with_resource_hints(min_ram=finishing_memory(plan.input.bytes, shards))
    candidates, measured = (
        root
        | "Input" >> beam.Create(plan.input.files)
        | "ReadInput" >> ReadInputs([ReadSpec(columns.schema, CHUNK_ROWS)], folder)
        | "MeasureCandidates" >> MeasureCandidates(folder, columns)
    )
    examples, evaluated = (
        candidates | "GroupIntoShards" >> GroupIntoShards(GROUP, shards) | "EvaluateShards" >> evaluate
    )
    concluded = examples | "Conclude" >> conclude
    (measured, evaluated, concluded) | "AllStats" >> beam.Flatten() | "FinishRun" >> finish


def run(config: EvaluateConfig, options: PipelineOptions) -> dict[str, Any]:
    """Evaluates scored rows; the manifest. Raises CappyError. A finished run is recognised and left alone."""
    planned = plan(config)
    known = facts(planned)
    run = Run(
        planned.folder, [planned.input], known, CARD, EvaluationSummary(known), [Stage("", None, 1, resumes=False)]
    )
    manifest = run.carry_out(config, options, lambda root, finish: build(root, planned, finish))
    content = to_json(metrics(manifest))
    if read_bytes(join(planned.folder.url, METRICS), config.storage) != content:
        planned.folder.write(METRICS, content)
    return manifest


def dry_run(config: EvaluateConfig, options: PipelineOptions) -> str:
    """What the job would do, wherever it runs: its input, what makes an example, and what is compared with what."""
    planned = plan(config)
    columns, found = planned.columns, planned.input
    worth = f"labels in {columns.label!r}" if columns.label else f"references in {columns.references!r}"
    return (
        f"{plural(len(found.files), 'file')}, {plural(found.rows, 'row')}, {size(found.bytes)} uncompressed\n"
        f"{config.task}: {listing([*columns.methods])} against {worth}, examples by {columns.group!r}\n"
        f"{plural(planned.shards, 'shard')}, {METRICS} and one row for each example"
    )


class _Names(argparse.Action):
    """Adds the names in a comma-separated list to those given before."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest) if getattr(namespace, self.dest) is not self.default else ()
        setattr(namespace, self.dest, (*before, *(name for name in values.split(",") if name)))


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="PATTERN", help="files of scored candidates")
    parser.add_argument("--task", choices=TASKS, default=GENERATION, help=f"(default: {GENERATION})")
    parser.add_argument(
        "--group-column", metavar="C", help="what tells examples apart (default: instruction_id, else the instruction)"
    )
    for name, what in (("instruction", "the instruction"), ("response", "a response, or a list of them")):
        parser.add_argument(f"--{name}-column", default=name, metavar="C", help=f"{what} (default: {name})")
    parser.add_argument(
        "--score-column",
        dest="score_columns",
        action=_Names,
        default=("score",),
        metavar="C[,C]",
        help="numbers, or lists of them; several scorers: several columns, or the flag again (default: score)",
    )
    parser.add_argument(
        "--reference-column", default="references", metavar="C", help="the right texts (default: references)"
    )
    parser.add_argument("--label-column", metavar="C", help="how right a candidate is, in place of references")
    parser.add_argument("--shards", type=positive, metavar="N", help="how far the work is spread (default: by size)")


def _summary(manifest: Mapping[str, Any]) -> str:
    return f"{table(manifest)}\n\n{in_words(manifest)}"


EVALUATE: Job = Job(
    name=JOB,
    help="scored candidates -> how good the scores are, beside the baselines",
    config=EvaluateConfig,
    add_flags=_add_flags,
    run=run,
    dry_run=dry_run,
    summary=_summary,
    local_mode="multi_processing",
)

if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main([JOB, *sys.argv[1:]]))
