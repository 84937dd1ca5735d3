"""The job `score`: how it is planned, fingerprinted and built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.columns import layouts_in
from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.manifest import CARD, score_manifest
from beam_pipelines.jobs.score.page import page
from beam_pipelines.jobs.score.scoring import ScoreColumns, ScorerSpec, load_scorer, score_unit
from beam_pipelines.models.check import pick_pairs
from beam_pipelines.models.settle import (
    check_named,
    earlier,
    has_ended,
    model_source,
    needing_extra,
    read_template,
    settle,
    without_warnings,
)
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import forecast, measure_first_rows
from beam_pipelines.runners.options import Placement
from beam_pipelines.runners.pipeline_job import PipelineJob, Plan
from beam_pipelines.runs.data import table_folder
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.inputs import open_inputs
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.map_units import MapUnits
from cappy_model.paths import shareable
from schemas.chunks import CHUNK_ROWS

if TYPE_CHECKING:
    from cappy_model.score.loading import SettledScorer

_TIMED_ROWS = 64


@dataclass(frozen=True)
class ScorePlan(Plan):
    """A configuration with the columns and the scorer settled.

    `model` is the fingerprint's entry for the scorer; `meaning` says what its scores are, for the manifest.
    """

    config: ScoreConfig
    columns: ScoreColumns
    scorer: ScorerSpec
    model: Mapping[str, Any]
    meaning: Mapping[str, str | None]

    @property
    def spec(self) -> ReadSpec:
        """All columns; a unit is a chunk."""
        return self.inputs[0].read_spec(self.inputs[0].schema, CHUNK_ROWS, exact=True)

    @property
    def units(self) -> int:
        """The approximate number of units."""
        return self.inputs[0].units(CHUNK_ROWS)


def plan(config: ScoreConfig, placement: Placement) -> ScorePlan:
    """Inspect the input and the model; settle device, dtype and tokens per batch.

    Raises CappyError or UsageError for anything that is wrong before a row is read.
    """
    check_named(config, local=placement.local)
    source = _open(config)
    columns = columns_of(config)
    columns.output(source.schema)
    check = pick_pairs(source, columns.instruction, columns.response, config.check_pairs)
    scorer, settled = _settle(config, check, local=placement.local)
    model = {"content": settled.checkpoint.content, **settled.fingerprint_inputs, **scorer.fingerprint_inputs}
    return ScorePlan(config, (source,), columns, scorer, model, settled.described)


def _settle(
    config: ScoreConfig, check: Sequence[tuple[str, str]], *, local: bool
) -> tuple[ScorerSpec, "SettledScorer"]:
    """Return the model spec sent to workers, and the scorer without its weights.

    Locally the weights are loaded, too, and the scorer is checked, unless the run has finished.
    """
    with needing_extra("model", "scoring"):
        from cappy_model import devices
        from cappy_model.checkpoints import find_checkpoint
        from cappy_model.score.loading import settle_scorer
    source = model_source(config, config.model)
    length = config.max_length or earlier(config, "max_length")
    template = read_template(config.template, config.storage)
    settled = settle_scorer(find_checkpoint(source), head=config.head, template=template, max_length=length)

    def tokens(device: str, dtype: str) -> int:
        return devices.settle_tokens_per_batch(settled.config, device, dtype)

    model = settle(config, source, local=local, tokens=tokens, model_config=settled.config)
    spec = ScorerSpec(**vars(model), head=config.head, template=template, max_length=length, check=tuple(check))
    if local and not has_ended(config):
        load_scorer(spec)
    return spec, settled


def columns_of(config: Any) -> ScoreColumns:
    """Return the columns of the pairs, and the names of the new ones, for a configuration of score or rerank."""
    return ScoreColumns(config.instruction_column, config.response_column, config.score_column)


def output_columns(config: Any) -> pa.Schema:
    """Return the columns of the scored rows, for a configuration of score or rerank.

    Raises CappyError for a column that is missing, not text, or would be overwritten.
    """
    return columns_of(config).output(_open(config).schema)


def _open(config: Any) -> Input:
    """Open the pairs, all of whose columns are carried. Raises CappyError for a column that cannot be read."""
    source = open_inputs(config, config.input, text=(config.instruction_column, config.response_column))
    source.check_usable()
    return source


def fingerprint_inputs(plan: ScorePlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the output."""
    columns, layouts = plan.columns, layouts_in(plan.inputs[0].schema)
    return {
        "settings": {
            "instruction_column": columns.instruction,
            "response_column": columns.response,
            "score_column": columns.score,
            "limit": plan.config.limit,
        },
        "model": dict(plan.model),
        "files": [file.fingerprint_inputs() for file in plan.inputs[0].files],
        **({"layouts": layouts} if layouts else {}),
    }


def build(root: beam.Pipeline, plan: ScorePlan, finish: FinishRun) -> None:
    """Read files in units, score and write those without an output file, and count all of them."""
    with without_warnings():
        from beam_pipelines.models.inference import InferUnits

    score = InferUnits("score", partial(load_scorer, plan.scorer), partial(score_unit, columns=plan.columns))
    units = MapUnits(plan.spec, plan.output, table_folder("score"), score, plan.config.accelerator)
    root | "Files" >> beam.Create(plan.inputs[0].files) | "ScoreUnits" >> units | "FinishRun" >> finish


def stages(plan: ScorePlan) -> list[Stage]:
    """Return the one folder that fills up."""
    return [Stage(table_folder("score"), plan.inputs[0].rows, plan.units, resumes=True, tokens=True)]


def describe(plan: ScorePlan, options: PipelineOptions) -> str:
    """Describe inputs, units, the model, and the approximate duration, measured on the first rows."""
    source, model = plan.inputs[0], plan.model
    lines = [
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}, about {plural(plan.units, 'unit')}",
        f"{plan.config.model}: {model['type']} in {model['dtype']} on {model['device']}, head "
        f"{plan.meaning['head']}, template {plan.meaning['template']}, {model['max_length']} tokens, cut "
        f"{model['truncation']}, {model['tokens_per_batch']:,} tokens per batch",
    ]
    scorer = load_scorer(plan.scorer)

    def score_rows(unit: Unit) -> int:
        result = score_unit(unit, scorer, plan.columns)
        return len(parquet_bytes(result.rows, result.schema))

    sample = measure_first_rows(source, plan.spec, _TIMED_ROWS, score_rows)
    if sample.rows:
        duration = forecast(sample.scaled_to(source.rows), options, "machine")
        lines.append(f"measured by scoring {plural(sample.rows, 'row')} here: {duration}")
    return "\n".join(lines)


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in a line."""
    totals = manifest["totals"]
    return (
        f"{plural(totals['scored'], 'pair')} scored in {plural(totals['rows'], 'row')}, "
        f"{totals['unscored']:,} without a score, {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )


JOB = PipelineJob(
    name="score",
    plan=plan,
    fingerprint_inputs=fingerprint_inputs,
    build=build,
    stages=stages,
    manifest=lambda plan, hashed: partial(
        score_manifest, hashed=hashed, model={"name": shareable(plan.config.model), **plan.meaning}
    ),
    card=CARD,
    describe=describe,
    summarise=summarise,
    page=page,
)
