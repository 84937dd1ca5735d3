"""The first stage of adapt: the adaptation set of the training candidates, a run of its own in `pairs/`."""

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from beam_pipelines.io.inputs import Input
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.jobs.adapt.adaptation import adaptation_instructions, adaptation_pairs, usable_candidates
from beam_pipelines.jobs.adapt.config import AdaptConfig
from beam_pipelines.jobs.build_corpus.candidates import TEXTS_OF_CANDIDATES, candidate_columns
from beam_pipelines.jobs.evaluate.config import UNICODE, rouge_settings
from beam_pipelines.report.text import plural
from beam_pipelines.runs.files import describe_lost, lost_files
from beam_pipelines.runs.folder import describe_run, is_finished, load_manifest, open_run
from beam_pipelines.runs.inputs import open_inputs, reading_inputs
from beam_pipelines.runs.job import JOBS
from beam_pipelines.runs.lock import hold
from beam_pipelines.runs.release import versions
from beam_pipelines.transforms.candidates import is_group
from beam_pipelines.transforms.results import Result, place_of_reject, write_rejects
from beam_pipelines.transforms.wordless import WORDLESS, wordless_warnings
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError
from schemas.manifest import MANIFEST, fingerprint, to_json
from schemas.records import LABEL_SOURCES, LABELLED_PAIR, is_text
from schemas.stats import Stats

_LOG = logging.getLogger("cappy")


def make_pairs(config: AdaptConfig, folder: str) -> dict[str, Any]:
    """Write the adaptation set to `folder`, unless it is there; return its manifest. Raises CappyError."""
    source = open_candidates(config, config.train)
    columns = columns_to_read(source.schema)
    hashed = {
        "job": "adapt pairs",
        "format_version": JOBS["adapt"].format_version,
        "settings": {"seed": config.seed, **rouge_settings(config.rouge)},
        "files": [file.fingerprint_inputs() for file in source.files],
        **reading_inputs(config),
    }
    output, storage = OutputDir(folder, config.storage), config.storage
    run = describe_run(hashed, config)
    finished = not config.overwrite and is_finished(folder, run, storage)
    lost = lost_files(folder, storage) if finished else {}
    if lost:
        _LOG.warning("%s: was finished, but %s; the pairs are rebuilt", folder, describe_lost(lost))
    if lost or not finished:
        with hold(folder, storage):
            open_run(folder, run, overwrite=config.overwrite, storage=storage)
            started = time.monotonic()
            manifest = {
                "job": hashed["job"],
                "fingerprint": fingerprint(hashed),
                "inputs": hashed["files"],
                "versions": versions("pyarrow"),
                **_write_pairs(source, columns, output, config),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 1),
            }
            output.write(MANIFEST, to_json(manifest))
    manifest = load_manifest(folder, storage)
    for warning in manifest.get("warnings", ()):
        _LOG.warning("%s: %s", folder, warning)
    return manifest


def open_candidates(config: AdaptConfig, pattern: str) -> Input:
    """Open files of candidates with references. Raises CappyError as `open_inputs` does."""
    own = replace(config, text_columns=text_columns_in(config, pattern))
    return open_inputs(own, pattern, text=TEXTS_OF_CANDIDATES)


def text_columns_in(config: AdaptConfig, pattern: str) -> tuple[str, ...]:
    """Return those of `--text-columns` that files have: the two inputs need not have the same columns."""
    if not config.text_columns:
        return ()
    found = open_inputs(replace(config, text_columns=()), pattern)
    return tuple(name for name in config.text_columns if name in (*found.schema.names, *found.unusable))


def columns_to_read(schema: pa.Schema) -> pa.Schema:
    """Return the columns of training candidates to read. Raises CappyError for one that is missing or not text."""
    columns = list(candidate_columns(schema, "--train"))
    kind = schema.field("references").type if "references" in schema.names else None
    if kind is None or not is_text(kind.value_type if pa.types.is_list(kind) else kind):
        raise CappyError(
            f"--train: has no column 'references' (text, or lists of it){f', it is {kind}' if kind else ''}; "
            f"candidates are labelled by their similarity to references. There are {', '.join(schema.names)}"
        )
    columns.append(schema.field("references"))
    if "dataset" in schema.names and is_group(schema.field("dataset").type):
        columns.append(schema.field("dataset"))
    return pa.schema(columns)


def _write_pairs(source: Input, columns: pa.Schema, output: OutputDir, config: AdaptConfig) -> dict[str, Any]:
    """Write the pairs and the rejects; return the manifest's part about them."""
    rouge, stats = RougeL(config.rouge), Stats()
    rows, chunks, rejects = [], [], []
    spec = source.read_spec(columns, CHUNK_ROWS)
    for file in source.files:
        for read in list_reads(file, spec):
            for unit in read_units(read, spec):
                usable = usable_candidates(unit)
                rows += usable.rows
                chunks.append(usable.placed)
                rejects += usable.rejects
    instructions = adaptation_instructions(rows, rouge, seed=config.seed, stats=stats)
    pairs, unknown = adaptation_pairs(instructions, chunks, rouge, stats)
    rejects += unknown
    _check_enough(config, source, rejects, pairs=pairs.num_rows)
    stats = write_rejects(Result("part-00000-00000-00000", [pairs], LABELLED_PAIR, rejects, stats), output)
    stats.files.add(output.write_parquet("shard-00000-of-00001.parquet", [pairs], LABELLED_PAIR))
    labelled = source.rows - len(rejects)
    return {
        "warnings": wordless_warnings(
            stats.under(WORDLESS), labelled, remedy=f"--rouge {UNICODE}", worth="get the label 0"
        ),
        "totals": {"candidates": source.rows, "instructions": instructions.num_rows, "pairs": pairs.num_rows},
        "pairs": {name: stats.under("pairs", name) for name in LABEL_SOURCES if stats.under("pairs", name)},
        "rejects": {"rows": len(rejects)},
        "notes": stats.under("notes"),
        "files": [entry._asdict() for entry in sorted(stats.files)],
    }


def _check_enough(config: AdaptConfig, source: Input, rejects: list[dict[str, Any]], *, pairs: int) -> None:
    """Raise CappyError without candidates or pairs, or if too many candidates are rejected."""
    if not source.rows:
        raise CappyError(f"--train {config.train}: holds no candidate; give files of candidates with references")
    if len(rejects) > config.max_reject_rate * source.rows or not pairs:
        first = min(rejects, key=place_of_reject, default=None)
        reason = "none has a reference" if first is None else "{source}{position}: {reason}: {detail}".format(**first)
        raise CappyError(
            f"--train: {len(rejects):,} of {plural(source.rows, 'candidate')} cannot be used, and "
            f"--max-reject-rate is {config.max_reject_rate:.2%}. The first one: {reason}"
        )
