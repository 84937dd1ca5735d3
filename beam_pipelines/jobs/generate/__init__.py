"""generate: instructions -> candidates, responses sampled from a language model.

`config` holds the options, `settings` reads the files that they name, `job` the plan and the pipeline, `sampling` the
choice of instructions, `engines` the models, `generation` the candidates of one unit, `manifest` its counts, and `page`
the report.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.generate.config import GenerateConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["Config", "GenerateConfig", "run"]

Config = GenerateConfig


def run(config: GenerateConfig, options: "PipelineOptions") -> "RunResult":
    """Generate candidates, resuming where an earlier run ended; return its result (see `RunResult`).

    Raises CappyError.
    """
    from beam_pipelines.jobs.generate.job import JOB
    from beam_pipelines.runs.result import result_of

    return result_of(config, JOB.run(config, options))
