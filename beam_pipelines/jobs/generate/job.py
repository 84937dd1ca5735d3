"""generate: instructions -> candidates, responses drawn from a language model."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.output import OutputDir, parquet_bytes
from beam_pipelines.io.storage import absolute
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.config import (
    OPENAI,
    GenerateConfig,
    add_flags,
    check_flags,
    drawing_of,
    generator_name,
    template_of,
)
from beam_pipelines.jobs.generate.generation import Task, generate_unit, instruction_columns
from beam_pipelines.jobs.generate.manifest import CARD, GenerateSummary
from beam_pipelines.jobs.generate.sampling import ID, Sampling, smallest_of
from beam_pipelines.models.config import (
    check_settled,
    model_source,
    needing_extra,
    settle,
    settled_facts,
    without_warnings,
)
from beam_pipelines.models.engines import EndpointSpec, EngineSpec, GeneratorSpec, load_engine
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import Measured, forecast, measure_first_rows
from beam_pipelines.runners.options import in_one_process, is_local
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.job import Job, Run
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.map_units import MapUnits
from cappy_model.generate.decodings import Drawing
from schemas.chunks import CHUNK_ROWS
from schemas.errors import UsageError
from schemas.manifest import FORMAT_VERSION

__all__ = ["GENERATE", "GenerateConfig", "build", "dry_run", "facts", "plan", "run"]

JOB = "generate"
_UNIT_ROWS, _UNIT_ROWS_OF_API = 128, 32
_TIMED_ROWS = 4


@dataclass(frozen=True)
class GeneratePlan:
    """A configuration with everything looked up and settled.

    `sampled` is about how many rows candidates are generated for. `model` is what the fingerprint says of the model.
    """

    config: GenerateConfig
    input: Input
    columns: pa.Schema
    task: Task
    sampled: int
    spec: EngineSpec
    model: Mapping[str, Any]

    @property
    def folder(self) -> OutputDir:
        """Where everything is written."""
        return OutputDir(absolute(self.config.output), self.config.storage)

    @property
    def unit_rows(self) -> int:
        """Rows of a unit: so many that about `_UNIT_ROWS` of them are sampled."""
        if self.config.unit_rows is not None:
            return self.config.unit_rows
        usual = _UNIT_ROWS_OF_API if self.config.engine == OPENAI else _UNIT_ROWS
        return min(CHUNK_ROWS, -(-usual * self.input.rows // self.sampled) if self.sampled else CHUNK_ROWS)

    @property
    def wanted(self) -> ReadSpec:
        """The columns that are of use, in units of `unit_rows`."""
        return ReadSpec(self.columns, self.unit_rows)

    @property
    def units(self) -> int:
        """About how many units there are; more where rows are large."""
        return sum(-(-file.rows // self.unit_rows) for file in self.input.files)

    @property
    def samples(self) -> int:
        """How many candidates an instruction gets, before equal ones are merged."""
        return sum(decoding.samples for decoding in self.task.drawing.decodings)


def plan(config: GenerateConfig, *, local: bool, one_process: bool) -> GeneratePlan:
    """Looks into the inputs, the model and everything else that is given; settles device, dtype and tokens per batch.

    Raises CappyError or UsageError for anything that is wrong before a row is generated for.
    """
    check_flags(config, one_process=one_process)
    drawing, template = drawing_of(config), template_of(config)
    if config.engine != OPENAI:
        check_settled(config, local=local)
    source = open_input([absolute(config.input)], config.storage, limit=config.limit)
    columns = instruction_columns(
        source.schema, config.instruction_column, per_template=config.per_template is not None
    )
    sampling, sampled = _sampling(config, source)
    spec, model = (
        _settle_endpoint(config, drawing) if config.engine == OPENAI else _settle(config, drawing, local=local)
    )
    if local:
        load_engine(spec)
    task = Task(
        instruction=config.instruction_column,
        generator=generator_name(config.model),
        drawing=drawing,
        sampling=sampling,
        seed=config.seed,
        template=template,
        distinct=config.distinct,
    )
    return GeneratePlan(config, source, columns, task, sampled, spec, model)


def _sampling(config: GenerateConfig, source: Input) -> tuple[Sampling, int]:
    """Which instructions are generated for, and about how many these are. Reads the ids where that takes them."""
    if config.per_template is None:
        share = 1.0 if config.fraction is None else config.fraction
        return Sampling(config.seed, config.fraction), round(source.rows * share)
    missing = [name for name in (ID, "template_id") if name not in source.schema.names]
    if missing:
        raise UsageError(
            f"--per-template needs the columns {ID!r} and 'template_id'; there are {', '.join(source.schema.names)}"
        )
    smallest = smallest_of(source, config.seed, config.per_template)
    return Sampling(config.seed, most=smallest.largest), smallest.kept


def _settle(config: GenerateConfig, drawing: Drawing, *, local: bool) -> tuple[EngineSpec, dict[str, Any]]:
    """What workers are told of a model of their own, and what the fingerprint says of it."""
    with needing_extra("model", "generating"):
        from cappy_model import checkpoints, devices
        from cappy_model.generate import prompts
    source = model_source(config, config.model)
    found = checkpoints.find_checkpoint(source)
    model_config, tokenizer = checkpoints.load_config(found)
    checkpoints.generates_by(found, model_config)
    encoder = prompts.prompt_encoder(tokenizer, model_config, drawing)

    def tokens(device: str, dtype: str) -> int:
        return devices.settle_generation_tokens(model_config, device, dtype)

    spec = GeneratorSpec(**vars(settle(config, source, local=local, tokens=tokens)), drawing=drawing)
    cut = {"max_prompt_tokens": encoder.max_tokens, "truncation_side": encoder.side}
    return spec, {"content": found.content, "type": model_config.model_type, **settled_facts(spec), **cut}


def _settle_endpoint(config: GenerateConfig, drawing: Drawing) -> tuple[EngineSpec, dict[str, Any]]:
    """What workers are told of a model behind an API, and what the fingerprint says of it."""
    with needing_extra("openai", "generating behind an API"):
        from cappy_model.generate.endpoint.connection import EndpointSettings
    limits = ("concurrency", "timeout", "max_retries", "max_requests", "max_tokens_total")
    given = {name: getattr(config, name) for name in limits if getattr(config, name) is not None}
    where: dict[str, Any] = {"base_url": config.base_url, "log_likelihoods": config.log_likelihoods}
    settings = EndpointSettings(config.model, **where, **given)
    return EndpointSpec(settings, drawing), {"name": config.model, **where}


def facts(plan: GeneratePlan) -> dict[str, Any]:
    """Everything that shapes the bytes of the output: what the fingerprint is made of."""
    config, task = plan.config, plan.task
    return {
        "job": JOB,
        "format_version": FORMAT_VERSION,
        "settings": {
            "seed": config.seed,
            "limit": config.limit,
            "instruction_column": task.instruction,
            "engine": config.engine,
            "generator": task.generator,
            "drawing": asdict(task.drawing),
            "prompt_template": asdict(task.template) if config.prompt_template else None,
            "distinct": task.distinct,
            "fraction": config.fraction,
            "per_template": config.per_template,
            "unit_rows": plan.unit_rows,
        },
        "model": dict(plan.model),
        "files": [found.fingerprint_inputs() for found in plan.input.files],
    }


def build(root: beam.Pipeline, plan: GeneratePlan, finish: FinishRun) -> None:
    """Files are read in units; those without an output file are generated for and written; all are counted."""
    with without_warnings():
        from beam_pipelines.models.inference import GenerateUnits

    work = GenerateUnits(plan.spec, plan.task)
    units = MapUnits(plan.wanted, plan.folder, work, plan.config.accelerator)
    all_stats = root | "Files" >> beam.Create(plan.input.files) | "GenerateUnits" >> units
    all_stats | "FinishRun" >> finish


def run(config: GenerateConfig, options: PipelineOptions) -> dict[str, Any]:
    """Generates candidates; the manifest. Goes on where an earlier run ended, leaves a finished one alone.

    Raises CappyError.
    """
    planned = plan(config, local=is_local(options), one_process=in_one_process(options))
    known = facts(planned)
    # Nobody knows how many of the samples are distinct, so there progress is in files.
    rows = None if config.distinct else planned.sampled * planned.samples
    stages = [Stage("", rows, planned.units, resumes=True, tokens=True)]
    run = Run(planned.folder, [planned.input], known, CARD, GenerateSummary(known, config.model), stages)
    return run.carry_out(config, options, lambda root, finish: build(root, planned, finish))


def dry_run(config: GenerateConfig, options: PipelineOptions) -> str:
    """What the job would do: inputs, sampled rows, units, candidates, the model, and about how long it takes."""
    planned = plan(config, local=True, one_process=True)
    source, drawing = planned.input, planned.task.drawing
    each = ", ".join(f"{decoding.name} {decoding.samples}" for decoding in drawing.decodings)
    sampling = config.fraction is not None or config.per_template is not None
    lines = [
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}, "
        f"{f'about {planned.sampled:,}' if sampling else 'all'} of them to be generated for, "
        f"in about {plural(planned.units, 'unit')} of {plural(planned.unit_rows, 'row')}",
        f"about {plural(planned.sampled * planned.samples, 'candidate')} of {drawing.min_new_tokens} to "
        f"{drawing.max_new_tokens} tokens, {planned.samples} for each instruction ({each})",
        f"{config.model}: "
        + ", ".join(f"{name} {value}" for name, value in planned.model.items() if name != "content"),
    ]
    if config.engine != OPENAI:
        measured = _measure(planned)
        if measured.rows:
            told = forecast(measured.of(planned.sampled), options, "machine")
            lines.append(f"by generating for {plural(measured.rows, 'row')} here: {told}")
    return "\n".join(lines)


def _measure(plan: GeneratePlan) -> Measured:
    """Generates for some of the first rows, sampled or not."""
    engine, task = load_engine(plan.spec), replace(plan.task, sampling=Sampling(plan.config.seed))

    def generate_rows(unit: Unit) -> int:
        made = generate_unit(unit, engine, task)
        return len(parquet_bytes(made.rows, made.schema))

    return measure_first_rows(plan.input, plan.wanted, _TIMED_ROWS, generate_rows)


def _summary(manifest: Mapping[str, Any]) -> str:
    totals = manifest["totals"]
    left_out = f", {totals['sampled_out']:,} sampled out" if totals["sampled_out"] else ""
    return (
        f"{plural(totals['candidates'], 'candidate')} for {plural(totals['generated'], 'instruction')} of "
        f"{plural(totals['rows'], 'row')}{left_out}, {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )


GENERATE: Job = Job(
    name=JOB,
    help="instructions -> candidate responses of a language model",
    config=GenerateConfig,
    add_flags=add_flags,
    run=run,
    dry_run=dry_run,
    summary=_summary,
    local_mode="multi_threading",
)

if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main(["generate", *sys.argv[1:]]))
