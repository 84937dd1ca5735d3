"""What the jobs share: what the program knows of each, a run from start to end, and the common part of a manifest."""

import argparse
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.output import FinishRun, OutputDir
from beam_pipelines.io.storage import StorageOptions, is_local, join, read_bytes
from beam_pipelines.io.units import Input
from beam_pipelines.report.page import render_report
from beam_pipelines.runners.cluster import name_job
from beam_pipelines.runners.local import PipelineFailed, execute
from beam_pipelines.runners.options import JobConfig, is_dataflow
from beam_pipelines.runs.card import Card
from beam_pipelines.runs.folder import (
    close_run,
    described,
    hold,
    is_finished,
    load_manifest,
    open_run,
    reason_of_failure,
)
from beam_pipelines.runs.progress import Progress, Stage
from beam_pipelines.runs.release import this_release
from schemas.errors import UsageError
from schemas.manifest import FORMAT_VERSION, REPORT, fingerprint
from schemas.stats import Stats

_LOG = logging.getLogger("cappy")


@dataclass(frozen=True)
class Job:
    """A job as the program sees it.

    `local_mode` is how Beam's in-process runner spreads it: `multi_processing`, or `multi_threading` over one model.
    `summary` says in a line what a manifest holds.
    """

    name: str
    help: str
    config: type[JobConfig]
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Any, PipelineOptions], dict[str, Any]]
    dry_run: Callable[[Any, PipelineOptions], str]
    summary: Callable[[Mapping[str, Any]], str]
    local_mode: str


@dataclass(frozen=True)
class Run:
    """A run of a job: its folder and inputs, everything that shapes its bytes (`facts`), and how its stats becomes the
    manifest.

    `facts` hold the `job`, its `settings`, and what else the fingerprint is made of. `summarise` gives the job's own
    part of the manifest; `inputs`, `rejects` (with their `rate`) and `totals` are among it.
    """

    folder: OutputDir
    inputs: Sequence[Input]
    facts: Mapping[str, Any]
    card: Card
    summarise: Callable[[Stats], dict[str, Any]]
    stages: Sequence[Stage]

    def carry_out(
        self, config: JobConfig, options: PipelineOptions, build: Callable[[beam.Pipeline, FinishRun], None]
    ) -> dict[str, Any]:
        """Runs the pipeline that `build` composes, unless it is done, and draws the report; the manifest.

        Raises CappyError: the folder is not ours or holds another run, the pipeline failed, or too many rejects;
        UsageError for files that the runner cannot reach; HandedOver where the job is left to others to run.
        """
        if is_dataflow(options):
            self._check_reachable()
        folder, storage = self.folder, config.storage
        told = described(self.facts, config)
        done = not config.overwrite and is_finished(folder.url, told, storage)
        if not done:
            with hold(folder.url, storage):
                reading = self._reading()
                leftovers = open_run(folder.url, told, overwrite=config.overwrite, storage=storage, reading=reading)
                summary = _Summary(self.facts, self.summarise, datetime.now(UTC).isoformat(timespec="seconds"))
                finish = FinishRun(folder, summary, self.card, config.max_reject_rate)
                self._execute(lambda root: build(root, finish), options, storage)
                close_run(folder.url, load_manifest(folder.url, storage), leftovers, storage)
        manifest = load_manifest(folder.url, storage)
        page = render_report(manifest).encode()  # says what a damaged manifest lacks
        if done:
            _LOG.info("%s: already finished at %s; --overwrite makes it anew", folder.url, manifest["finished"])
        if read_bytes(join(folder.url, REPORT), storage) != page:
            folder.write(REPORT, page)
        return manifest

    def _reading(self) -> list[str]:
        return [file.url for source in self.inputs for file in source.files]

    def _check_reachable(self) -> None:
        """Raises UsageError for a file on this machine's disks, which no other machine sees."""
        local = next((url for url in (self.folder.url, *self._reading()) if is_local(url)), None)
        if local is not None:
            raise UsageError(f"{local}: is on this machine, where Dataflow's workers are not; give a gs:// URL")

    def _execute(
        self, build: Callable[[beam.Pipeline], None], options: PipelineOptions, storage: StorageOptions
    ) -> None:
        """Runs a pipeline. A runner may cut or lose what a worker said, and what the job itself wrote is whole."""
        job = self.facts["job"]
        name_job(options, job, self.folder.url)
        module = f"beam_pipelines.jobs.{job.replace('-', '_')}"
        try:
            execute(build, options, Progress(self.folder.url, self.stages, storage), module=module)
        except PipelineFailed as error:
            reason = reason_of_failure(self.folder.url, storage)
            if reason is None:
                raise
            raise PipelineFailed(reason) from error


@dataclass(frozen=True)
class _Summary:
    """Makes the manifest of a run that started at `started` (ISO 8601, UTC)."""

    facts: Mapping[str, Any]
    summarise: Callable[[Stats], dict[str, Any]]
    started: str

    def __call__(self, stats: Stats) -> dict[str, Any]:
        finished = datetime.now(UTC)
        return {
            "job": self.facts["job"],
            "format_version": FORMAT_VERSION,
            "versions": versions("apache-beam", "pyarrow"),
            "fingerprint": fingerprint(self.facts),
            "started": self.started,
            "finished": finished.isoformat(timespec="seconds"),
            "seconds": round((finished - datetime.fromisoformat(self.started)).total_seconds(), 1),
            "configuration": self.facts["settings"],
            **self.summarise(stats),
            "files": [entry._asdict() for entry in sorted(stats.files)],
        }


def versions(*packages: str) -> dict[str, str]:
    """What a manifest says of the versions that were at work: this program, Python, and some packages."""
    return {
        "cappy": this_release().version,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def count_rejects(stats: Stats, *, lost: int, attempted: int, of: str) -> dict[str, Any]:
    """The `rejects` of a manifest: reject rows in all and by stage and reason, and `lost` of `attempted` as `rate`.

    `of` says in words what was attempted. It is not what has a reject row: one source row that cannot be read is one
    reject row, and lost under every template.
    """
    by_reason = stats.under("rejects")
    return {
        "rows": sum(sum(reasons.values()) for reasons in by_reason.values()),
        "rate": lost / attempted if attempted else 0.0,
        "lost": lost,
        "attempted": attempted,
        "of": of,
        "by_reason": by_reason,
    }


def sparse(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by number of bin; bins without any are left out."""
    return {str(int(number)): count for number, count in counts.items()}
