"""The job `generate`: how it is planned, fingerprinted and built."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.columns import instruction_columns, text_roles, used_columns
from beam_pipelines.jobs.generate.config import BUDGETS, OPENAI, GenerateConfig
from beam_pipelines.jobs.generate.empty import in_words
from beam_pipelines.jobs.generate.engines import EndpointSpec, EngineSpec, GeneratorSpec, load_engine
from beam_pipelines.jobs.generate.generation import Task, generate_unit
from beam_pipelines.jobs.generate.manifest import CARD, generate_manifest
from beam_pipelines.jobs.generate.page import page
from beam_pipelines.jobs.generate.sampling import ID, Sampling, smallest_of
from beam_pipelines.jobs.generate.settings import drawing_of, generator_name, template_of
from beam_pipelines.jobs.generate.unit_size import UnitSize, api_unit_rows, unit_work
from beam_pipelines.models.settle import (
    check_named,
    describe_units,
    earlier,
    model_source,
    needing_extra,
    settle,
    settle_unit_bytes,
    without_warnings,
)
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import forecast, measure_first_rows
from beam_pipelines.runners.options import Placement
from beam_pipelines.runners.pipeline_job import PipelineJob, Plan
from beam_pipelines.runs.data import table_folder
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.flags import flag_name
from beam_pipelines.runs.inputs import known_files, open_inputs, rows_to_come
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.map_units import MapUnits
from cappy_model.generate.decodings import Drawing
from cappy_model.paths import shareable
from schemas.errors import UsageError

_TIMED_ROWS = 4


@dataclass(frozen=True)
class GeneratePlan(Plan):
    """A configuration with the columns, the task and the engine settled.

    `columns` are those to read, `sampled` is the approximate number of rows to generate for, `share` their share among
    all rows, and `model` the fingerprint's entry for the model.
    """

    config: GenerateConfig
    columns: pa.Schema
    task: Task
    sampled: int
    share: float
    engine: EngineSpec
    model: Mapping[str, Any]
    unit: UnitSize

    @property
    def spec(self) -> ReadSpec:
        """The columns in use, in units of the settled size."""
        if self.unit.bytes is None:
            return self.inputs[0].read_spec(self.columns, self.unit.rows)
        prompt = self.model["max_prompt_tokens"]
        text = {"instruction": self.task.instruction, "prompt_tokens": prompt}
        work = unit_work(self.unit.bytes, self.task.drawing, self.share, **text)
        return self.inputs[0].read_spec(self.columns, self.unit.rows, work=work)

    @property
    def units(self) -> int:
        """The approximate number of units."""
        return self.inputs[0].units(self.spec)

    @property
    def samples(self) -> int:
        """The number of candidates per instruction, before equal ones are merged."""
        return sum(decoding.samples for decoding in self.task.drawing.decodings)


def plan(config: GenerateConfig, placement: Placement) -> GeneratePlan:
    """Inspect the input, the model and the files of options; settle device, dtype and tokens per batch.

    Raises CappyError or UsageError for anything that is wrong before a row is generated for.
    """
    for name in (name for name in BUDGETS if getattr(config, name) is not None and not placement.one_process):
        flag = flag_name(GenerateConfig, name)
        raise UsageError(
            f"{flag} counts within one process, and the runner's flags ask for several; "
            "give --direct_num_workers=1, or --direct_running_mode=multi_threading"
        )
    drawing, template = drawing_of(config), template_of(config)
    if config.engine != OPENAI:
        check_named(config, local=placement.local)
    texts = text_roles(config.instruction_column)
    source = open_inputs(config, config.input, text=texts, known=known_files(config, "generate"))
    source.check_usable(used_columns(config.instruction_column, per_template=config.per_template is not None))
    columns = instruction_columns(
        source.schema, config.instruction_column, per_template=config.per_template is not None
    )
    sampling, sampled, share = _sampling(config, source)
    if config.engine == OPENAI:
        engine, model = _settle_endpoint(config, drawing)
        unit = UnitSize(api_unit_rows(share))
    else:
        engine, model, unit = _settle(config, drawing, local=placement.local)
    rows = config.unit_rows or earlier(config, "unit_rows", "settings")
    if rows:
        unit = UnitSize(rows)
    if placement.local:
        load_engine(engine)
    task = Task(
        instruction=config.instruction_column,
        generator=generator_name(config.model),
        drawing=drawing,
        sampling=sampling,
        seed=config.seed,
        template=template,
        distinct=config.distinct,
    )
    return GeneratePlan(config, (source,), columns, task, sampled, share, engine, model, unit)


def _sampling(config: GenerateConfig, source: Input) -> tuple[Sampling, int, float]:
    """Return the choice of instructions, about how many these are, and their share. Reads ids if it depends on them.

    The share depends on the number of rows with --per-template alone.
    """
    if config.per_template is None:
        share = 1.0 if config.fraction is None else config.fraction
        return Sampling(config.seed, config.fraction), round(source.rows * share), share
    missing = [name for name in (ID, "template_id") if name not in source.schema.names]
    if missing:
        raise UsageError(
            f"--per-template needs the columns {ID!r} and 'template_id'; there are {', '.join(source.schema.names)}"
        )
    smallest = smallest_of(source, config.seed, config.per_template)
    return Sampling(config.seed, largest=smallest.largest), smallest.kept, smallest.kept / max(1, source.rows)


def _settle(config: GenerateConfig, drawing: Drawing, *, local: bool) -> tuple[EngineSpec, dict[str, Any], UnitSize]:
    """Return the model spec sent to workers, the fingerprint's entry for it, and the size of units."""
    with needing_extra("model", "generating"):
        from cappy_model import checkpoints, devices
        from cappy_model.generate import prompts
    source = model_source(config, config.model)
    checkpoint = checkpoints.find_checkpoint(source)
    model_config, tokenizer = checkpoints.load_config(checkpoint)
    checkpoints.generates_by(checkpoint, model_config)
    encoder = prompts.prompt_encoder(tokenizer, model_config, drawing)

    def tokens(device: str, dtype: str) -> int:
        return devices.settle_generation_tokens(model_config, device, dtype)

    spec = GeneratorSpec(**vars(settle(config, source, local=local, tokens=tokens)), drawing=drawing)
    cut = {"max_prompt_tokens": encoder.max_tokens, "truncation_side": encoder.side}
    model = {"content": checkpoint.content, "type": model_config.model_type, **spec.fingerprint_inputs, **cut}
    size = settle_unit_bytes(config, checkpoint, model_config, spec.device, generates=True)
    return spec, model, UnitSize(bytes=size)


def _settle_endpoint(config: GenerateConfig, drawing: Drawing) -> tuple[EngineSpec, dict[str, Any]]:
    """Return the spec of the API sent to workers and the fingerprint's entry for it."""
    with needing_extra("openai", "generating with an API"):
        from cappy_model.generate.endpoint.connection import EndpointSettings
    limits = ("concurrency", "timeout", "max_retries", "max_requests", "max_tokens_total")
    given = {name: getattr(config, name) for name in limits if getattr(config, name) is not None}
    served: dict[str, Any] = {"base_url": config.base_url, "log_likelihoods": config.log_likelihoods}
    settings = EndpointSettings(config.model, **served, **given)
    return EndpointSpec(settings, drawing), {"name": config.model, **served}


def fingerprint_inputs(plan: GeneratePlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the output."""
    config, task = plan.config, plan.task
    return {
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
            **plan.unit.settings,
        },
        "model": dict(plan.model),
        "files": [file.fingerprint_inputs() for file in plan.inputs[0].files],
    }


def build(root: beam.Pipeline, plan: GeneratePlan, finish: FinishRun) -> None:
    """Read files in units, generate for and write those without an output file, and count all of them."""
    with without_warnings():
        from beam_pipelines.models.inference import InferUnits

    compute = partial(generate_unit, task=plan.task)
    generate = InferUnits("generate", partial(load_engine, plan.engine), compute, plan.output.url)
    units = MapUnits(plan.spec, plan.output, table_folder("generate"), generate, plan.config.accelerator)
    root | "Files" >> beam.Create(plan.inputs[0].files) | "GenerateUnits" >> units | "FinishRun" >> finish


def stages(plan: GeneratePlan) -> list[Stage]:
    """Return the one folder that fills up, in rows of the input."""
    return [Stage(table_folder("generate"), plan.inputs[0].rows, plan.units, resumes=True, tokens=True)]


def describe(plan: GeneratePlan, options: PipelineOptions) -> str:
    """Describe inputs, units, candidates, the model, and the approximate duration, measured on the first rows."""
    config, source, drawing = plan.config, plan.inputs[0], plan.task.drawing
    each = ", ".join(f"{decoding.name} {decoding.samples}" for decoding in drawing.decodings)
    sampling = config.fraction is not None or config.per_template is not None
    lines = [
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}, "
        f"{f'about {plan.sampled:,}' if sampling else 'all'} of them to generate for, "
        f"in {describe_units(source, plan.spec)}",
        f"about {plural(plan.sampled * plan.samples, 'candidate')} of {drawing.min_new_tokens} to "
        f"{drawing.max_new_tokens} tokens, {plan.samples} for each instruction ({each})",
        f"{config.model}: " + ", ".join(f"{name} {value}" for name, value in plan.model.items() if name != "content"),
    ]
    if config.engine != OPENAI:
        lines += _forecast(plan, options)
    return "\n".join(lines)


def _forecast(plan: GeneratePlan, options: PipelineOptions) -> list[str]:
    """Return a line on the duration, measured on a few rows, sampled or not; none if the input is empty."""
    engine, task = load_engine(plan.engine), replace(plan.task, sampling=Sampling(plan.config.seed))

    def generate_rows(unit: Unit) -> int:
        result = generate_unit(unit, engine, task)
        return len(parquet_bytes(result.rows, result.schema))

    sample = measure_first_rows(plan.inputs[0], plan.spec, _TIMED_ROWS, generate_rows)
    if not sample.rows:
        return []
    source = plan.inputs[0]
    sampled = plan.sampled * rows_to_come(plan.config, "generate", source) // max(1, source.rows)
    duration = forecast(sample.scaled_to(sampled), options, "machine")
    return [f"measured by generating for {plural(sample.rows, 'row')} here: {duration}"]


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in a line."""
    totals = manifest["totals"]
    left_out = f", {totals['sampled_out']:,} sampled out" if totals["sampled_out"] else ""
    line = (
        f"{plural(totals['candidates'], 'candidate')} for {plural(totals['generated'], 'instruction')} of "
        f"{plural(totals['rows'], 'row')}{left_out}, {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )
    if not totals["empty"]:
        return line
    reasons = manifest.get("empty")  # earlier versions did not count them
    why = f": {in_words(reasons)}" if reasons else ""
    return f"{line}\n{plural(totals['empty'], 'empty response')}{why}"


JOB = PipelineJob(
    name="generate",
    plan=plan,
    fingerprint_inputs=fingerprint_inputs,
    build=build,
    stages=stages,
    manifest=lambda plan, hashed: partial(generate_manifest, hashed=hashed, model=shareable(plan.config.model)),
    card=CARD,
    describe=describe,
    summarise=summarise,
    page=page,
    grows=True,
)
