"""The job `evaluate`: how it is planned, fingerprinted and built."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import absolute, join, read_bytes
from beam_pipelines.jobs.evaluate.columns import NAMES, EvaluatedColumns, evaluated_columns
from beam_pipelines.jobs.evaluate.conclusion import Conclude, EvaluateShards
from beam_pipelines.jobs.evaluate.config import EvaluateConfig, rouge_settings
from beam_pipelines.jobs.evaluate.manifest import CARD, evaluation_manifest, metrics, summarise, table
from beam_pipelines.jobs.evaluate.measure import measure_unit
from beam_pipelines.jobs.evaluate.page import page
from beam_pipelines.report.text import listing, plural, size
from beam_pipelines.runners.options import Placement
from beam_pipelines.runners.pipeline_job import PipelineJob, Plan
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.inputs import open_inputs
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.candidates import GROUP
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.shuffle import GroupIntoShards, ReduceUnits, finishing_memory, shards_for
from cappy_model.metrics.evaluation import SELF_SCORES
from cappy_model.metrics.ranking import REPLICATES
from cappy_model.metrics.rouge import RougeL
from cappy_model.paths import encodable
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError
from schemas.manifest import METRICS, to_json


@dataclass(frozen=True)
class EvaluatePlan(Plan):
    """A configuration with the column roles and the number of shuffle shards settled."""

    config: EvaluateConfig
    columns: EvaluatedColumns
    shards: int

    @property
    def spec(self) -> ReadSpec:
        """The columns that are used; a unit is a chunk."""
        return self.inputs[0].read_spec(self.columns.schema, CHUNK_ROWS)


def plan(config: EvaluateConfig, placement: Placement) -> EvaluatePlan:
    """Inspect scored rows. Raises CappyError for a column that is missing or unsuitable, and for an empty input."""
    numbers = (*config.score_columns, *filter(None, [config.label_column]), *SELF_SCORES.values())
    source = open_inputs(config, config.input, text=texts_of(config), numbers=numbers)
    if not source.rows:
        raise CappyError(f"{config.input}: has no rows, so there is nothing to evaluate")
    check_valued(config, source)
    return EvaluatePlan(config, (source,), columns_of(config, source.schema), config.shards or shards_for(source.bytes))


def check_valued(config: EvaluateConfig, source: Input) -> None:
    """Raise CappyError if the references or labels are null in all rows, as far as these were inspected."""
    flag, name = "--reference-column", config.reference_column
    if config.label_column is not None:
        flag, name = "--label-column", config.label_column
    if name in source.empty:
        raise CappyError(f"{flag}: column {name!r} is null in all rows, so nothing can be valued; name another column")


def texts_of(config: EvaluateConfig) -> tuple[str, ...]:
    """Return the columns that are read as text."""
    return (config.instruction_column, config.response_column, config.reference_column, *NAMES)


def columns_of(config: EvaluateConfig, schema: pa.Schema) -> EvaluatedColumns:
    """Return the column roles of an input with this schema. Raises CappyError as `evaluated_columns` does."""
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


def fingerprint_inputs(plan: EvaluatePlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the results."""
    config, columns = plan.config, plan.columns
    names = (
        *("group", "instruction", "response", "references", "label"),
        *("generator", "decoding", "sample_index", "template", "example"),
    )
    return {
        "settings": {
            "task": config.task,
            "seed": config.seed,
            "limit": config.limit,
            "columns": {
                **{name: getattr(columns, name) for name in names},
                "dataset": list(columns.dataset),
                "methods": dict(columns.methods),
            },
            **rouge_settings(config.rouge),
            "replicates": REPLICATES,
            "shards": plan.shards,
        },
        "inputs": [file.fingerprint_inputs() for file in plan.inputs[0].files],
    }


def build(root: beam.Pipeline, plan: EvaluatePlan, finish: FinishRun) -> None:
    """Value candidates, bring those of an example together, and compute the results over all examples in one place."""
    output, columns, shards = plan.output, plan.columns, plan.shards
    measure = partial(measure_unit, columns=columns, rouge=RougeL(plan.config.rouge))
    evaluate, conclude = EvaluateShards(output, columns, shards), Conclude(output, columns, plan.config.seed)
    for holding in (evaluate, conclude):
        holding.with_resource_hints(min_ram=finishing_memory(plan.inputs[0].bytes, shards))
    candidates, measured = (
        root
        | "Files" >> beam.Create(plan.inputs[0].files)
        | "ReadInputs" >> ReadInputs([plan.spec], output)
        | "MeasureCandidates" >> ReduceUnits(measure, output)
    )
    examples, evaluated = (
        candidates | "GroupIntoShards" >> GroupIntoShards(GROUP, shards) | "EvaluateShards" >> evaluate
    )
    concluded = examples | "Conclude" >> conclude
    (measured, evaluated, concluded) | "AllStats" >> beam.Flatten() | "FinishRun" >> finish


def stages(plan: EvaluatePlan) -> list[Stage]:
    """Return the one folder that fills up."""
    return [Stage("", None, 1, resumes=False)]


def describe(plan: EvaluatePlan, options: PipelineOptions) -> str:
    """Describe inputs, the methods and what they are compared with, and the output."""
    columns, source = plan.columns, plan.inputs[0]
    values = f"labels in {columns.label!r}" if columns.label else f"references in {columns.references!r}"
    return (
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}, {size(source.bytes)} uncompressed\n"
        f"{plan.config.task}: {listing([*columns.methods])} against {values}, examples by {columns.group!r}\n"
        f"{plural(plan.shards, 'shard')}, {METRICS} and one row for each example"
    )


class EvaluateJob(PipelineJob[EvaluatePlan]):
    """A pipeline job that also writes metrics.json."""

    def run(self, config: EvaluateConfig, options: PipelineOptions) -> dict[str, Any]:
        """Run the job as `PipelineJob.run` does, then write metrics.json unless it is up to date."""
        manifest = super().run(config, options)
        output, content = OutputDir(encodable(absolute(config.output)), config.storage), to_json(metrics(manifest))
        if read_bytes(join(output.url, METRICS), config.storage) != content:
            output.write(METRICS, content)
        return manifest


JOB = EvaluateJob(
    name="evaluate",
    plan=plan,
    fingerprint_inputs=fingerprint_inputs,
    build=build,
    stages=stages,
    manifest=lambda plan, hashed: partial(evaluation_manifest, hashed=hashed),
    card=CARD,
    describe=describe,
    summarise=lambda manifest: f"{table(manifest)}\n\n{summarise(manifest)}",
    page=page,
)
