"""demo: all jobs in turn over five small datasets written for this project, with their templates and a mixture.

`config` holds the options, `job` the stages, and `encoder` finds the model that the scorer starts from.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.demo.config import DemoConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["Config", "DemoConfig", "run"]

Config = DemoConfig


def run(config: DemoConfig, options: "PipelineOptions") -> "dict[str, RunResult]":
    """Run all stages, resuming where an earlier run ended; return their results (`RunResult`) by name.

    Raises CappyError.
    """
    from beam_pipelines.jobs.demo.job import JOB
    from beam_pipelines.runs.result import stage_results

    return stage_results(config, JOB.run(config, options))
