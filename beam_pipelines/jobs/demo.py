"""demo: the whole way over the demo's own data, from rows and templates to what a scorer's choices are worth."""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.demo.encoder import minilm_folder
from beam_pipelines.jobs import build_corpus, evaluate, rerank, score, train
from beam_pipelines.jobs.evaluate_manifest import table
from beam_pipelines.jobs.train_config import TrainConfig
from beam_pipelines.options import in_threads, positive
from beam_pipelines.runs import refuse_foreign
from beam_pipelines.storage import absolute, join
from beam_pipelines.transforms.evaluated_columns import CLASSIFICATION, GENERATION
from schemas.manifest import REPORT

_LOG = logging.getLogger("cappy")

JOB = "demo"
HELP = "the demo's own data: build a corpus, train a small scorer, score and rerank candidates, evaluate"
CORPUS, QUESTIONS, SCORER = "corpus", "questions", "scorer"
SCORED, SELECTIONS, SCORED_CHOICES = "scored", "selections", "scored-choices"
"""What is made, each a run of its own in a folder of its own; two more are named after their tasks."""

_TEXTS, _CHOICES = "response", "choices"
_TRAINING: dict[str, Any] = {
    "batch_size": 16,
    "accumulation": 1,
    "learning_rate": 2e-4,
    "max_eval_pairs": 100,
    "evaluate_every": 50,
}
"""There are few pairs, so steps are small and many, at a rate that suits a small encoder."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What demo is told: `pairs` to learn from, and `rows` of each validation file to classify."""

    output: str
    pairs: int = 1_500
    rows: int = 25
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
    encoder, threads = str(minilm_folder()), in_threads(options)
    candidates = _shipped("candidates/validation.parquet")
    return {
        CORPUS: lambda: build_corpus.run(_building(config), options),
        QUESTIONS: lambda: build_corpus.run(_asking(config), options),
        SCORER: lambda: train.run(_training(config, encoder)),
        SCORED: lambda: score.run(_scoring(config, SCORED, candidates, _TEXTS), threads),
        SELECTIONS: lambda: rerank.run(_choosing(config), options),
        GENERATION: lambda: evaluate.run(_evaluating(config, GENERATION, SCORED, _TEXTS), options),
        SCORED_CHOICES: lambda: score.run(_scoring(config, SCORED_CHOICES, _asked(config), _CHOICES), threads),
        CLASSIFICATION: lambda: evaluate.run(_evaluating(config, CLASSIFICATION, SCORED_CHOICES, _CHOICES), options),
    }


def _shipped(name: str) -> str:
    return str(files("beam_pipelines.demo") / name)


def _asked(config: DemoConfig) -> str:
    return config.below(QUESTIONS, "instructions/*.parquet")


def _building(config: DemoConfig) -> build_corpus.BuildCorpusConfig:
    return build_corpus.BuildCorpusConfig(
        mixture=_shipped("mixture.yaml"),
        candidates=_shipped("candidates/train.parquet"),
        output=config.below(CORPUS),
        overwrite=config.overwrite,
    )


def _asking(config: DemoConfig) -> build_corpus.BuildCorpusConfig:
    return build_corpus.BuildCorpusConfig(
        mixture=_shipped("choices.yaml"),
        instructions_only=True,
        limit=config.rows,
        output=config.below(QUESTIONS),
        overwrite=config.overwrite,
    )


def _training(config: DemoConfig, encoder: str) -> TrainConfig:
    return TrainConfig(
        corpus=config.below(CORPUS, "pairs/*.parquet"),
        model=encoder,
        held_out=_asked(config),
        weights=_shipped("weights.yaml"),
        max_pairs=config.pairs,
        **_TRAINING,
        output=config.below(SCORER),
        overwrite=config.overwrite,
    )


def _scoring(config: DemoConfig, stage: str, pattern: str, column: str) -> score.ScoreConfig:
    return score.ScoreConfig(
        input=pattern,
        model=config.below(SCORER),
        response_column=column,
        output=config.below(stage),
        overwrite=config.overwrite,
    )


def _choosing(config: DemoConfig) -> rerank.RerankConfig:
    return rerank.RerankConfig(
        input=config.below(SCORED, "part-*.parquet"), output=config.below(SELECTIONS), overwrite=config.overwrite
    )


def _evaluating(config: DemoConfig, task: str, scored: str, column: str) -> evaluate.EvaluateConfig:
    return evaluate.EvaluateConfig(
        input=config.below(scored, "part-*.parquet"),
        task=task,
        response_column=column,
        output=config.below(task),
        overwrite=config.overwrite,
    )


def summary(config: DemoConfig, found: Mapping[str, Mapping[str, Any]]) -> str:
    """What each stage made, then the tables and the reports."""
    lines = [
        build_corpus.BUILD_CORPUS.summary(found[CORPUS]),
        train.summary(found[SCORER]),
        score.SCORE.summary(found[SCORED]),
        rerank.RERANK.summary(found[SELECTIONS]),
    ]
    tables = [
        f"{of}\n\n{table(found[task])}\n\nreport: {config.below(task, REPORT)}"
        for task, of in (
            (CLASSIFICATION, "The scorer alone: which answer choice is right, of rows that it has not seen"),
            (GENERATION, "The scorer beside a language model: which of its 17 candidates is best"),
        )
    ]
    return "\n\n".join(["\n".join(lines), *tables])


def add_demo_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `DemoConfig`."""
    default = DemoConfig(output="")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of all results")
    parser.add_argument(
        "--pairs", type=positive, default=default.pairs, metavar="N", help=f"to learn from (default: {default.pairs})"
    )
    parser.add_argument(
        "--rows",
        type=positive,
        default=default.rows,
        metavar="N",
        help=f"of each validation file to classify (default: {default.rows})",
    )
    parser.add_argument("--overwrite", action="store_true", help="make finished stages anew")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main([JOB, *sys.argv[1:]]))
