"""rerank: scored candidates -> the best of each group."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.output import OutputDir, parquet_bytes
from beam_pipelines.io.storage import absolute, join
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.rerank.manifest import CARD, SelectionSummary
from beam_pipelines.jobs.rerank.reduction import GROUP, KeepBestOfUnits, kept_schema, part_schema, reduce_unit
from beam_pipelines.jobs.rerank.scored_rows import ScoredColumns, scored_columns
from beam_pipelines.jobs.rerank.selection import SelectAndWrite, select
from beam_pipelines.jobs.score.job import ScorerConfig
from beam_pipelines.jobs.score.job import job as score
from beam_pipelines.report.text import plural, size
from beam_pipelines.runners.forecast import forecast, measure_first_rows
from beam_pipelines.runners.options import in_threads, positive
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.folder import refuse_foreign
from beam_pipelines.runs.job import Job, Run
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.shuffle import GroupIntoShards, finishing_memory, gather, shards_for, slice_chunk
from schemas.chunks import CHUNK_ROWS
from schemas.manifest import FORMAT_VERSION

JOB = "rerank"


SCORED = "scored"
"""The folder below the output where the candidates are scored, with a model."""


@dataclass(frozen=True, kw_only=True)
class RerankConfig(ScorerConfig):
    """What rerank is told beside what every job is: a pattern of files, and which of their columns are what.

    With a `model` the candidates are scored first. `group_column` None: `instruction_id` where there is one, else the
    instruction. `order_column` None: ties go to the earlier candidate of the input. `shards` None: by the size of the
    input.
    """

    model: str | None = None
    group_column: str | None = None
    order_column: str | None = None
    top_k: int = 1
    shards: int | None = None


@dataclass(frozen=True)
class RerankPlan:
    """A configuration with everything looked up."""

    config: RerankConfig
    input: Input
    columns: ScoredColumns
    shards: int

    @property
    def folder(self) -> OutputDir:
        """Where everything is written."""
        return OutputDir(absolute(self.config.output), self.config.storage)

    @property
    def wanted(self) -> ReadSpec:
        """The columns that are of use; a unit is a chunk."""
        return ReadSpec(self.columns.schema, CHUNK_ROWS, exact=True)


def plan(config: RerankConfig) -> RerankPlan:
    """Looks into scored rows. Raises CappyError for a column that is missing, cannot serve, or clashes with another."""
    found = open_input([absolute(config.input)], config.storage, limit=config.limit)
    return RerankPlan(config, found, columns_of(config, found.schema), config.shards or shards_for(found.bytes))


def columns_of(config: RerankConfig, schema: pa.Schema) -> ScoredColumns:
    """Which columns of an input with this schema are what. Raises CappyError as `scored_columns` does."""
    return scored_columns(
        schema,
        group=config.group_column,
        instruction=config.instruction_column,
        response=config.response_column,
        score=config.score_column,
        order=config.order_column,
    )


def facts(plan: RerankPlan) -> dict[str, Any]:
    """Everything that shapes the bytes of the selection: what the fingerprint is made of."""
    config, columns = plan.config, plan.columns
    names = ("group", "instruction", "response", "score", "order")
    return {
        "job": JOB,
        "format_version": FORMAT_VERSION,
        "settings": {
            "seed": config.seed,
            "limit": config.limit,
            "columns": {name: getattr(columns, name) for name in names},
            "top_k": config.top_k,
            "shards": plan.shards,
        },
        "inputs": [file.fingerprint_inputs() for file in plan.input.files],
    }


def build(root: beam.Pipeline, plan: RerankPlan, finish: FinishRun) -> None:
    """The best of each unit are brought together by group, and the best of those are written."""
    folder, columns, top_k, shards = plan.folder, plan.columns, plan.config.top_k, plan.shards
    select = SelectAndWrite(folder, columns, top_k, shards)
    select.with_resource_hints(min_ram=finishing_memory(plan.input.bytes, shards))
    chunks, counted = (
        root
        | "Input" >> beam.Create(plan.input.files)
        | "ReadInput" >> ReadInputs([plan.wanted], folder)
        | "KeepBestOfUnits" >> KeepBestOfUnits(folder, columns, top_k)
    )
    selected = chunks | "GroupIntoShards" >> GroupIntoShards(GROUP, shards) | "SelectAndWrite" >> select
    (counted, selected) | "AllStats" >> beam.Flatten() | "FinishRun" >> finish


def run(config: RerankConfig, options: PipelineOptions) -> dict[str, Any]:
    """Selects the best of scored rows, or scores them first, resumably; the manifest. Raises CappyError.

    A finished run is recognised and left alone.
    """
    if config.model is not None:
        config = _score_first(config, options)
    planned = plan(config)
    known = facts(planned)
    run = Run(
        planned.folder,
        [planned.input],
        known,
        CARD,
        SelectionSummary(known),
        [Stage("", None, planned.shards, resumes=False)],
    )
    return run.carry_out(config, options, lambda root, finish: build(root, planned, finish))


def _score_first(config: RerankConfig, options: PipelineOptions) -> RerankConfig:
    """Scores the input into `scored/` below the output; the configuration for what stands there then."""
    columns_of(config, score.output_columns(config))
    refuse_foreign(absolute(config.output), config.storage)
    scoring = _scoring(config)
    score.run(scoring, in_threads(options))
    return replace(config, input=join(absolute(scoring.output), "part-*.parquet"), limit=None)


def _scoring(config: RerankConfig) -> score.ScoreConfig:
    names = {field.name for field in fields(score.ScoreConfig)}
    given = {field.name: getattr(config, field.name) for field in fields(config) if field.name in names}
    return score.ScoreConfig(**{**given, "output": join(config.output, SCORED)})


def dry_run(config: RerankConfig, options: PipelineOptions) -> str:
    """What the job would do: its input, how it is grouped, the files it would write, and about how long it takes.

    With a model that is the time of scoring, beside which choosing is short.
    """
    if config.model is not None:
        columns = columns_of(config, score.output_columns(config))
        return f"{score.dry_run(_scoring(config), options)}\n{_choice(config, columns)}"
    planned = plan(config)
    columns, found = planned.columns, planned.input
    lines = [
        f"{plural(len(found.files), 'file')}, {plural(found.rows, 'row')}, {size(found.bytes)} uncompressed",
        _choice(config, columns),
        f"{plural(planned.shards, 'shard')} of selections",
    ]
    measured = measure_first_rows(found, planned.wanted, CHUNK_ROWS, partial(_choose, columns=columns, k=config.top_k))
    if measured.rows:
        told = forecast(measured.of(found.rows), options, "core")
        lines.append(f"by choosing from {plural(measured.rows, 'row')} here: {told}")
    return "\n".join(lines)


def _choose(unit: Unit, *, columns: ScoredColumns, k: int) -> int:
    """The bytes of what is chosen from one unit, by everything that is done with it on the way through a shard."""
    slices = [data for chunk in reduce_unit(unit, columns, k).chunks for _, data in slice_chunk(chunk, GROUP, 1)]
    kept, parts = gather(slices, kept_schema(columns), part_schema(columns))
    return len(parquet_bytes([select(kept, parts, columns, k).rows], columns.output))


def _choice(config: RerankConfig, columns: ScoredColumns) -> str:
    held = f"lists of candidates in {columns.response!r}" if columns.listed else f"one {columns.response!r} in each row"
    tie = f"by {columns.order!r}, then by place" if columns.order else "by place in the input"
    return f"{held}; the best {config.top_k:,} by {columns.score!r} of each group by {columns.group!r}; ties go {tie}"


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="PATTERN", help="files of candidates, scored or not")
    parser.add_argument("--model", metavar="ID", help="score the candidates with it first, into DIR/scored")
    parser.add_argument(
        "--group-column", metavar="C", help="what tells groups apart (default: instruction_id, else the instruction)"
    )
    for name, what in (("instruction", "the instruction"), ("response", "a response, or a list of them")):
        parser.add_argument(f"--{name}-column", default=name, metavar="C", help=f"{what} (default: {name})")
    parser.add_argument("--score-column", default="score", metavar="C", help="a number, or a list (default: score)")
    parser.add_argument("--order-column", metavar="C", help="of equal scores the smaller value here is better")
    parser.add_argument("--top-k", type=positive, default=1, metavar="K", help="so many of each group (default: 1)")
    parser.add_argument("--shards", type=positive, metavar="N", help="files of selections (default: by size)")
    score.add_scorer_flags(parser)


def _summary(manifest: Mapping[str, Any]) -> str:
    totals, gain = manifest["totals"], manifest["gain"]["all"]
    means = f"; mean score {gain['mean']:.4f} at random, {gain['best']:.4f} at best" if gain["measured"] else ""
    return (
        f"{plural(totals['selected'], 'selection')} from {plural(totals['candidates'], 'candidate')} in "
        f"{plural(totals['groups'], 'group')}{means}; {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )


RERANK: Job = Job(
    name=JOB,
    help="scored candidates -> the best of each group",
    config=RerankConfig,
    add_flags=_add_flags,
    run=run,
    dry_run=dry_run,
    summary=_summary,
    local_mode="multi_processing",
)

if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main(["rerank", *sys.argv[1:]]))
