"""The job `rerank`: how it is planned, fingerprinted and built."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.columns import layouts_in
from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.storage import absolute, join
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.rerank.config import RerankConfig
from beam_pipelines.jobs.rerank.manifest import CARD, selection_manifest
from beam_pipelines.jobs.rerank.page import page
from beam_pipelines.jobs.rerank.reduction import kept_schema, part_schema, reduce_unit
from beam_pipelines.jobs.rerank.scored_rows import ScoredColumns, scored_columns
from beam_pipelines.jobs.rerank.selection import select, select_shard
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.report.text import plural, size
from beam_pipelines.runners.forecast import forecast, measure_first_rows
from beam_pipelines.runners.options import Placement, in_threads
from beam_pipelines.runners.pipeline_job import PipelineJob, Plan
from beam_pipelines.runs.data import table_folder, table_in
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.folder import earlier_run, refuse_foreign
from beam_pipelines.runs.growth import version_of
from beam_pipelines.runs.inputs import check_not_grown, open_inputs
from beam_pipelines.runs.job import JOBS
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.candidates import GROUP
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.shuffle import (
    FinishShards,
    GroupIntoShards,
    ReduceUnits,
    finishing_memory,
    gather,
    shards_for,
    slice_chunk,
)
from schemas.chunks import CHUNK_ROWS

SCORED = "scored"
"""The folder below the output where candidates are scored, with a model."""


@dataclass(frozen=True)
class RerankPlan(Plan):
    """A configuration with the column roles and the number of shuffle shards settled."""

    config: RerankConfig
    columns: ScoredColumns
    shards: int

    @property
    def spec(self) -> ReadSpec:
        """The columns that are used; a unit is a chunk."""
        return self.inputs[0].read_spec(self.columns.schema, CHUNK_ROWS, exact=True)


def plan(config: RerankConfig, placement: Placement) -> RerankPlan:
    """Inspect scored rows. Raises CappyError for a column that is missing, unsuitable, or clashes with another."""
    texts = (config.instruction_column, config.response_column)
    source = open_inputs(config, config.input, text=texts, numbers=[config.score_column])
    source.check_usable()
    return RerankPlan(config, (source,), columns_of(config, source.schema), config.shards or shards_for(source.bytes))


def columns_of(config: RerankConfig, schema: pa.Schema) -> ScoredColumns:
    """Return the column roles of an input with this schema. Raises CappyError as `scored_columns` does."""
    return scored_columns(
        schema,
        group=config.group_column,
        instruction=config.instruction_column,
        response=config.response_column,
        score=config.score_column,
        order=config.order_column,
    )


def fingerprint_inputs(plan: RerankPlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the selections."""
    config, columns = plan.config, plan.columns
    layouts = layouts_in(pa.schema([columns.schema.field(name) for name in columns.others]))
    return {
        "settings": {
            "seed": config.seed,
            "limit": config.limit,
            "columns": {
                "group": columns.group,
                "instruction": columns.instruction,
                "response": columns.response,
                "score": columns.score,
                "order": columns.order,
            },
            "top_k": config.top_k,
            "shards": plan.shards,
        },
        "inputs": [file.fingerprint_inputs() for file in plan.inputs[0].files],
        **({"layouts": layouts} if layouts else {}),
    }


def build(root: beam.Pipeline, plan: RerankPlan, finish: FinishRun) -> None:
    """Keep the best of each unit, group them into shards, and write the best of those."""
    output, columns, top_k, shards = plan.output, plan.columns, plan.config.top_k, plan.shards
    reduce = ReduceUnits(partial(reduce_unit, columns=columns, top_k=top_k), output)
    select = FinishShards(
        partial(select_shard, columns=columns, top_k=top_k),
        [kept_schema(columns), part_schema(columns)],
        shards,
        output,
        table_folder("rerank"),
    )
    select.with_resource_hints(min_ram=finishing_memory(plan.inputs[0].bytes, shards))
    chunks, reduced = (
        root
        | "Files" >> beam.Create(plan.inputs[0].files)
        | "ReadInputs" >> ReadInputs([plan.spec], output)
        | "KeepBestOfUnits" >> reduce
    )
    selected = chunks | "GroupIntoShards" >> GroupIntoShards(GROUP, shards) | "SelectAndWrite" >> select
    (reduced, selected) | "AllStats" >> beam.Flatten() | "FinishRun" >> finish


def stages(plan: RerankPlan) -> list[Stage]:
    """Return the one folder that fills up."""
    return [Stage(table_folder("rerank"), None, plan.shards, resumes=False)]


def describe(plan: RerankPlan, options: PipelineOptions) -> str:
    """Describe inputs, groups and shards, and the approximate duration, measured on the first rows."""
    columns, source = plan.columns, plan.inputs[0]
    lines = [
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}, {size(source.bytes)} uncompressed",
        describe_selection(plan.config, columns),
        f"{plural(plan.shards, 'shard')} of selections",
    ]

    def select_rows(unit: Unit) -> int:
        reduced = reduce_unit(unit, columns, plan.config.top_k)
        slices = [data for chunk in reduced.rows for _, data in slice_chunk(chunk, GROUP, 1)]
        kept, parts = gather(slices, kept_schema(columns), part_schema(columns))
        return len(parquet_bytes([select(kept, parts, columns, plan.config.top_k).rows], columns.output))

    sample = measure_first_rows(source, plan.spec, CHUNK_ROWS, select_rows)
    if sample.rows:
        duration = forecast(sample.scaled_to(source.rows), options, "core")
        lines.append(f"measured by selecting from {plural(sample.rows, 'row')} here: {duration}")
    return "\n".join(lines)


def describe_selection(config: RerankConfig, columns: ScoredColumns) -> str:
    """Describe in a line which candidates are compared, and how."""
    rows = f"lists of candidates in {columns.response!r}" if columns.listed else f"one {columns.response!r} in each row"
    ties = f"by {columns.order!r}, then by position" if columns.order else "by position in the input"
    return f"{rows}; the best {config.top_k:,} by {columns.score!r} of each group by {columns.group!r}; ties go {ties}"


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in a line."""
    totals, gain = manifest["totals"], manifest["gain"]["all"]
    means = f"; mean score {gain['mean']:.4f} at random, {gain['best']:.4f} at best" if gain["measured"] else ""
    return (
        f"{plural(totals['selected'], 'selection')} from {plural(totals['candidates'], 'candidate')} in "
        f"{plural(totals['groups'], 'group')}{means}; {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )


class RerankJob(PipelineJob[RerankPlan]):
    """A pipeline job that scores the candidates first, with a model."""

    def run(self, config: RerankConfig, options: PipelineOptions) -> dict[str, Any]:
        """Run the job as `PipelineJob.run` does, with a model after scoring the input into `scored/`."""
        config.check()
        if config.model is not None:
            config = self._score_first(config, options)
        return super().run(config, options)

    def dry_run(self, config: RerankConfig, options: PipelineOptions) -> str:
        """Describe the run; with a model that is the scoring, which takes most of the time, and the selection."""
        if config.model is None:
            return super().dry_run(config, options)
        config.check()
        from beam_pipelines.jobs.score import job as score
        from beam_pipelines.jobs.score.plan import output_columns

        columns = columns_of(config, output_columns(config))
        return f"{score.JOB.dry_run(_scoring(config), options)}\n{describe_selection(config, columns)}"

    def _score_first(self, config: RerankConfig, options: PipelineOptions) -> RerankConfig:
        """Score the input into `scored/` below the output; return the configuration for the scored rows."""
        from beam_pipelines.jobs.score import job as score
        from beam_pipelines.jobs.score.plan import output_columns

        columns_of(config, output_columns(config))
        refuse_foreign(absolute(config.output), config.storage)
        scoring = _scoring(config)
        check_not_grown(scoring, "score", absolute(config.output), _rerank_scored(scoring))
        scored = score.JOB.run(scoring, in_threads(options))
        return replace(config, input=table_in(scored, absolute(scoring.output)), limit=None)


def _scoring(config: RerankConfig) -> ScoreConfig:
    """Return the configuration that scores the input."""
    names = {field.name for field in fields(ScoreConfig)}
    shared = {field.name: getattr(config, field.name) for field in fields(config) if field.name in names}
    return ScoreConfig(**{**shared, "output": join(config.output, SCORED)})


def _rerank_scored(scoring: ScoreConfig) -> str:
    """Return what to do about new files, which a folder of an older form cannot take in."""
    again = "give another folder, or --overwrite to begin again"
    run = earlier_run(absolute(scoring.output), scoring.storage)
    if run and version_of(run) < JOBS["score"].format_version:
        return again
    return (
        f"`cappy score` with --output {scoring.output} takes new files in, and `cappy rerank` selects from its rows "
        f"without --model into another folder; or {again}"
    )


JOB = RerankJob(
    name="rerank",
    plan=plan,
    fingerprint_inputs=fingerprint_inputs,
    build=build,
    stages=stages,
    manifest=lambda plan, hashed: partial(selection_manifest, hashed=hashed),
    card=CARD,
    describe=describe,
    summarise=summarise,
    page=page,
)
