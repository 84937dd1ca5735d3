"""The job `demo`: build-corpus, train, score, rerank and evaluate in turn, over the demo's own data."""

import logging
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.storage import absolute, join
from beam_pipelines.jobs.adapt.job import EVALUATION, SCORED, SCORER, SELECTIONS
from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus import job as build_corpus
from beam_pipelines.jobs.demo.config import DemoConfig
from beam_pipelines.jobs.demo.encoder import minilm_folder
from beam_pipelines.jobs.evaluate import EvaluateConfig
from beam_pipelines.jobs.evaluate import job as evaluate
from beam_pipelines.jobs.evaluate.manifest import table
from beam_pipelines.jobs.rerank import RerankConfig
from beam_pipelines.jobs.rerank import job as rerank
from beam_pipelines.jobs.score import ScoreConfig
from beam_pipelines.jobs.score import job as score
from beam_pipelines.jobs.train import TrainConfig
from beam_pipelines.jobs.train import job as train
from beam_pipelines.runners.options import in_threads
from beam_pipelines.runs.data import table_in
from beam_pipelines.runs.folder import refuse_foreign
from beam_pipelines.runs.job import LocalJob
from beam_pipelines.runs.wording import reword, reworded
from schemas.manifest import REPORT

_LOG = logging.getLogger("cappy")

WORDS = {
    r"train for more steps \(--epochs, --max-steps\), or at another --learning-rate": "train on more --pairs",
    r"; or evaluate on more pairs \(--eval-fraction, --max-eval-pairs\)": "",
    r"evaluate on more pairs \(--eval-fraction, --max-eval-pairs\)": "train on more --pairs",
    r"; give a greater --max-length if the model has the positions": "",
    r"; --check-pairs 0 runs without this check": "",
    r"; try --dtype float32": "",
    r" Try a lower --learning-rate, or --dtype float32\.": "",
    r"give another corpus, or other weights, or a smaller --eval-fraction": "give more --pairs",
    r"give a larger --eval-fraction or --max-eval-pairs, or --eval-fraction 0 for no evaluation": "give more --pairs",
    r"--max-pairs\b": "--pairs",
}
"""What the demo says instead where messages of its stages name flags that it lacks (see `runs.wording`)."""

CORPUS = "corpus"
"""The first stage; the others have the names of adapt's. Each is a run of its own in a folder of its own."""


def run(config: DemoConfig, options: PipelineOptions) -> dict[str, dict[str, Any]]:
    """Run the stages that are not finished; return the manifests of all by name. Raises CappyError."""
    refuse_foreign(absolute(config.output), {})
    manifests: dict[str, dict[str, Any]] = {}
    stages = _stages(config, options, manifests)
    with reworded(WORDS):
        for number, (name, run_stage) in enumerate(stages.items(), start=1):
            _LOG.info("%s, %d of %d", name, number, len(stages))
            manifests[name] = run_stage()
    return manifests


def _stages(
    config: DemoConfig, options: PipelineOptions, manifests: Mapping[str, Mapping[str, Any]]
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what runs each stage; the later ones look up the files of the earlier ones in the `manifests`."""
    training = _training(config)  # fails before the first stage if the encoder is not installed

    def scored() -> str:
        return table_in(manifests[SCORED], _path(config, SCORED))

    return {
        CORPUS: lambda: build_corpus.JOB.run(_building(config), options),
        SCORER: lambda: train.run(training),
        SCORED: lambda: score.JOB.run(_scoring(config), in_threads(options)),
        SELECTIONS: lambda: rerank.JOB.run(_reranking(config, scored()), options),
        EVALUATION: lambda: evaluate.JOB.run(_evaluating(config, scored()), options),
    }


def _path(config: DemoConfig, *parts: str) -> str:
    """Return a path below the output folder."""
    return join(absolute(config.output), *parts)


def _shipped(name: str) -> str:
    """Return the path of a data file of the demo."""
    return str(files("beam_pipelines.jobs.demo") / name)


def _building(config: DemoConfig) -> BuildCorpusConfig:
    return BuildCorpusConfig(
        mixture=_shipped("mixture.yaml"),
        candidates=_shipped("candidates/train.parquet"),
        output=_path(config, CORPUS),
        overwrite=config.overwrite,
    )


def _training(config: DemoConfig) -> TrainConfig:
    """Return the options of training: the recipe for few pairs, and enough pairs to evaluate on."""
    return TrainConfig(
        corpus=_path(config, CORPUS, "pairs/*.parquet"),
        model=str(minilm_folder()),
        held_out=(_shipped("candidates/validation.parquet"),),
        weights=_shipped("weights.yaml"),
        max_pairs=config.pairs,
        max_length=256,
        eval_fraction=0.1,
        max_eval_pairs=300,
        output=_path(config, SCORER),
        overwrite=config.overwrite,
    )


def _scoring(config: DemoConfig) -> ScoreConfig:
    return ScoreConfig(
        input=_shipped("candidates/validation.parquet"),
        model=_path(config, SCORER),
        output=_path(config, SCORED),
        overwrite=config.overwrite,
    )


def _reranking(config: DemoConfig, scored: str) -> RerankConfig:
    return RerankConfig(input=scored, output=_path(config, SELECTIONS), overwrite=config.overwrite)


def _evaluating(config: DemoConfig, scored: str) -> EvaluateConfig:
    return EvaluateConfig(input=scored, output=_path(config, EVALUATION), overwrite=config.overwrite)


def summary(config: DemoConfig, manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Summarise the stages, then show the table of the evaluation and the path of its report."""
    lines = [
        build_corpus.JOB.summarise(manifests[CORPUS]),
        train.summarise(manifests[SCORER]),
        score.JOB.summarise(manifests[SCORED]),
        rerank.JOB.summarise(manifests[SELECTIONS]),
    ]
    return "\n\n".join(
        [
            reword("\n".join(lines), WORDS),
            "Value of the chosen one of a language model's 17 responses, by the method that chooses it:",
            table(manifests[EVALUATION]),
            f"report: {_path(config, EVALUATION, REPORT)}",
        ]
    )


JOB = LocalJob(
    name="demo",
    run=run,
    dry_run=lambda config, options: f"stages: {', '.join((CORPUS, SCORER, SCORED, SELECTIONS, EVALUATION))}",
    summary=summary,
)
