"""demo: all jobs in turn over five small datasets written for this project, with their templates and a mixture.

`config` holds the options, `job` the stages, and `encoder` finds the model that the scorer starts from.
"""

from typing import TYPE_CHECKING, Any

from beam_pipelines.jobs.demo.config import DemoConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

__all__ = ["Config", "DemoConfig", "run"]

Config = DemoConfig


def run(config: DemoConfig, options: "PipelineOptions") -> dict[str, dict[str, Any]]:
    """Run all stages, resuming where an earlier run ended; return their manifests by name. Raises CappyError."""
    from beam_pipelines.jobs.demo.job import JOB

    manifests: dict[str, dict[str, Any]] = JOB.run(config, options)
    return manifests
