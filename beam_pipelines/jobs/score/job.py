"""score: any rows with two text columns -> the same rows, each with a scorer's number for it."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.output import FinishRun, OutputDir, parquet_bytes
from beam_pipelines.io.storage import absolute
from beam_pipelines.io.units import Input, Unit, ReadSpec, open_input
from beam_pipelines.jobs.score.manifest import CARD, ScoreSummary
from beam_pipelines.jobs.score.scoring import ScoreColumns, ScorerSpec, load_scorer, score_unit
from beam_pipelines.models.config import (
    ModelConfig,
    add_model_flags,
    check_settled,
    model_source,
    needing_extra,
    settle,
    settled_facts,
    without_warnings,
)
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import forecast, measure_first_rows
from beam_pipelines.runners.options import is_local, positive
from beam_pipelines.runs.job import Job, Run
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.map_units import MapUnits
from schemas.chunks import CHUNK_ROWS
from schemas.manifest import FORMAT_VERSION

JOB = "score"
_TIMED_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class ScorerConfig(ModelConfig):
    """What is scored, and how. None: by the model or the device (see `cappy_model.scorer.Scorer`)."""

    input: str
    instruction_column: str = "instruction"
    response_column: str = "response"
    score_column: str = "score"
    max_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(ScorerConfig):
    """What score is told beside what every job is: the model, and how it is to score what."""

    model: str


@dataclass(frozen=True)
class ScorePlan:
    """A configuration with everything looked up and settled."""

    config: ScoreConfig
    input: Input
    columns: ScoreColumns
    spec: ScorerSpec
    model: Mapping[str, Any]

    @property
    def folder(self) -> OutputDir:
        """Where everything is written."""
        return OutputDir(absolute(self.config.output), self.config.storage)

    @property
    def wanted(self) -> ReadSpec:
        """All columns; a unit is a chunk."""
        return ReadSpec(self.input.schema, CHUNK_ROWS, exact=True)

    @property
    def units(self) -> int:
        """About how many units there are; more where rows are large."""
        return sum(-(-file.rows // CHUNK_ROWS) for file in self.input.files)


def plan(config: ScoreConfig, *, local: bool) -> ScorePlan:
    """Looks into the inputs and the model; settles device, dtype and tokens per batch.

    Raises CappyError or UsageError for anything that is wrong before a row is read.
    """
    check_settled(config, local=local)
    source = open_input([absolute(config.input)], config.storage, limit=config.limit)
    columns = columns_of(config)
    columns.output(source.schema)
    spec, model = _settle(config, local=local)
    return ScorePlan(config, source, columns, spec, model)


def _settle(config: ScoreConfig, *, local: bool) -> tuple[ScorerSpec, dict[str, Any]]:
    """What workers are told of the model, and what the fingerprint says of it. Locally the model is loaded as well."""
    with needing_extra("model", "scoring"):
        from cappy_model import checkpoints, devices
        from cappy_model.score import encoding
    source = model_source(config, config.model)
    found = checkpoints.find_checkpoint(source)
    model_config, tokenizer = checkpoints.load_config(found)
    checkpoints.check_scorer(found, model_config)
    encoder = encoding.encoder_for(tokenizer, model_config, max_length=config.max_length)

    def tokens(device: str, dtype: str) -> int:
        return devices.settle_tokens_per_batch(model_config, device, dtype)

    spec = ScorerSpec(**vars(settle(config, source, local=local, tokens=tokens)), max_length=config.max_length)
    if local:
        load_scorer(spec)
    cut = {"max_length": encoder.max_length, "truncation": encoder.policy}
    return spec, {"content": found.content, "type": model_config.model_type, **settled_facts(spec), **cut}


def columns_of(config: ScorerConfig) -> ScoreColumns:
    """Which columns hold the pairs, and what the new ones are called."""
    return ScoreColumns(config.instruction_column, config.response_column, config.score_column)


def output_columns(config: ScorerConfig) -> pa.Schema:
    """The columns of the scored rows. Raises CappyError for one that is missing, not text, or would be overwritten."""
    source = open_input([absolute(config.input)], config.storage, limit=config.limit)
    return columns_of(config).output(source.schema)


def facts(plan: ScorePlan) -> dict[str, Any]:
    """Everything that shapes the bytes of the output: what the fingerprint is made of."""
    config, columns = plan.config, plan.columns
    return {
        "job": JOB,
        "format_version": FORMAT_VERSION,
        "settings": {
            "instruction_column": columns.instruction,
            "response_column": columns.response,
            "score_column": columns.score,
            "limit": config.limit,
        },
        "model": dict(plan.model),
        "files": [found.facts() for found in plan.input.files],
    }


def build(root: beam.Pipeline, plan: ScorePlan, finish: FinishRun) -> None:
    """Files are read in units; those without an output file are scored and written; all are counted."""
    with without_warnings():
        from beam_pipelines.models.inference import ScoreUnits

    work = ScoreUnits(plan.spec, plan.columns)
    units = MapUnits(plan.wanted, plan.folder, work, plan.config.accelerator)
    all_stats = root | "Files" >> beam.Create(plan.input.files) | "ScoreUnits" >> units
    all_stats | "FinishRun" >> finish


def run(config: ScoreConfig, options: PipelineOptions) -> dict[str, Any]:
    """Scores rows; the manifest. Goes on where an earlier run ended, leaves a finished one alone. Raises CappyError."""
    planned = plan(config, local=is_local(options))
    known = facts(planned)
    stages = [Stage("", planned.input.rows, planned.units, resumes=True, tokens=True)]
    run = Run(planned.folder, [planned.input], known, CARD, ScoreSummary(known, config.model), stages)
    return run.carry_out(config, options, lambda root, finish: build(root, planned, finish))


def dry_run(config: ScoreConfig, options: PipelineOptions) -> str:
    """What the job would do: inputs, rows, units, the model, and about how long it takes."""
    planned = plan(config, local=True)
    source, model = planned.input, planned.model
    lines = [
        f"{len(source.files):,} files, {source.rows:,} rows, about {planned.units:,} units",
        f"{config.model}: {model['type']} in {model['dtype']} on {model['device']}, {model['max_length']} tokens, "
        f"cut {model['truncation']}, {model['tokens_per_batch']:,} tokens per batch",
    ]
    scorer = load_scorer(planned.spec)

    def score_rows(unit: Unit) -> int:
        made = score_unit(unit, scorer, planned.columns)
        return len(parquet_bytes(made.rows, made.schema))

    measured = measure_first_rows(source, planned.wanted, _TIMED_ROWS, score_rows)
    if measured.rows:
        told = forecast(measured.of(source.rows), options, "machine")
        lines.append(f"by scoring {plural(measured.rows, 'row')} here: {told}")
    return "\n".join(lines)


def add_scorer_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `ScorerConfig`, but for the columns and the input."""
    add_model_flags(parser)
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens of a pair (default: by the model)")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="PATTERN", help="files with two text columns")
    parser.add_argument("--model", required=True, metavar="ID", help="hub id[@revision], folder, or fsspec URL")
    parser.add_argument("--instruction-column", default="instruction", metavar="C", help="(default: instruction)")
    parser.add_argument(
        "--response-column", default="response", metavar="C", help="a text, or a list of texts (default: response)"
    )
    parser.add_argument("--score-column", default="score", metavar="C", help="a new column (default: score)")
    add_scorer_flags(parser)


def _summary(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    return (
        f"{totals['scored']:,} pairs scored in {totals['rows']:,} rows, {totals['unscored']:,} could not be, "
        f"{manifest['rejects']['rows']:,} rejects, in {manifest['seconds']} s"
    )


SCORE: Job = Job(
    name=JOB,
    help="rows with two text columns -> the same rows with a score",
    config=ScoreConfig,
    add_flags=_add_flags,
    run=run,
    dry_run=dry_run,
    summary=_summary,
    local_mode="multi_threading",
)

if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main(["score", *sys.argv[1:]]))
