"""score: rows with two text columns -> the same rows with a score.

`config` holds the options, `job` the plan and the pipeline, `scoring` the scoring of one unit, `manifest` its counts,
and `page` the report.
"""

from typing import TYPE_CHECKING, Any

from beam_pipelines.jobs.score.config import ScoreConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

__all__ = ["Config", "ScoreConfig", "run"]

Config = ScoreConfig


def run(config: ScoreConfig, options: "PipelineOptions") -> dict[str, Any]:
    """Score rows, resuming where an earlier run ended; return the manifest. Raises CappyError."""
    from beam_pipelines.jobs.score.job import JOB

    return JOB.run(config, options)
