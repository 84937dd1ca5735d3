"""build-corpus: datasets and PromptSource templates -> a labelled corpus of instruction-response pairs.

`config` holds the options, `job` the plan and the pipeline, `datasets` how each dataset is read, `render`, `negatives`,
`candidates` and `labelling` the steps in their order, `estimate` the duration, `manifest` the counts, `card` the
dataset card, and `page` the report.
"""

from typing import TYPE_CHECKING

from beam_pipelines.jobs.build_corpus.config import BuildCorpusConfig

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.runs.result import RunResult

__all__ = ["BuildCorpusConfig", "Config", "run"]

Config = BuildCorpusConfig


def run(config: BuildCorpusConfig, options: "PipelineOptions") -> "RunResult":
    """Build a corpus, unless the folder holds the finished one; return its result (see `RunResult`).

    Raises CappyError.
    """
    from beam_pipelines.jobs.build_corpus.job import JOB
    from beam_pipelines.runs.result import result_of

    return result_of(config, JOB.run(config, options))
