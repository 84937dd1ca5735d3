"""The job `score`: how it is planned, fingerprinted and built."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.columns import layouts_in
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.storage import absolute
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.manifest import CARD, score_manifest
from beam_pipelines.jobs.score.page import page
from beam_pipelines.jobs.score.plan import ScorePlan, plan
from beam_pipelines.jobs.score.reuse import load_reusing
from beam_pipelines.jobs.score.scoring import load_scorer, score_positions, score_unit
from beam_pipelines.jobs.score.several import (
    count_reused,
    delete_scorers,
    describe_in_turn,
    score_in_turn,
    summarise_several,
)
from beam_pipelines.models.settle import describe_units, without_warnings
from beam_pipelines.report.text import plural
from beam_pipelines.runners.forecast import forecast, measure_first_rows
from beam_pipelines.runners.pipeline_job import PipelineJob
from beam_pipelines.runs.data import table_folder
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.folder import earlier_facts
from beam_pipelines.runs.inputs import rows_to_come
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.map_units import MapUnits
from cappy_model.paths import shareable
from schemas.errors import CappyError

_TIMED_ROWS = 64


def fingerprint_inputs(plan: ScorePlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the output."""
    columns, layouts = plan.columns, {} if plan.positions else layouts_in(plan.inputs[0].schema)
    return {
        "settings": {
            "instruction_column": columns.instruction,
            "response_column": columns.response,
            "score_column": columns.score,
            "limit": plan.config.limit,
            "unit_bytes": plan.unit_bytes,
            **({"carries": "position"} if plan.positions else {}),
        },
        "model": dict(plan.model),
        "files": [file.fingerprint_inputs() for file in plan.inputs[0].files],
        **({"layouts": layouts} if layouts else {}),
        **(plan.reuse.fingerprint_inputs if plan.reuse else {}),
    }


def build(root: beam.Pipeline, plan: ScorePlan, finish: FinishRun) -> None:
    """Read files in units, score and write those without an output file, and count all of them."""
    with without_warnings():
        from beam_pipelines.models.inference import InferUnits

    compute = partial(score_unit, columns=plan.columns)
    if plan.positions:
        compute = partial(score_positions, score=compute, columns=plan.columns)
    load = partial(load_reusing, plan.scorer, plan.reuse) if plan.reuse else partial(load_scorer, plan.scorer)
    score = InferUnits("score", load, compute, plan.output.url)
    units = MapUnits(plan.spec, plan.output, table_folder("score"), score, plan.config.accelerator)
    root | "Files" >> beam.Create(plan.inputs[0].files) | "ScoreUnits" >> units | "FinishRun" >> finish


def stages(plan: ScorePlan) -> list[Stage]:
    """Return the one folder that fills up."""
    return [Stage(table_folder("score"), plan.inputs[0].rows, plan.units, resumes=True, tokens=True)]


def describe(plan: ScorePlan, options: PipelineOptions) -> str:
    """Describe inputs, units, the model, and the approximate duration, measured on the first rows."""
    source, model = plan.inputs[0], plan.model
    lines = [
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}, in {describe_units(source, plan.spec)}",
        f"{plan.config.model}: {model['type']} in {model['dtype']} on {model['device']}, head "
        f"{plan.meaning['head']}, template {plan.meaning['template']}, {model['max_length']} tokens, cut "
        f"{model['truncation']}, {model['tokens_per_batch']:,} tokens per batch",
        *([plan.reuse.describe()] if plan.reuse else []),
    ]
    scorer = load_scorer(plan.scorer)

    def score_rows(unit: Unit) -> int:
        result = score_unit(unit, scorer, plan.columns)
        return len(parquet_bytes(result.rows, result.schema))

    sample = measure_first_rows(source, plan.spec, _TIMED_ROWS, score_rows)
    if sample.rows:
        duration = forecast(sample.scaled_to(rows_to_come(plan.config, "score", source)), options, "machine")
        unknown = ", if no score is known" if plan.reuse else ""
        lines.append(f"measured by scoring {plural(sample.rows, 'row')} here{unknown}: {duration}")
    return "\n".join(lines)


def summarise(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in a line, or in one for each scorer."""
    if "scorers" in manifest:
        return summarise_several(manifest)
    totals = manifest["totals"]
    return (
        f"{plural(totals['scored'], 'pair')} scored in {plural(totals['rows'], 'row')}, {count_reused(totals)}"
        f"{totals['unscored']:,} without a score, {plural(manifest['rejects']['rows'], 'reject')}, "
        f"in {manifest['seconds']} s"
    )


class ScoreJob(PipelineJob[ScorePlan]):
    """A pipeline job that runs several scorers in turn, where there is a file of them."""

    def run(self, config: ScoreConfig, options: PipelineOptions) -> dict[str, Any]:
        """Run the job as `PipelineJob.run` does, or the run of each scorer and the table of all of them."""
        config.check()
        if config.scorers is None:
            _refuse_several(config)
            return super().run(config, options)
        return score_in_turn(config, options, self)

    def run_plan(
        self, plan: ScorePlan, options: PipelineOptions, *, held: bool = False, stage: bool = False
    ) -> dict[str, Any]:
        """Run the job as `PipelineJob.run_plan` does; with --overwrite, no runs of several scorers are left."""
        manifest = super().run_plan(plan, options, held=held, stage=stage)
        if plan.config.overwrite and not plan.positions:
            delete_scorers(plan)
        return manifest

    def dry_run(self, config: ScoreConfig, options: PipelineOptions) -> str:
        """Describe the run, or those of all scorers."""
        config.check()
        return super().dry_run(config, options) if config.scorers is None else describe_in_turn(config, options, self)


def _refuse_several(config: ScoreConfig) -> None:
    """Raise CappyError if the output folder holds a run of several scorers."""
    output = absolute(config.output)
    if not config.overwrite and "scorers" in earlier_facts(output, config.storage):
        raise CappyError(
            f"{output}: holds the scores of several scorers; list {config.model} in their file and give it by "
            "--scorers, or give another folder"
        )


JOB = ScoreJob(
    name="score",
    plan=plan,
    fingerprint_inputs=fingerprint_inputs,
    build=build,
    stages=stages,
    manifest=lambda plan, hashed: partial(
        score_manifest, hashed=hashed, model={"name": shareable(str(plan.config.model)), **plan.meaning}
    ),
    card=CARD,
    describe=describe,
    summarise=summarise,
    page=page,
    grows=True,
)
