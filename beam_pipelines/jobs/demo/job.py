"""demo: the whole way over the demo's own data, from rows and templates to what a scorer's choices are worth."""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.storage import absolute, join
from beam_pipelines.jobs.adapt.job import EVALUATION, SCORED, SCORER, SELECTIONS
from beam_pipelines.jobs.build_corpus.job import job as build_corpus
from beam_pipelines.jobs.demo.encoder import minilm_folder
from beam_pipelines.jobs.evaluate.job import job as evaluate
from beam_pipelines.jobs.evaluate.manifest import table
from beam_pipelines.jobs.rerank.job import job as rerank
from beam_pipelines.jobs.score.job import job as score
from beam_pipelines.jobs.train.config import TrainConfig
from beam_pipelines.jobs.train.job import job as train
from beam_pipelines.runners.options import in_threads, positive
from beam_pipelines.runs.folder import refuse_foreign
from schemas.manifest import REPORT

_LOG = logging.getLogger("cappy")

JOB = "demo"
HELP = "the demo's own data: build a corpus, train a small scorer, score and rerank candidates, evaluate"
CORPUS = "corpus"
"""The first stage; the others are called as those of adapt. Each is a run of its own in a folder of its own."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What demo is told: how many `pairs` the scorer learns from."""

    output: str
    pairs: int = 2_400
    overwrite: bool = False

    def below(self, stage: str, pattern: str = "") -> str:
        """The folder of a stage, or a pattern of files in it."""
        return join(absolute(self.output), stage, *filter(None, [pattern]))


def run(config: DemoConfig, options: PipelineOptions) -> dict[str, dict[str, Any]]:
    """Carries out the stages; their manifests by name. Those that are finished are left alone. Raises CappyError."""
    refuse_foreign(absolute(config.output), {})
    stages, found = _stages(config, options), {}
    for number, (stage, carry_out) in enumerate(stages.items(), start=1):
        _LOG.info("%s, %d of %d", stage, number, len(stages))
        found[stage] = carry_out()
    return found


def _stages(config: DemoConfig, options: PipelineOptions) -> dict[str, Callable[[], dict[str, Any]]]:
    training = _training(config)
    return {
        CORPUS: lambda: build_corpus.run(_building(config), options),
        SCORER: lambda: train.run(training),
        SCORED: lambda: score.run(_scoring(config), in_threads(options)),
        SELECTIONS: lambda: rerank.run(_choosing(config), options),
        EVALUATION: lambda: evaluate.run(_evaluating(config), options),
    }


def _shipped(name: str) -> str:
    return str(files("beam_pipelines.jobs.demo") / name)


def _building(config: DemoConfig) -> build_corpus.BuildCorpusConfig:
    return build_corpus.BuildCorpusConfig(
        mixture=_shipped("mixture.yaml"),
        candidates=_shipped("candidates/train.parquet"),
        output=config.below(CORPUS),
        overwrite=config.overwrite,
    )


def _training(config: DemoConfig) -> TrainConfig:
    """There are few pairs, so steps are small and many, at a rate that suits a small encoder."""
    return TrainConfig(
        corpus=config.below(CORPUS, "pairs/*.parquet"),
        model=str(minilm_folder()),
        held_out=(_shipped("candidates/validation.parquet"),),
        weights=_shipped("weights.yaml"),
        max_pairs=config.pairs,
        batch_size=16,
        accumulation=1,
        learning_rate=2e-4,
        max_eval_pairs=100,
        evaluate_every=50,
        output=config.below(SCORER),
        overwrite=config.overwrite,
    )


def _scoring(config: DemoConfig) -> score.ScoreConfig:
    return score.ScoreConfig(
        input=_shipped("candidates/validation.parquet"),
        model=config.below(SCORER),
        output=config.below(SCORED),
        overwrite=config.overwrite,
    )


def _choosing(config: DemoConfig) -> rerank.RerankConfig:
    return rerank.RerankConfig(
        input=config.below(SCORED, "part-*.parquet"), output=config.below(SELECTIONS), overwrite=config.overwrite
    )


def _evaluating(config: DemoConfig) -> evaluate.EvaluateConfig:
    return evaluate.EvaluateConfig(
        input=config.below(SCORED, "part-*.parquet"), output=config.below(EVALUATION), overwrite=config.overwrite
    )


def summary(config: DemoConfig, found: Mapping[str, Mapping[str, Any]]) -> str:
    """What each stage made, the table of the evaluation, and where its report is."""
    lines = [
        build_corpus.BUILD_CORPUS.summary(found[CORPUS]),
        train.summary(found[SCORER]),
        score.SCORE.summary(found[SCORED]),
        rerank.RERANK.summary(found[SELECTIONS]),
    ]
    return "\n\n".join(
        [
            "\n".join(lines),
            "What the best of a language model's 17 responses is worth, by who chooses it:",
            table(found[EVALUATION]),
            f"report: {config.below(EVALUATION, REPORT)}",
        ]
    )


def add_demo_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `DemoConfig`."""
    pairs = DemoConfig(output="").pairs
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of all results")
    parser.add_argument(
        "--pairs", type=positive, default=pairs, metavar="N", help=f"the scorer learns from (default: {pairs})"
    )
    parser.add_argument("--overwrite", action="store_true", help="make finished stages anew")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main([JOB, *sys.argv[1:]]))
