"""The job `adapt`: its stages, each a run of its own in a folder of its own below the output folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.storage import absolute, join
from beam_pipelines.jobs.adapt.config import ADAPTATION_PAIRS, AdaptConfig
from beam_pipelines.jobs.adapt.pairs import columns_to_read, make_pairs, open_candidates, text_columns_in
from beam_pipelines.jobs.adapt.wording import words_of
from beam_pipelines.jobs.evaluate import EvaluateConfig
from beam_pipelines.jobs.evaluate import job as evaluate
from beam_pipelines.jobs.rerank import RerankConfig
from beam_pipelines.jobs.rerank import job as rerank
from beam_pipelines.jobs.score import ScoreConfig
from beam_pipelines.jobs.score import job as score
from beam_pipelines.jobs.score.plan import output_columns
from beam_pipelines.jobs.train import TrainConfig
from beam_pipelines.jobs.train import job as train
from beam_pipelines.jobs.train.config import TrainingConfig
from beam_pipelines.jobs.train.plan import begun_before_groups
from beam_pipelines.report.text import plural
from beam_pipelines.runners.options import in_threads, placement_of
from beam_pipelines.runners.pipeline_job import check_shared
from beam_pipelines.runs.data import table_in
from beam_pipelines.runs.folder import refuse_foreign
from beam_pipelines.runs.inputs import check_not_grown
from beam_pipelines.runs.job import LocalJob
from beam_pipelines.runs.wording import reword, reworded
from cappy_model.train.recipe import RANDOM
from schemas.errors import CappyError, UsageError
from schemas.records import as_text

PAIRS, SCORER, SCORED, SELECTIONS, EVALUATION = "pairs", "scorer", "scored", "selections", "evaluation"
"""The stages, and the folders below the output folder."""


def _folder(config: AdaptConfig, stage: str) -> str:
    return join(absolute(config.output), stage)


def _training(config: AdaptConfig) -> TrainConfig:
    given = {field.name: getattr(config, field.name) for field in fields(TrainingConfig)}
    given |= {"output": _folder(config, SCORER), "held_out": (*config.held_out, config.validation)}
    training = TrainConfig(**given, corpus=join(_folder(config, PAIRS), "shard-*.parquet"))
    if config.max_steps is not None:
        return training
    if begun_before_groups(training):
        older = training.recipe(RANDOM, ADAPTATION_PAIRS)
        return replace(training, max_steps=max(1, ADAPTATION_PAIRS // (older.batch_size * older.accumulation)))
    return replace(training, pairs_seen=ADAPTATION_PAIRS)


def _scoring(config: AdaptConfig) -> ScoreConfig:
    return ScoreConfig(
        input=config.validation,
        model=_folder(config, SCORER),
        output=_folder(config, SCORED),
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
        text_columns=text_columns_in(config, config.validation),
        csv_delimiter=config.csv_delimiter,
        encoding=config.encoding,
        **_shared(config),
    )


def _reranking(config: AdaptConfig, scored: str) -> RerankConfig:
    return RerankConfig(input=scored, output=_folder(config, SELECTIONS), **_shared(config))


def _evaluating(config: AdaptConfig, scored: str) -> EvaluateConfig:
    folder, seed, rouge = _folder(config, EVALUATION), config.seed, config.rouge
    return EvaluateConfig(input=scored, output=folder, seed=seed, rouge=rouge, **_shared(config))


def _shared(config: AdaptConfig) -> dict[str, Any]:
    """Return the options that all stages after training share."""
    return {name: getattr(config, name) for name in ("max_reject_rate", "overwrite", "storage")}


def run(config: AdaptConfig, options: PipelineOptions) -> dict[str, dict[str, Any]]:
    """Adapt a scorer, score the validation candidates with it, rerank and evaluate them.

    Returns the manifests of the stages by name. A finished stage is left alone, an interrupted one is resumed. Raises
    CappyError.
    """
    check_shared(config.output, placement_of(options))
    with reworded(words_of(config)):
        _check(config)
        made = {
            PAIRS: make_pairs(config, _folder(config, PAIRS)),
            SCORER: train.run(_training(config)),
            SCORED: score.JOB.run(_scoring(config), in_threads(options)),
        }
        scored = table_in(made[SCORED], _folder(config, SCORED))
        return {
            **made,
            SELECTIONS: rerank.JOB.run(_reranking(config, scored), options),
            EVALUATION: evaluate.JOB.run(_evaluating(config, scored), options),
        }


def _check(config: AdaptConfig) -> None:
    """Raise CappyError or UsageError for errors that would otherwise show only after the stages before."""
    config.check()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("adapt runs in one process; give `cappy train` to torchrun, on pairs that adapt has made")
    refuse_foreign(absolute(config.output), config.storage)
    read = {*text_columns_in(config, config.train), *text_columns_in(config, config.validation)}
    unknown = next((name for name in config.text_columns if name not in read), None)
    if unknown is not None:
        raise CappyError(f"--text-columns {unknown}: neither --train nor --validation has such a column")
    try:
        scored = output_columns(_scoring(config))
        rerank.columns_of(_reranking(config, config.validation), scored)
        evaluating = _evaluating(config, config.validation)
        evaluate.columns_of(evaluating, _with_texts(scored, evaluate.texts_of(evaluating)))
        evaluate.check_valued(evaluating, open_candidates(config, config.validation))
    except CappyError as error:
        raise CappyError(
            f"--validation: {error}. In adapt the columns have the names that generate writes: rename or drop those of "
            "the files"
        ) from error
    remedy = "give another --output, or --overwrite to begin again"
    check_not_grown(_scoring(config), "score", _folder(config, SELECTIONS), remedy)


def _with_texts(schema: pa.Schema, texts: Sequence[str]) -> pa.Schema:
    """Return a schema as a job reads it that takes the columns `texts` as text."""
    names = [name for name in texts if name in schema.names and not pa.types.is_null(schema.field(name).type)]
    kinds = {name: as_text(schema.field(name).type) for name in names}
    return pa.schema([field.with_type(kinds.get(field.name) or field.type) for field in schema])


def dry_run(config: AdaptConfig) -> str:
    """Describe the candidates of both sides, and the training."""
    with reworded(words_of(config)):
        _check(config)
    train_input, validation = (open_candidates(config, pattern) for pattern in (config.train, config.validation))
    columns_to_read(train_input.schema)
    training = _training(config)
    duration = f"{training.max_steps:,} steps" if training.max_steps else f"about {training.pairs_seen:,} pairs"
    return (
        f"learn from {plural(train_input.rows, 'candidate')} in {duration}, "
        f"then choose among {plural(validation.rows, 'candidate')}, with {config.model}"
    )


def summarise(config: AdaptConfig, manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Summarise the manifests of the stages, a line for each."""
    pairs, missing = manifests[PAIRS]["totals"], manifests[PAIRS]["notes"].get("mismatch_skipped", 0)
    note = f"; {plural(missing, 'wrong response')} could not be drawn: too few references differ" if missing else ""
    lines = "\n".join(
        [
            f"{plural(pairs['pairs'], 'pair')} of {plural(pairs['instructions'], 'instruction')}{note}",
            train.summarise(manifests[SCORER]),
            score.JOB.summarise(manifests[SCORED]),
            rerank.JOB.summarise(manifests[SELECTIONS]),
            evaluate.JOB.summarise(manifests[EVALUATION]),
        ]
    )
    return reword(lines, words_of(config))


JOB = LocalJob(
    name="adapt",
    run=run,
    dry_run=lambda config, options: dry_run(config),
    summary=summarise,
)
