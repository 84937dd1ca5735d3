"""The interface of a job, and the registry of all jobs.

A new job is its folder below `beam_pipelines/jobs`, and a line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

from beam_pipelines.runs.config import Config


class Entry(NamedTuple):
    """A job as the registry lists it, without importing it.

    Args:
      help: what the job does.
      workers: the machines that its pipeline runs on: "cpu", or "gpu" where workers hold a model; None for a job that
        is no single Beam pipeline.
      data: the folders below the output that may hold the job's table, the most important first; "" is the output
        folder itself. Empty for a job without a table.
      format_version: version of the layout of the job's output folder.
    """

    help: str
    workers: Literal["cpu", "gpu"] | None = None
    data: tuple[str, ...] = ()
    format_version: int = 1


JOBS: Mapping[str, Entry] = {
    "build-corpus": Entry(
        "build a labelled corpus from datasets and PromptSource templates", "cpu", ("pairs", "instructions")
    ),
    "generate": Entry("sample candidate responses to instructions from a language model", "gpu", ("candidates",), 2),
    "score": Entry("score (instruction, response) pairs with a scorer", "gpu", ("rows",), 2),
    "rerank": Entry("select the best-scored candidates of each group", "cpu", ("selections",), 2),
    "evaluate": Entry("compare a scorer's choices with baselines, with confidence intervals", "cpu", ("",)),
    "train": Entry("train a scorer on labelled pairs, on this machine or with torchrun on several"),
    "adapt": Entry("adapt a scorer to a task, and evaluate its choices among other candidates"),
    "demo": Entry("run every step on the demo's data: corpus, training, scoring, reranking, evaluation"),
}
"""All jobs by name, in the order of `cappy --help`. `beam_pipelines.jobs.NAME` holds the job, `_` for `-`."""


class Job(Protocol):
    """The interface of every job, whether one pipeline (`runners.pipeline_job.PipelineJob`) or not (`LocalJob`)."""

    @property
    def name(self) -> str:
        """The subcommand."""

    def run(self, config: Any, options: Any) -> Any:
        """Run the job; return its manifest, or those of its stages by name. Raises CappyError."""

    def dry_run(self, config: Any, options: Any) -> str:
        """Describe what `run` would do."""

    def summary(self, config: Any, result: Any) -> str:
        """Summarise what `run` returned, for the terminal."""

    @property
    def page(self) -> Callable[[Mapping[str, Any]], Any] | None:
        """Makes the report's page from a manifest; None for a job without a report of its own."""


@dataclass(frozen=True, kw_only=True)
class LocalJob:
    """A job made of functions that runs in the launcher's process, or that runs other jobs in turn."""

    name: str
    run: Callable[[Any, Any], Any]
    dry_run: Callable[[Any, Any], str]
    summary: Callable[[Any, Any], str]
    page: Callable[[Mapping[str, Any]], Any] | None = None


def package_of(name: str) -> str:
    """Return the package of a job, such as `beam_pipelines.jobs.build_corpus`."""
    return f"beam_pipelines.jobs.{name.replace('-', '_')}"


def load_config(name: str) -> type[Config]:
    """Import the configuration of a job, but not the job itself: neither Beam nor torch is needed."""
    found: type[Config] = import_module(package_of(name)).Config
    return found


def load_job(name: str) -> Job:
    """Import a job."""
    found: Job = import_module(f"{package_of(name)}.job").JOB
    return found
