"""score: rows with two text columns -> the same rows with a score.

`config` holds the options, `job` the plan and the pipeline, `scoring` the scoring of one unit, `manifest` its counts,
and `page` the report.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.score.config import ScoreConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["Config", "ScoreConfig", "run"]

Config = ScoreConfig


def run(config: ScoreConfig, options: "PipelineOptions") -> "RunResult":
    """Score rows, resuming where an earlier run ended; return its result (see `RunResult`). Raises CappyError."""
    from beam_pipelines.jobs.score.job import JOB
    from beam_pipelines.runs.result import result_of

    return result_of(config, JOB.run(config, options))
