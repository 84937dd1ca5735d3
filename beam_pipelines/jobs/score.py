"""score: any rows with two text columns -> the same rows, each with a scorer's number for it."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.jobs.base import Job, Run
from beam_pipelines.jobs.score_manifest import CARD, ScoreSummary
from beam_pipelines.options import JobConfig, is_local, positive
from beam_pipelines.progress import Stage
from beam_pipelines.reads import Input, ReadInputs, Wanted, list_reads, open_input, read_units
from beam_pipelines.report.words import duration
from beam_pipelines.sinks import FinishRun, Folder
from beam_pipelines.storage import absolute, join, read_bytes
from beam_pipelines.transforms.scoring import (
    ScoreColumns,
    ScorerSpec,
    SkipFinished,
    WriteScored,
    load_scorer,
    score_unit,
)
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.manifest import FORMAT_VERSION, RUN

JOB = "score"
_TIMED_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class ScorerConfig(JobConfig):
    """What is scored, and how. None: by the model or the device (see `cappy_model.scorer.Scorer`)."""

    input: str
    instruction_column: str = "instruction"
    response_column: str = "response"
    score_column: str = "score"
    device: str = "auto"
    dtype: str = "auto"
    tokens_per_batch: int | None = None
    max_length: int | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False


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
    def folder(self) -> Folder:
        """Where everything is written."""
        return Folder(absolute(self.config.output), self.config.storage)

    @property
    def wanted(self) -> Wanted:
        """All columns; a unit is a chunk."""
        return Wanted(self.input.schema, CHUNK_ROWS, exact=True)

    @property
    def units(self) -> int:
        """About how many units there are; more where rows are large."""
        return sum(-(-file.rows // CHUNK_ROWS) for file in self.input.files)


def plan(config: ScoreConfig, *, local: bool) -> ScorePlan:
    """Looks into the inputs and the model; settles device, dtype and tokens per batch.

    Raises CappyError or UsageError for anything that is wrong before a row is read.
    """
    if not local and "auto" in (config.device, config.dtype):
        raise UsageError("--device and --dtype must be named for a remote runner: this machine cannot settle them")
    source = open_input([absolute(config.input)], config.storage, limit=config.limit)
    columns = ScoreColumns(config.instruction_column, config.response_column, config.score_column)
    columns.output(source.schema)
    spec, model = _settle(config, local=local)
    return ScorePlan(config, source, columns, spec, model)


def _settle(config: ScoreConfig, *, local: bool) -> tuple[ScorerSpec, dict[str, Any]]:
    """What workers are told of the model, and what the fingerprint says of it. Locally the model is loaded as well."""
    try:
        from cappy_model import checkpoints, devices, encoding
    except ImportError as error:
        raise CappyError(f"{error}; scoring needs the extra `model`: pip install '.[model]'") from error
    name = absolute(config.model) if os.path.isdir(config.model) else config.model
    source = checkpoints.Source(name, config.allow_pickle, config.trust_remote_code, config.storage)
    found = checkpoints.find_checkpoint(source)
    model_config, tokenizer = checkpoints.load_config(found)
    checkpoints.check_scorer(found, model_config)
    encoder = encoding.encoder_for(tokenizer, model_config, max_length=config.max_length)
    device = devices.settle_device(config.device) if local else config.device
    dtype = devices.settle_dtype(config.dtype, device)
    tokens = config.tokens_per_batch or _earlier_tokens(config)
    if not tokens and not local:
        raise UsageError("--tokens-per-batch must be given for a remote runner: this machine cannot settle it")
    spec = ScorerSpec(
        model=name,
        device=device,
        dtype=dtype,
        tokens_per_batch=tokens or devices.settle_tokens_per_batch(model_config, device, dtype),
        max_length=config.max_length,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
        storage=json.dumps(config.storage, sort_keys=True),
    )
    if local:
        load_scorer(spec)
    settled = {"device": device, "dtype": dtype, "tokens_per_batch": spec.tokens_per_batch}
    cut = {"max_length": encoder.max_length, "truncation": encoder.policy}
    return spec, {"content": found.content, "type": model_config.model_type, **settled, **cut}


def _earlier_tokens(config: ScoreConfig) -> int | None:
    """The tokens per batch of the run that the output folder holds, so that it goes on with other memory free, too."""
    stored = read_bytes(join(absolute(config.output), RUN), config.storage)
    try:
        return int(json.loads(stored)["facts"]["model"]["tokens_per_batch"]) if stored else None
    except (ValueError, KeyError, TypeError):
        return None  # another job's folder, or a damaged one: opening the run says so


def output_columns(config: ScorerConfig) -> pa.Schema:
    """The columns of the scored rows. Raises CappyError for one that is missing, not text, or would be overwritten."""
    source = open_input([absolute(config.input)], config.storage, limit=config.limit)
    return ScoreColumns(config.instruction_column, config.response_column, config.score_column).output(source.schema)


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
    with _without_warnings():
        from beam_pipelines.transforms.inference import ScoreUnits

    missing, finished = (
        root
        | "Files" >> beam.Create(plan.input.files)
        | "ReadInputs" >> ReadInputs([plan.wanted])
        | "SkipFinished" >> SkipFinished(plan.folder)
    )
    scored = missing | "ScoreUnits" >> ScoreUnits(plan.spec, plan.columns) | "WriteScored" >> WriteScored(plan.folder)
    (finished, scored) | "Tallies" >> beam.Flatten() | "FinishRun" >> finish


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Importing `apache_beam.ml` warns of a cloud library that is not there."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def run(config: ScoreConfig, options: PipelineOptions) -> dict[str, Any]:
    """Scores rows; the manifest. Goes on where an earlier run ended, leaves a finished one alone. Raises CappyError."""
    planned = plan(config, local=is_local(options))
    known = facts(planned)
    stages = [Stage("", planned.input.rows, planned.units, resumes=True, tokens=True)]
    run = Run(planned.folder, known, CARD, ScoreSummary(known, config.model), stages)
    return run.carry_out(config, options, lambda root, finish: build(root, planned, finish))


def dry_run(config: ScoreConfig) -> str:
    """What the job would do: inputs, rows, units, the model, and about how long it takes here."""
    planned = plan(config, local=True)
    source, model = planned.input, planned.model
    lines = [
        f"{len(source.files):,} files, {source.rows:,} rows, about {planned.units:,} units",
        f"{config.model}: {model['type']} in {model['dtype']} on {model['device']}, {model['max_length']} tokens, "
        f"cut {model['truncation']}, {model['tokens_per_batch']:,} tokens per batch",
    ]
    rows, seconds = _timed(planned)
    if rows:
        lines.append(f"about {duration(seconds * source.rows / rows)}, by scoring {rows} rows here")
    return "\n".join(lines)


def _timed(plan: ScorePlan) -> tuple[int, float]:
    """How many of the first rows were scored, and the seconds that took."""
    scorer = load_scorer(plan.spec)
    wanted = plan.wanted._replace(unit_rows=_TIMED_ROWS)
    for file in plan.input.files:
        for read in list_reads(replace(file, rows=min(_TIMED_ROWS, file.rows), limit=_TIMED_ROWS), _TIMED_ROWS):
            for unit in read_units(read, wanted):
                started = time.perf_counter()
                score_unit(unit, scorer, plan.columns)
                return unit.rows.num_rows, time.perf_counter() - started
    return 0, 0.0


def add_scorer_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `ScorerConfig`, but for the columns and the input."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda (all GPUs) or cuda:N")
    parser.add_argument("--dtype", default="auto", metavar="T", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--tokens-per-batch", type=positive, metavar="N", help="(default: by the device)")
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens of a pair (default: by the model)")
    parser.add_argument("--allow-pickle", action="store_true", help="load pickled weights, which can run any code")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


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
