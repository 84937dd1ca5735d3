"""adapt: candidates with references -> a scorer for their task, and what it chooses of other candidates."""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import Input, open_input
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import absolute, join
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.jobs.adapt.adaptation import adaptation_instructions, adaptation_pairs, usable
from beam_pipelines.jobs.build_corpus.candidates import candidate_columns
from beam_pipelines.jobs.evaluate.job import job as evaluate
from beam_pipelines.jobs.rerank.job import job as rerank
from beam_pipelines.jobs.score.job import job as score
from beam_pipelines.jobs.train.config import TrainConfig, TrainingConfig, add_training_flags
from beam_pipelines.jobs.train.job import job as train
from beam_pipelines.report.text import plural
from beam_pipelines.runners.options import in_threads, share
from beam_pipelines.runs.folder import described, hold, is_finished, load_manifest, open_run, refuse_foreign
from beam_pipelines.runs.job import versions
from beam_pipelines.transforms.rejects import write_rejects
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError, UsageError
from schemas.manifest import FORMAT_VERSION, MANIFEST, fingerprint, to_json
from schemas.records import LABEL_SOURCES, LABELLED_PAIR, is_text
from schemas.stats import Stats

JOB = "adapt"
HELP = "candidates with references -> a scorer for their task, and how well it chooses among other candidates"
PAIRS, SCORER, SCORED, SELECTIONS, EVALUATION = "pairs", "scorer", "scored", "selections", "evaluation"
"""The stages, each a run of its own in a folder of its own."""

ADAPTATION_PAIRS = 102_400
"""Pairs that a scorer is adapted by, some of them several times where there are fewer (the paper's number)."""


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainingConfig):
    """What adapt is told beside what training is: candidates to learn from, and candidates to choose among."""

    train: str
    validation: str
    eval_fraction: float = 0.0
    max_pairs: int | None = ADAPTATION_PAIRS
    max_reject_rate: float = 0.01

    @property
    def folder(self) -> str:
        """Where everything is written."""
        return absolute(self.output)

    def below(self, stage: str) -> str:
        """The folder of a stage."""
        return join(self.folder, stage)


def _training(config: AdaptConfig) -> TrainConfig:
    names = {field.name for field in fields(TrainingConfig)}
    given = {name: getattr(config, name) for name in names}
    steps = max(1, ADAPTATION_PAIRS // (config.batch_size * config.accumulation))
    given |= {"output": config.below(SCORER), "max_steps": config.max_steps or steps}
    given["held_out"] = (*config.held_out, config.validation)
    return TrainConfig(**given, corpus=join(config.below(PAIRS), "shard-*.parquet"))


def _shared(config: AdaptConfig) -> dict[str, Any]:
    """What every stage behind training is told."""
    return {
        "max_reject_rate": config.max_reject_rate,
        "overwrite": config.overwrite,
        "storage": config.storage,
    }


def _scoring(config: AdaptConfig) -> score.ScoreConfig:
    return score.ScoreConfig(
        input=config.validation,
        model=config.below(SCORER),
        output=config.below(SCORED),
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
        **_shared(config),
    )


def _choosing(config: AdaptConfig) -> rerank.RerankConfig:
    return rerank.RerankConfig(
        input=join(config.below(SCORED), "part-*.parquet"),
        output=config.below(SELECTIONS),
        **_shared(config),
    )


def _evaluating(config: AdaptConfig) -> evaluate.EvaluateConfig:
    return evaluate.EvaluateConfig(
        input=join(config.below(SCORED), "part-*.parquet"),
        output=config.below(EVALUATION),
        seed=config.seed,
        **_shared(config),
    )


def run(config: AdaptConfig, options: PipelineOptions) -> dict[str, dict[str, Any]]:
    """Adapts a scorer, scores the validation candidates, chooses and evaluates; the manifests of the stages by name.

    A stage that is finished is recognised and left alone, an interrupted one goes on. Raises CappyError.
    """
    _check(config)
    found = {PAIRS: make_pairs(config), SCORER: train.run(_training(config))}
    found[SCORED] = score.run(_scoring(config), in_threads(options))
    found[SELECTIONS] = rerank.run(_choosing(config), options)
    found[EVALUATION] = evaluate.run(_evaluating(config), options)
    return found


def _check(config: AdaptConfig) -> None:
    """Raises CappyError or UsageError for what a later stage would only find when the ones before it are done."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("adapt runs in one process; give `cappy train` to torchrun, on pairs that adapt has made")
    refuse_foreign(config.folder, config.storage)
    columns = open_input([absolute(config.validation)], config.storage).schema
    scoring, choosing, evaluating = _scoring(config), _choosing(config), _evaluating(config)
    try:
        scored = score.columns_of(scoring).output(columns)
        rerank.columns_of(choosing, scored)
        evaluate.columns_of(evaluating, scored)
    except CappyError as error:
        raise CappyError(
            f"--validation: {error}. In adapt the columns have the names that generate writes, without flags for "
            "others: rename or drop those of the files"
        ) from error


def make_pairs(config: AdaptConfig) -> dict[str, Any]:
    """The first stage: the adaptation set of the training candidates, in `pairs/`; its manifest. Raises CappyError."""
    source = open_input([absolute(config.train)], config.storage)
    columns = _columns(source.schema)
    known = {
        "job": f"{JOB} {PAIRS}",
        "format_version": FORMAT_VERSION,
        "settings": {"seed": config.seed},
        "files": [file.fingerprint_inputs() for file in source.files],
    }
    folder, storage = OutputDir(config.below(PAIRS), config.storage), config.storage
    told = described(known, config)
    if config.overwrite or not is_finished(folder.url, told, storage):
        with hold(folder.url, storage):
            open_run(folder.url, told, overwrite=config.overwrite, storage=storage)
            started = time.monotonic()
            manifest = {"job": known["job"], "fingerprint": fingerprint(known), "inputs": known["files"]}
            manifest |= {"versions": versions("pyarrow"), **_write_pairs(source, columns, folder, config)}
            manifest |= {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
            manifest |= {"seconds": round(time.monotonic() - started, 1)}
            folder.write(MANIFEST, to_json(manifest))
    return load_manifest(folder.url, storage)


def _columns(found: pa.Schema) -> pa.Schema:
    """The columns to read of training candidates. Raises CappyError for those that are missing."""
    needed = list(candidate_columns(found, "--train"))
    kind = found.field("references").type if "references" in found.names else None
    if kind is None or not (pa.types.is_list(kind) and is_text(kind.value_type)):
        raise CappyError(
            f"--train: has no column 'references' (lists of text){f', it is {kind}' if kind else ''}; candidates are "
            f"learned from by their likeness to references. There are {', '.join(found.names)}"
        )
    needed.append(found.field("references"))
    if "dataset" in found.names and is_text(found.field("dataset").type):
        needed.append(found.field("dataset"))
    return pa.schema(needed)


def _write_pairs(source: Input, columns: pa.Schema, folder: OutputDir, config: AdaptConfig) -> dict[str, Any]:
    """Writes the pairs and the rejects; what the manifest says of them."""
    rouge, stats = RougeL(), Stats()
    rows, chunks, rejects = [], [], []
    for file in source.files:
        for read in list_reads(file, CHUNK_ROWS):
            for unit in read_units(read, ReadSpec(columns, CHUNK_ROWS)):
                found, placed, lost = usable(unit)
                rows += found
                chunks.append(placed)
                rejects += lost
    instructions = adaptation_instructions(rows, rouge, seed=config.seed, stats=stats)
    pairs, unknown = adaptation_pairs(instructions, chunks, rouge, stats)
    rejects += unknown
    if not source.rows:
        raise CappyError(f"--train {config.train}: holds no candidate; give files of candidates with references")
    if len(rejects) > config.max_reject_rate * source.rows or not pairs.num_rows:
        reason = f"{rejects[0]['reason']}: {rejects[0]['detail']}"
        raise CappyError(
            f"--train: {len(rejects):,} of {plural(source.rows, 'candidate')} cannot be learned from, and "
            f"--max-reject-rate is {config.max_reject_rate:.2%}. The first one: {reason}"
        )
    stats.add(write_rejects(folder, "part-00000-00000-00000", rejects))
    stats.files.add(folder.write_parquet("shard-00000-of-00001.parquet", [pairs], LABELLED_PAIR))
    return {
        "totals": {"candidates": source.rows, "instructions": instructions.num_rows, "pairs": pairs.num_rows},
        "pairs": {name: stats.under("pairs", name) for name in LABEL_SOURCES if stats.under("pairs", name)},
        "rejects": {"rows": len(rejects)},
        "notes": stats.under("notes"),
        "files": [entry._asdict() for entry in sorted(stats.files)],
    }


def dry_run(config: AdaptConfig) -> str:
    """What would be done: the candidates on both sides, and the training."""
    _check(config)
    both = [open_input([absolute(pattern)], config.storage) for pattern in (config.train, config.validation)]
    _columns(both[0].schema)
    learned, chosen = (plural(found.rows, "candidate") for found in both)
    steps = _training(config).max_steps
    return f"learn from {learned} in {steps} steps, then choose among {chosen}, with {config.model}"


def summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Some lines about what came of the stages."""
    pairs, lacking = found[PAIRS]["totals"], found[PAIRS]["notes"].get("mismatch_skipped", 0)
    told = f"; {plural(lacking, 'wrong response')} could not be drawn: too few references differ" if lacking else ""
    return "\n".join(
        [
            f"{plural(pairs['pairs'], 'pair')} of {plural(pairs['instructions'], 'instruction')}{told}",
            train.summary(found[SCORER]),
            score.SCORE.summary(found[SCORED]),
            rerank.RERANK.summary(found[SELECTIONS]),
            evaluate.EVALUATE.summary(found[EVALUATION]),
        ]
    )


def add_adapt_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `AdaptConfig`."""
    parser.add_argument(
        "--train", required=True, metavar="PATTERN", help="candidates to learn from, as generate writes them"
    )
    parser.add_argument(
        "--validation", required=True, metavar="PATTERN", help="candidates to choose among, with references"
    )
    parser.add_argument(
        "--max-reject-rate", type=share, default=0.01, metavar="R", help="of candidates (default: 0.01)"
    )
    add_training_flags(parser, AdaptConfig(train="", validation="", model="", output=""))


if __name__ == "__main__":
    from beam_pipelines.program import main

    sys.exit(main([JOB, *sys.argv[1:]]))
