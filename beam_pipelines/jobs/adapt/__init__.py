"""adapt: candidates with references -> a scorer adapted to their task, and an evaluation of its choices.

`config` holds the options, `adaptation` makes the pairs, `pairs` writes them, which is the first stage, and `job` runs
all stages: the others are the jobs train, score, rerank and evaluate, each in a folder of its own.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.adapt.config import AdaptConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["AdaptConfig", "Config", "run"]

Config = AdaptConfig


def run(config: AdaptConfig, options: "PipelineOptions") -> "dict[str, RunResult]":
    """Adapt a scorer, resuming at the stage where an earlier run ended; return the stages' results by name.

    Raises CappyError.
    """
    from beam_pipelines.jobs.adapt.job import JOB
    from beam_pipelines.runs.result import stage_results

    return stage_results(config, JOB.run(config, options))
