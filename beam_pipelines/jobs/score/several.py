"""Scoring with several scorers: the run of each in turn, resumable by itself, then the table of all of them."""

import json
import logging
import posixpath
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.storage import file_system, join
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.join import JoinPlan, build, fingerprint_inputs, manifest_of, plan_join, stages
from beam_pipelines.jobs.score.plan import ScorePlan, load_locally
from beam_pipelines.jobs.score.reuse import release_scorers
from beam_pipelines.jobs.score.scorers import SCORERS, naming
from beam_pipelines.models.settle import has_ended
from beam_pipelines.report.text import plural
from beam_pipelines.runners.options import DRY_RUN, in_threads, is_dataflow, placement_of
from beam_pipelines.runners.pipeline_job import PipelineJob, Plan, check_shared, check_visible
from beam_pipelines.runs.changes import describe_changes
from beam_pipelines.runs.files import lost_files
from beam_pipelines.runs.folder import (
    delete_files,
    delete_run,
    describe_run,
    earlier_facts,
    earlier_run,
    names_below,
    open_run,
    refuse_foreign,
    standing_of,
    unlisted,
    write_run,
)
from beam_pipelines.runs.lock import hold
from beam_pipelines.runs.start_up import counting_start_up
from schemas.errors import CappyError
from schemas.manifest import CARD, MANIFEST, REPORT, RUN

_LOG = logging.getLogger("cappy")


def score_in_turn(config: ScoreConfig, options: PipelineOptions, score: PipelineJob[ScorePlan]) -> dict[str, Any]:
    """Run the scorers of the file one after the other by the job `score`, then make the table of all their scores.

    A finished scorer is left alone, and the table is rebuilt if the file lists more scorers than it holds. Returns the
    manifest. Raises CappyError as `PipelineJob.run` does, and for a scorer of the folder that the file lacks or
    describes otherwise.
    """
    placement = placement_of(options)
    check_shared(config.output, placement)
    plan = plan_join(config, placement)
    if is_dataflow(options):
        check_visible(plan)
    table, once = _table_job(score), replace(plan, config=replace(config, overwrite=False))
    run = describe_run(table.hashed(plan), config, grows=True)
    if not config.overwrite and _is_finished(plan, run):
        return table.run_plan(once, options)
    if placement.local and not placement.one_process:
        _LOG.info("several scorers run in threads of one process, not in processes: one model at a time is in memory")
    _check_folders(plan, score)
    with hold(plan.output.url, config.storage):
        _claim(plan, run)
        _score_all(plan, options, score)
        _add_scorers(plan, run)
        manifest = table.run_plan(once, in_threads(options), held=True)
        if config.overwrite:
            delete_scorers(plan, [scorer.output.url for scorer in plan.scorers])
    return manifest


def _table_job(score: PipelineJob[ScorePlan]) -> PipelineJob[JoinPlan]:
    """Return the job that makes the table of finished scorers."""
    return PipelineJob(
        name=score.name,
        plan=plan_join,
        fingerprint_inputs=fingerprint_inputs,
        build=build,
        stages=stages,
        manifest=manifest_of,
        card=score.card,
        describe=partial(_describe, score=score),
        summarise=score.summarise,
        page=score.page,
        grows=True,
    )


def _is_finished(plan: JoinPlan, run: Mapping[str, Any]) -> bool:
    """Return whether the output folder holds the whole table of these scorers and files.

    Raises CappyError for another run, naming the scorers that are missing or that differ.
    """
    output, storage = plan.output.url, plan.config.storage
    refuse_foreign(output, storage)
    before = earlier_run(output, storage)
    same = before.get("job") == run["job"] and "scorers" in before["facts"]
    if same and not before["facts"]["scorers"]:
        return False
    if same:
        _refuse_changed(output, str(plan.config.scorers), before, run)
    elif before.get("job") == run["job"]:
        raise CappyError(
            f"{output}: holds the scores of one scorer, given by --model; give another folder, with --reuse {output} "
            "to reuse these scores"
        )
    known = _with_scorers(run, before) if same else run
    standing = standing_of(output, known, storage)
    return known == run and standing.done and not lost_files(output, storage)


def _claim(plan: JoinPlan, run: Mapping[str, Any]) -> None:
    """Write the run.json of a folder without a table, before the first scorer runs: without scorers and files.

    Which files there are, and whether they may change, is for the scorers' own runs to say until all have finished.
    """
    config, output = plan.config, plan.output.url
    if not config.overwrite and earlier_facts(output, config.storage).get("scorers"):
        return
    settings = {**run["facts"]["settings"], "scorers": []}
    facts = {**run["facts"], "settings": settings, "scorers": [], "files": []}
    facts.pop("layouts", None)
    claimed = {"job": run["job"], "configuration": run["configuration"], "facts": facts}
    open_run(output, claimed, overwrite=config.overwrite, storage=config.storage, reading=plan.urls)


def delete_scorers(plan: Plan, kept: Collection[str] = ()) -> None:
    """Delete the runs of scorers below the output folder of a plan, but for the folders that are `kept`."""
    output, storage = plan.output.url, plan.config.storage
    for name in names_below(output, storage):
        folder, file = posixpath.split(name)
        url = join(output, folder)
        if file == RUN and posixpath.dirname(folder) == SCORERS and url not in kept:
            delete_run(url, names_below(url, storage), storage, plan.urls)
            fs, path = file_system(url, storage)
            if not fs.find(path):
                with suppress(FileNotFoundError):  # a store has no empty folders
                    fs.rm(path, recursive=True)


def _with_scorers(run: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run with the scorers of the run `before`."""
    facts, earlier = run["facts"], before["facts"]
    settings = {**facts["settings"], "scorers": earlier["settings"]["scorers"]}
    return {**run, "facts": {**facts, "settings": settings, "scorers": earlier["scorers"]}}


def _refuse_changed(output: str, file: str, before: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Raise CappyError if a scorer of the folder is missing from the file, or is another one there."""
    listed = {entry["name"]: entry for entry in json.loads(json.dumps(run["facts"]["scorers"]))}
    for entry in before["facts"]["scorers"]:
        name = entry["name"]
        if name not in listed:
            raise CappyError(
                f"{output}: holds the scores of {name!r}, which {file} does not list; list it again, or give another "
                f"folder, with --reuse {output} to reuse the scores of the others"
            )
        changes = describe_changes(entry, listed[name])
        if changes:
            raise CappyError(
                f"{output}: holds the scores of another {name!r}: {changes}. Change it back in {file}, list the new "
                "one under another column, or give --overwrite to score all again."
            )


def _check_folders(plan: JoinPlan, score: PipelineJob[ScorePlan]) -> None:
    """Check that the output folder holds a run, and that of each scorer its own, or none. Raises CappyError."""
    refuse_foreign(plan.output.url, plan.config.storage)
    for scorer in plan.scorers:
        with naming(plan.config, scorer.columns.score):
            refuse_foreign(scorer.output.url, scorer.config.storage)
            if not plan.config.overwrite:
                run = describe_run(score.hashed(scorer), scorer.config, grows=True)
                standing_of(scorer.output.url, run, scorer.config.storage)


def _score_all(plan: JoinPlan, options: PipelineOptions, score: PipelineJob[ScorePlan]) -> None:
    """Run the scorers in turn; the weights of one are released before those of the next are loaded."""
    for number, scorer in enumerate(plan.scorers, 1):
        column = scorer.columns.score
        _LOG.info("scorer %d of %d: %r by %s", number, len(plan.scorers), column, scorer.config.model)
        try:
            with naming(plan.config, column):
                load_locally(scorer, placement_of(in_threads(options)))
                score.run_plan(scorer, in_threads(options), stage=True)
        finally:
            release_scorers()


def _add_scorers(plan: JoinPlan, run: Mapping[str, Any]) -> None:
    """Make the run in the output folder one of the scorers of `run`, if it has fewer, and delete its table.

    The manifest goes first, and run.json is written last, so an interruption leaves a run of fewer scorers, begun.
    Files keep their numbers.
    """
    output, storage = plan.output, plan.config.storage
    before = earlier_run(output.url, storage)
    if not before["facts"]["scorers"]:
        write_run(output.url, run, storage)
    elif _with_scorers(run, before) != run:
        table = unlisted(names_below(output.url, storage), ())
        delete_files(output.url, [MANIFEST, CARD, REPORT, *table], storage)
        write_run(output.url, {**_with_scorers(before, run), "configuration": run["configuration"]}, storage)


def _describe(plan: JoinPlan, options: PipelineOptions, *, score: PipelineJob[ScorePlan]) -> str:
    """Describe the input, then each scorer as its own run is described, and release it.

    Raises CappyError if the output folder, or that of a scorer, holds another run.
    """
    if not plan.config.overwrite:
        _is_finished(plan, describe_run(_table_job(score).hashed(plan), plan.config, grows=True))
    _check_folders(plan, score)
    source = plan.inputs[0]
    lines = [
        f"{plural(len(source.files), 'file')}, {plural(source.rows, 'row')}; {plural(len(plan.scorers), 'scorer')} in "
        "turn, then one table of their scores"
    ]
    for scorer in plan.scorers:
        column = scorer.columns.score
        if has_ended(scorer.config, len(source.files)):
            lines.append(f"{column}: {scorer.config.model} has finished")
            continue
        with naming(plan.config, column):
            described = score.describe(scorer, options)
        release_scorers()
        lines += [f"{column}:", *(f"  {line}" for line in described.splitlines())]
    return "\n".join(lines)


def describe_in_turn(config: ScoreConfig, options: PipelineOptions, score: PipelineJob[ScorePlan]) -> str:
    """Describe what `score_in_turn` would do, planned as if it ran on this machine."""
    with counting_start_up():
        return _table_job(score).describe_plan(plan_join(config, DRY_RUN), options)


def summarise_several(manifest: Mapping[str, Any]) -> str:
    """Summarise the manifest of several scorers, a line for each of them."""
    totals = manifest["totals"]
    lines = [
        f"{name}: {plural(run['totals']['scored'], 'pair')} scored, {count_reused(run['totals'])}"
        f"{run['totals']['unscored']:,} without a score, in {run['seconds']} s"
        for name, run in manifest["scorers"].items()
    ]
    return "\n".join(
        [*lines, f"{plural(totals['rows'], 'row')} in one table, {plural(manifest['rejects']['rows'], 'reject')}"]
    )


def count_reused(totals: Mapping[str, int]) -> str:
    """Say how many scores of a run were reused from earlier ones, if any could be."""
    return f"{totals['reused']:,} of them reused, " if "reused" in totals else ""
