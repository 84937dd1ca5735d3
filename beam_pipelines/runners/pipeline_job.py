"""A job that is one Beam pipeline: planned, claimed, run on any runner, and reported."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.inputs import NOTHING_KNOWN, Input
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import absolute, is_local, join, read_bytes
from beam_pipelines.runners.cluster import name_job
from beam_pipelines.runners.local import PipelineFailed, execute
from beam_pipelines.runners.options import DRY_RUN, Placement, is_dataflow, placement_of
from beam_pipelines.runs.card import Card
from beam_pipelines.runs.config import JobConfig
from beam_pipelines.runs.files import describe_lost, discard_lost, lost_files
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.flags import in_memory
from beam_pipelines.runs.folder import (
    close_run,
    describe_run,
    earlier_run,
    load_manifest,
    open_run,
    reason_of_failure,
    standing_of,
)
from beam_pipelines.runs.growth import Standing, refuse_rebuild
from beam_pipelines.runs.inputs import known_files, reading_inputs
from beam_pipelines.runs.job import JOBS, package_of
from beam_pipelines.runs.lock import hold
from beam_pipelines.runs.manifest import manifest_header
from beam_pipelines.runs.progress import Progress, Stage
from beam_pipelines.runs.report import render_report
from beam_pipelines.runs.start_up import counting_start_up
from cappy_model.paths import encodable
from schemas.errors import UsageError
from schemas.manifest import REPORT
from schemas.stats import Stats

_LOG = logging.getLogger("cappy")

ManifestOf = Callable[[Stats], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A configuration whose inputs have been inspected. Jobs add what else they have looked up."""

    config: JobConfig
    inputs: tuple[Input, ...]

    @property
    def output(self) -> OutputDir:
        """The output folder."""
        return OutputDir(encodable(absolute(self.config.output)), self.config.storage)

    @property
    def urls(self) -> list[str]:
        """All input files, in order."""
        return [file.url for source in self.inputs for file in source.files]


P = TypeVar("P", bound=Plan)


@dataclass(frozen=True, kw_only=True)
class PipelineJob(Generic[P]):
    """A job as functions of its plan.

    - `plan` looks everything up and fails before a row is read.
    - `fingerprint_inputs` returns everything that shapes the bytes of the output: its `settings`, files and models.
    - `build` composes the pipeline, which ends in the `FinishRun` that it is given.
    - `stages` says which folders fill up, for the progress bar.
    - `manifest` returns the function, sent to a worker, that turns the statistics of the run into the job's own part
      of the manifest: `inputs`, `totals` and `rejects` are among its keys.
    - `check` looks at a sample of the inputs before a run starts: it returns warnings, or raises CappyError.
    - `describe` is the text of a dry run, `summarise` the line about a manifest, `page` the page of the report.
    - With `grows`, a run takes in files that are added to its input: its plan opens the input with the files that
      `known_files` gives, and its fingerprint inputs have them as `files`, in the order of their numbers.
    """

    name: str
    plan: Callable[[Any, Placement], P]
    fingerprint_inputs: Callable[[P], dict[str, Any]]
    build: Callable[[beam.Pipeline, P, FinishRun], None]
    stages: Callable[[P], Sequence[Stage]]
    manifest: Callable[[P, Mapping[str, Any]], ManifestOf]
    card: Card
    describe: Callable[[P, PipelineOptions], str]
    summarise: Callable[[Mapping[str, Any]], str]
    page: Callable[[Mapping[str, Any]], Any]
    check: Callable[[P], Sequence[str]] = lambda plan: ()
    grows: bool = False

    def run(self, config: Any, options: PipelineOptions) -> dict[str, Any]:
        """Run the job unless its folder holds the finished run; return the manifest.

        Of a finished run whose files are missing or have another size, a map job rebuilds the units that these belong
        to, and any other job all of it.

        Raises CappyError if the folder holds something else or another run, if the pipeline fails, or if too many rows
        are rejected; UsageError for options that exclude each other and for files that the runner cannot reach;
        HandedOver if the job is left to others to run.
        """
        config.check()
        placement = placement_of(options)
        check_shared(config.output, placement)
        return self.run_plan(self.plan(config, placement), options)

    def run_plan(self, plan: P, options: PipelineOptions, *, held: bool = False, stage: bool = False) -> dict[str, Any]:
        """Run the job as `run` does, by a plan for the placement of `options`.

        `held`: the caller holds the output folder. `stage`: this is a part of another run.
        """
        if is_dataflow(options):
            check_visible(plan)
        config, hashed, output = plan.config, self.hashed(plan), plan.output
        storage, run = config.storage, describe_run(hashed, config, grows=self.grows)
        standing, lost = _standing_and_lost(plan, run)
        if lost:
            _LOG.warning("%s: was finished, but %s; they are rebuilt", output.url, describe_lost(lost))
        if standing.kept and standing.added:
            _LOG.info("%s: %s", output.url, standing.in_words())
        if lost or not standing.done:
            for warning in self.check(plan):
                _LOG.warning("%s", warning)
            with nullcontext() if held else hold(output.url, storage):
                if lost:
                    discard_lost(output.url, lost, storage, keep=self.grows)
                leftovers = open_run(output.url, run, overwrite=config.overwrite, storage=storage, reading=plan.urls)
                self._execute(plan, hashed, options)
                close_run(output.url, load_manifest(output.url, storage), leftovers, storage)
        manifest = load_manifest(output.url, storage)
        page = render_report(manifest).encode()  # names what a damaged manifest lacks
        for warning in manifest.get("warnings", ()):
            _LOG.warning("%s: %s", output.url, warning)
        if standing.done and not lost:
            remedy = "" if stage else "; --overwrite runs it again"
            _LOG.info("%s: already finished at %s%s", output.url, manifest["finished"], remedy)
        if read_bytes(join(output.url, REPORT), storage) != page:
            output.write(REPORT, page)
        return manifest

    def hashed(self, plan: P) -> dict[str, Any]:
        """Return all fingerprint inputs of a plan: the job's own, and those of every job."""
        version = JOBS[self.name].format_version
        own = self.fingerprint_inputs(plan)
        return {"job": self.name, "format_version": version, **own, **reading_inputs(plan.config)}

    def dry_run(self, config: Any, options: PipelineOptions) -> str:
        """Describe what `run` would do, planned as if it ran on this machine."""
        config.check()
        with counting_start_up():
            plan = self.plan(config, DRY_RUN)
            _standing_and_lost(plan, describe_run(self.hashed(plan), plan.config, grows=self.grows))
            return self.describe_plan(plan, options)

    def describe_plan(self, plan: P, options: PipelineOptions) -> str:
        """Describe what `run_plan` would do, whatever the output folder holds."""
        described, growing = self.describe(plan, options), self._growing(plan)
        return f"{described}\n{growing}" if growing else described

    def summary(self, config: JobConfig, manifest: Mapping[str, Any]) -> str:
        """Summarise a manifest, and name the report."""
        return f"{self.summarise(manifest)}\nreport: {join(absolute(config.output), REPORT)}"

    def _growing(self, plan: P) -> str | None:
        """Say how many files of a dry run were there and are new, if its folder holds a run that would grow."""
        known = known_files(plan.config, self.name) if self.grows else NOTHING_KNOWN
        names = [file.name for file in plan.inputs[0].files]
        before = set(known.names)
        added = [name for name in names if name not in before]
        if not before or not added or len(names) - len(added) < len(known.names):
            return None
        return Standing(kept=len(known.names), added=added).in_words()

    def _execute(self, plan: P, hashed: Mapping[str, Any], options: PipelineOptions) -> None:
        """Run the pipeline. A runner may cut or lose a worker's error; the file that the job wrote has all of it."""
        output, storage = plan.output, plan.config.storage
        growth = earlier_run(output.url, storage)["growth"] if self.grows else None
        manifest = _Manifest(hashed, self.manifest(plan, hashed), growth, datetime.now(UTC))
        finish = FinishRun(output, manifest, self.card, plan.config.max_reject_rate)
        name_job(options, self.name, output.url)
        try:
            execute(
                lambda root: self.build(root, plan, finish),
                options,
                Progress(output.url, self.stages(plan), storage),
                module=f"{package_of(self.name)}.job",
            )
        except PipelineFailed as error:
            reason = reason_of_failure(output.url, storage)
            if reason is None:
                raise
            raise PipelineFailed(reason) from error


def _standing_and_lost(plan: Plan, run: Mapping[str, Any]) -> tuple[Standing, dict[str, str]]:
    """Return how a run stands in its folder, and its lost files. Raises CappyError if it cannot go on there."""
    output, storage = plan.output.url, plan.config.storage
    standing = Standing() if plan.config.overwrite else standing_of(output, run, storage)
    lost = lost_files(output, storage) if standing.finished else {}
    if lost:
        refuse_rebuild(output, describe_lost(lost), standing)
    return standing, lost


@dataclass(frozen=True)
class _Manifest:
    """Makes the manifest of a run that started at `started`."""

    fingerprint_inputs: Mapping[str, Any]
    own_part: ManifestOf
    growth: Sequence[Mapping[str, Any]] | None
    started: datetime

    def __call__(self, stats: Stats) -> dict[str, Any]:
        return {
            **manifest_header(self.fingerprint_inputs, self.started, "apache-beam", "pyarrow"),
            **self.own_part(stats),
            **({"growth": list(self.growth)} if self.growth else {}),
            "files": [entry._asdict() for entry in sorted(stats.files)],
        }


def check_shared(output: str, placement: Placement) -> None:
    """Raise UsageError for an output in the memory of this process, where a job has workers in other processes."""
    if in_memory(output) and not placement.one_process:
        raise UsageError(
            f"{output}: is in the memory of this process, which the job's workers do not share; give a folder that all "
            "of them see, or run the job in one process with --direct_num_workers=1"
        )


def check_visible(plan: Plan) -> None:
    """Raise UsageError for a file on this machine's disks, which no other machine sees."""
    local = next((url for url in (plan.output.url, *plan.urls) if is_local(url)), None)
    if local is not None:
        raise UsageError(f"{local}: is on this machine, where Dataflow's workers are not; give a gs:// URL")
