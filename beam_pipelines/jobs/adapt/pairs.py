"""The first stage of adapt: the adaptation set of the training candidates, a run of its own in `pairs/`."""

import time
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from beam_pipelines.io.inputs import Input
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.jobs.adapt.adaptation import adaptation_instructions, adaptation_pairs, usable_candidates
from beam_pipelines.jobs.adapt.config import AdaptConfig
from beam_pipelines.jobs.build_corpus.candidates import TEXTS_OF_CANDIDATES, candidate_columns
from beam_pipelines.report.text import plural
from beam_pipelines.runs.folder import describe_run, hold, is_finished, load_manifest, open_run
from beam_pipelines.runs.inputs import open_inputs, reading_inputs
from beam_pipelines.runs.release import versions
from beam_pipelines.transforms.results import Result, write_rejects
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import CHUNK_ROWS
from schemas.errors import CappyError
from schemas.manifest import FORMAT_VERSION, MANIFEST, fingerprint, to_json
from schemas.records import LABEL_SOURCES, LABELLED_PAIR, is_text
from schemas.stats import Stats


def make_pairs(config: AdaptConfig, folder: str) -> dict[str, Any]:
    """Write the adaptation set to `folder`, unless it is there; return its manifest. Raises CappyError."""
    source = open_candidates(config, config.train)
    columns = columns_to_read(source.schema)
    hashed = {
        "job": "adapt pairs",
        "format_version": FORMAT_VERSION,
        "settings": {"seed": config.seed},
        "files": [file.fingerprint_inputs() for file in source.files],
        **reading_inputs(config),
    }
    output, storage = OutputDir(folder, config.storage), config.storage
    run = describe_run(hashed, config)
    if config.overwrite or not is_finished(folder, run, storage):
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
    return load_manifest(folder, storage)


def open_candidates(config: AdaptConfig, pattern: str) -> Input:
    """Open files of candidates with references. Raises CappyError as `open_inputs` does."""
    return open_inputs(config, pattern, text=TEXTS_OF_CANDIDATES)


def columns_to_read(schema: pa.Schema) -> pa.Schema:
    """Return the columns of training candidates to read. Raises CappyError for one that is missing or not text."""
    columns = list(candidate_columns(schema, "--train"))
    kind = schema.field("references").type if "references" in schema.names else None
    if kind is None or not (pa.types.is_list(kind) and is_text(kind.value_type)):
        raise CappyError(
            f"--train: has no column 'references' (lists of text){f', it is {kind}' if kind else ''}; candidates are "
            f"labelled by their similarity to references. There are {', '.join(schema.names)}"
        )
    columns.append(schema.field("references"))
    if "dataset" in schema.names and is_text(schema.field("dataset").type):
        columns.append(schema.field("dataset"))
    return pa.schema(columns)


def _write_pairs(source: Input, columns: pa.Schema, output: OutputDir, config: AdaptConfig) -> dict[str, Any]:
    """Write the pairs and the rejects; return the manifest's part about them."""
    rouge, stats = RougeL(), Stats()
    rows, chunks, rejects = [], [], []
    for file in source.files:
        for read in list_reads(file, CHUNK_ROWS):
            for unit in read_units(read, source.read_spec(columns, CHUNK_ROWS)):
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
    return {
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
        reason = f"{rejects[0]['reason']}: {rejects[0]['detail']}"
        raise CappyError(
            f"--train: {len(rejects):,} of {plural(source.rows, 'candidate')} cannot be used, and "
            f"--max-reject-rate is {config.max_reject_rate:.2%}. The first one: {reason}"
        )
