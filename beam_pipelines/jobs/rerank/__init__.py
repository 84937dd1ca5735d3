"""rerank: scored candidates -> the best of each group.

`config` holds the options, `job` the plan and the pipeline, `scored_rows` the candidates of a unit, `reduction` what
remains of a unit, `selection` the best of each group of a shard, `manifest` the counts, and `page` the report.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.rerank.config import RerankConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["Config", "RerankConfig", "run"]

Config = RerankConfig


def run(config: RerankConfig, options: "PipelineOptions") -> "RunResult":
    """Select the best candidates of each group, with a model after scoring them; return its result (see `RunResult`).

    Raises CappyError.
    """
    from beam_pipelines.jobs.rerank.job import JOB
    from beam_pipelines.runs.result import result_of

    return result_of(config, JOB.run(config, options))
