"""rerank: scored candidates -> the best of each group.

`config` holds the options, `job` the plan and the pipeline, `scored_rows` the candidates of a unit, `reduction` what
remains of a unit, `selection` the best of each group of a shard, `manifest` the counts, and `page` the report.
"""

from typing import TYPE_CHECKING, Any

from beam_pipelines.jobs.rerank.config import RerankConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

__all__ = ["Config", "RerankConfig", "run"]

Config = RerankConfig


def run(config: RerankConfig, options: "PipelineOptions") -> dict[str, Any]:
    """Select the best candidates of each group, with a model after scoring them; return the manifest.

    Raises CappyError.
    """
    from beam_pipelines.jobs.rerank.job import JOB

    return JOB.run(config, options)
