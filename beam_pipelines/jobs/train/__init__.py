"""train: labelled pairs -> a scorer, trained on this machine or by the processes of a launcher such as torchrun.

`config` holds the options, `plan` the settled inputs, `job` the training, `forecast` its duration, `files` the other
files that it reads and keeps. `manifest` writes the results: `metrics` and `warnings` in it, the model `card`, and the
report's `page` with its `plots`. The training itself is in `cappy_model.train`.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.train.config import TrainConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["Config", "TrainConfig", "run"]

Config = TrainConfig


def run(config: TrainConfig, options: "PipelineOptions | None" = None) -> "RunResult":
    """Train a scorer, resuming where an earlier run ended; return its result (see `RunResult`). Raises CappyError.

    `options` is accepted, as for every job, and not used: training is no Beam pipeline.
    """
    from beam_pipelines.jobs.train.job import JOB
    from beam_pipelines.runs.result import result_of

    return result_of(config, JOB.run(config, options))
