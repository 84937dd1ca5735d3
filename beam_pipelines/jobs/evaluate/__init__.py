"""evaluate: scored candidates with references or labels -> how well scorers choose or order, compared with baselines.

`config` holds the options, `job` the plan and the pipeline, `columns` the column roles, `measure` the candidates of a
unit with their values, `examples` the methods on each example, `baselines` and `conclusion` the results over all
examples, `manifest` the counts and the table, `page` and `plots` the report. `cappy_model.metrics.measures` lists the
measures.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.evaluate.config import EvaluateConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["Config", "EvaluateConfig", "run"]

Config = EvaluateConfig


def run(config: EvaluateConfig, options: "PipelineOptions") -> "RunResult":
    """Evaluate scored rows; return its result (see `RunResult`). Raises CappyError."""
    from beam_pipelines.jobs.evaluate.job import JOB
    from beam_pipelines.runs.result import result_of

    return result_of(config, JOB.run(config, options))
