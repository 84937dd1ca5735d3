"""adapt: candidates with references -> a scorer adapted to their task, and an evaluation of its choices.

`config` holds the options, `adaptation` makes the pairs, `pairs` writes them, which is the first stage, and `job` runs
all stages: the others are the jobs train, score, rerank and evaluate, each in a folder of its own.
"""

from typing import TYPE_CHECKING, Any

from beam_pipelines.jobs.adapt.config import AdaptConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

__all__ = ["AdaptConfig", "Config", "run"]

Config = AdaptConfig


def run(config: AdaptConfig, options: "PipelineOptions") -> dict[str, dict[str, Any]]:
    """Adapt a scorer, resuming at the stage where an earlier run ended; return the manifests of the stages by name.

    Raises CappyError.
    """
    from beam_pipelines.jobs.adapt.job import JOB

    manifests: dict[str, dict[str, Any]] = JOB.run(config, options)
    return manifests
