"""The table of several scorers: each unit of the input with the scores that stand in the scorers' own folders."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.columns import layouts_in
from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.storage import join, read_bytes
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.score.by_position import ScoredColumn
from beam_pipelines.jobs.score.config import ScoreConfig
from beam_pipelines.jobs.score.manifest import COUNTED, joint_manifest
from beam_pipelines.jobs.score.plan import ScorePlan, open_pairs, settle_plan
from beam_pipelines.jobs.score.reuse import check_matched, scored_folders
from beam_pipelines.jobs.score.scorers import naming, read_scorers
from beam_pipelines.jobs.score.scoring import SAMPLE_CHARACTERS, ScoreColumns
from beam_pipelines.runners.options import Placement
from beam_pipelines.runners.pipeline_job import Plan
from beam_pipelines.runs.data import table_folder
from beam_pipelines.runs.finish import FinishRun
from beam_pipelines.runs.folder import load_manifest
from beam_pipelines.runs.inputs import known_files
from beam_pipelines.runs.progress import Stage
from beam_pipelines.transforms.map_units import MapUnits
from beam_pipelines.transforms.results import Result, unreadable_rows
from schemas.chunks import CHUNK_ROWS
from schemas.ids import digest_of, seed_for
from schemas.manifest import MANIFEST
from schemas.stats import SAMPLES_PER_KEY, Stats


@dataclass(frozen=True)
class JoinPlan(Plan):
    """A configuration with the plans of all scorers, in the order of their file; none has loaded its weights."""

    config: ScoreConfig
    scorers: tuple[ScorePlan, ...]

    @property
    def spec(self) -> ReadSpec:
        """All columns; a unit is a chunk."""
        return self.inputs[0].read_spec(self.inputs[0].schema, CHUNK_ROWS, exact=True)

    @property
    def columns(self) -> list[str]:
        """The columns of the scores, one for each scorer."""
        return [scorer.columns.score for scorer in self.scorers]


def plan_join(config: ScoreConfig, placement: Placement) -> JoinPlan:
    """Inspect the input, the file of scorers, and their models without the weights.

    Raises CappyError or UsageError, naming the scorer, for anything that is wrong before a row is read.
    """
    runs = read_scorers(config)
    folders = scored_folders(config.reuse, output=config.output, storage=config.storage)
    own = known_files(config, "score")
    inputs = {own: open_pairs(config, own)}
    scorers = []
    for run in runs:
        # A folder that wildcards must not match is the whole output, so each run's input is opened for all of it.
        known = known_files(run, "score")
        if known not in inputs:
            inputs[known] = open_pairs(config, known)
        with naming(config, run.score_column):
            scorers.append(settle_plan(run, placement, inputs[known], positions=True, folders=folders))
    check_matched(folders, [scorer.described_model for scorer in scorers])
    for scorer in scorers:
        with naming(config, scorer.columns.score):
            scorer.columns.output(inputs[own].schema)
    return JoinPlan(config, (inputs[own],), tuple(scorers))


def fingerprint_inputs(plan: JoinPlan) -> dict[str, Any]:
    """Return everything that shapes the bytes of the table."""
    config, source = plan.config, plan.inputs[0]
    layouts = layouts_in(source.schema)
    return {
        "settings": {
            "instruction_column": config.instruction_column,
            "response_column": config.response_column,
            "scorers": plan.columns,
            "limit": config.limit,
        },
        "scorers": [{"name": scorer.columns.score, "model": dict(scorer.model)} for scorer in plan.scorers],
        "files": [file.fingerprint_inputs() for file in source.files],
        **({"layouts": layouts} if layouts else {}),
    }


def build(root: beam.Pipeline, plan: JoinPlan, finish: FinishRun) -> None:
    """Read files in units, write those without an output file with their scores, and count all of them."""
    compute = beam.Map(partial(join_unit, scored=[_scored(scorer) for scorer in plan.scorers]))
    units = MapUnits(plan.spec, plan.output, table_folder("score"), compute, None)
    root | "Files" >> beam.Create(plan.inputs[0].files) | "JoinUnits" >> units | "FinishRun" >> finish


def _scored(scorer: ScorePlan) -> ScoredColumn:
    """Return the finished run of a scorer."""
    url, storage = scorer.output.url, scorer.config.storage
    manifest = read_bytes(join(url, MANIFEST), storage) or b""
    return ScoredColumn(url, scorer.columns, digest_of(manifest), json.dumps(storage, sort_keys=True))


def stages(plan: JoinPlan) -> list[Stage]:
    """Return the one folder that fills up."""
    source = plan.inputs[0]
    return [Stage(table_folder("score"), source.rows, source.units(plan.spec), resumes=True)]


def join_unit(unit: Unit, scored: Sequence[ScoredColumn]) -> Result:
    """Return the rows of a unit with the scores of all scorers. Raises CappyError as `ScoredColumn.scores_of` does."""
    columns, fields, stats = list(unit.rows.columns), list(unit.rows.schema), Stats()
    for scorer in scored:
        new = scorer.scores_of(unit)
        lists = scorer.columns.lists(unit.rows.schema)
        columns += new
        fields += scorer.columns.new_fields(lists=lists)
        _count(scorer.columns, new, stats, lists=lists)
    rows = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    rejects = unreadable_rows(unit)
    stats.counts["rows", "read"] += rows.num_rows + len(rejects)
    stats.counts["rows", "rejected"] += len(rejects)
    _sample(rows, [scorer.columns for scorer in scored], unit, stats)
    return Result(f"part-{unit.name}", [rows], rows.schema, rejects, stats)


def _count(columns: ScoreColumns, new: Sequence[pa.Array], stats: Stats, *, lists: bool) -> None:
    """Count the pairs with and without a score."""
    scores, errors = (pc.list_flatten(values) if lists else values for values in new[:2])
    stats.counts["pairs", columns.score, "scored"] += len(scores) - scores.null_count
    stats.counts["pairs", columns.score, "unscored"] += len(errors) - errors.null_count


def _sample(rows: pa.RecordBatch, scored: Sequence[ScoreColumns], unit: Unit, stats: Stats) -> None:
    """Sample any rows for the report, with all their scores. Rows with lists are left out."""
    columns = scored[0]
    if columns.lists(unit.rows.schema):
        return
    hashes = np.array([seed_for(0, unit.file.name, str(place)) for place in unit.positions.tolist()], np.uint64)
    for row in np.argsort(hashes, kind="stable")[:SAMPLES_PER_KEY].tolist():
        texts = {"instruction": columns.instruction, "response": columns.response}
        sample: dict[str, Any] = {name: rows[column][row].as_py() for name, column in texts.items()}
        sample = {name: text and text[:SAMPLE_CHARACTERS] for name, text in sample.items()}
        sample["position"] = f"{unit.file.name}{unit.position(row)}"
        sample["scores"] = {
            each.score: {"score": rows[each.score][row].as_py(), "error": rows[each.error][row].as_py()}
            for each in scored
        }
        stats.sample("any", int(hashes[row]), sample)


def manifest_of(plan: JoinPlan, hashed: Mapping[str, Any]) -> partial[dict[str, Any]]:
    """Return the function that makes the manifest, with the manifests of the scorers' finished runs."""
    runs = {}
    for scorer in plan.scorers:
        manifest = load_manifest(scorer.output.url, scorer.config.storage)
        runs[scorer.columns.score] = {name: manifest[name] for name in COUNTED}
    return partial(joint_manifest, hashed=hashed, runs=runs)
