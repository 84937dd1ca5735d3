"""Estimate the cost of a corpus: render and label some rows of each dataset, and time it."""

import time
from collections.abc import Iterable
from dataclasses import replace

from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.jobs.build_corpus.candidates import PLACED_CANDIDATE
from beam_pipelines.jobs.build_corpus.datasets import DatasetPlan
from beam_pipelines.jobs.build_corpus.labelling import finish_shard
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION, reduce_instructions
from beam_pipelines.jobs.build_corpus.render import UnitRenderer
from beam_pipelines.runners.forecast import Cost, Timing
from beam_pipelines.runs.start_up import end_start_up
from beam_pipelines.templates.mixture import MixtureFile
from beam_pipelines.transforms.results import Result
from beam_pipelines.transforms.shuffle import gather, slice_chunk
from cappy_model.metrics.rouge import RougeL

SAMPLE_INSTRUCTIONS = 400


def corpus_cost(datasets: Iterable[DatasetPlan], mixture: MixtureFile, *, pairs: bool) -> Cost:
    """Return the cost on one core of all instructions of all datasets and, with `pairs`, their pairs.

    Measured on this machine: about 400 instructions of each dataset take every step that a worker takes. Candidates are
    not counted. The bytes are rough: the instructions of one example are adjacent here and compress better than in a
    corpus.
    """
    rouge = RougeL(mixture.rouge) if pairs else None
    return sum((_cost_of(dataset, mixture, rouge) for dataset in datasets), Cost())


def _cost_of(dataset: DatasetPlan, mixture: MixtureFile, rouge: RougeL | None) -> Cost:
    rows = max(1, SAMPLE_INSTRUCTIONS // len(dataset.dataset.templates))
    first = dataset.input.first_with_rows
    file, spec = replace(first, rows=min(rows, first.rows), limit=rows), dataset.read._replace(unit_rows=rows)
    units = [unit for read in list_reads(file, spec) for unit in read_units(read, spec)]
    renderer = UnitRenderer(replace(dataset.render, keep=2**64))
    end_start_up()
    started, instructions, written = time.perf_counter(), 0, 0
    for unit in units:
        rendered = renderer.render(unit)
        instructions += sum(chunk.num_rows for chunk in rendered.rows)
        written += _bytes_of(rendered)
        if rouge is not None:
            written += _bytes_of(_label(rendered, mixture, rouge, dataset.render.seed))
    if not instructions:
        return Cost()
    measured = Timing(instructions, Cost(time.perf_counter() - started, written))
    return measured.scaled_to(dataset.instructions)


def _label(rendered: Result, mixture: MixtureFile, rouge: RougeL, seed: int) -> Result:
    """Return the pairs of a unit, as if it were a shard."""
    reduced = reduce_instructions(rendered, rouge=rouge, negatives=mixture.negatives, seed=seed)
    slices = [data for chunk in reduced.rows for _, data in slice_chunk(chunk, "instruction", 1)]
    return finish_shard(rendered.name, *gather(slices, LABELLED_INSTRUCTION, PLACED_CANDIDATE), rouge=rouge)


def _bytes_of(result: Result) -> int:
    return len(parquet_bytes(result.rows, result.schema))
