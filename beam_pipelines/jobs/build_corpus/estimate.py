"""How much work a corpus is: some rows of each dataset are rendered and labelled, and timed."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from beam_pipelines.io.formats.base import InputFile, ReadSpec
from beam_pipelines.io.output import parquet_bytes
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.jobs.build_corpus.labelling import ground_truth_and_wrong, join_pairs, labelled_pairs
from beam_pipelines.jobs.build_corpus.negatives import add_wrong_responses
from beam_pipelines.jobs.build_corpus.render import RenderPlan, UnitRenderer
from beam_pipelines.runners.forecast import Measured, Work
from beam_pipelines.templates.mixture import MixtureFile
from beam_pipelines.transforms.shuffle import gather, slice_chunk
from cappy_model.metrics.rouge import RougeL
from schemas.records import INSTRUCTION, LABELLED_PAIR
from schemas.stats import Stats

SAMPLE_INSTRUCTIONS = 400


class Source(NamedTuple):
    """A dataset to be timed: how it is rendered, its first file, what is read of it, and its instructions in all."""

    plan: RenderPlan
    file: InputFile
    wanted: ReadSpec
    instructions: int


def corpus_work(sources: Iterable[Source], mixture: MixtureFile, *, pairs: bool) -> Work:
    """The work of one core for all instructions of all datasets, and their `pairs`; candidates are not counted.

    Measured here and now: about 400 instructions of each dataset go through everything that a worker does with them.
    The bytes are rough: here an example's templates stand side by side and compress well, in a corpus they are spread.
    """
    rouge = RougeL(mixture.rouge) if pairs else None
    return sum((_work_of(source, mixture, rouge) for source in sources), Work())


def _work_of(source: Source, mixture: MixtureFile, rouge: RougeL | None) -> Work:
    rows = max(1, SAMPLE_INSTRUCTIONS // len(source.plan.dataset.templates))
    file = replace(source.file, rows=min(rows, source.file.rows), limit=rows)
    renderer = UnitRenderer(replace(source.plan, keep=2**64))
    wanted = source.wanted._replace(unit_rows=rows)
    units = [unit for read in list_reads(file, rows) for unit in read_units(read, wanted)]
    started, made, written = time.perf_counter(), 0, 0
    for chunk in [chunk for unit in units for chunk in renderer.render(unit).chunks]:
        made += chunk.num_rows
        written += len(parquet_bytes([chunk], INSTRUCTION))
        if rouge is not None:
            labelled = add_wrong_responses(chunk, rouge, mixture.negatives, source.plan.seed, Stats())
            [instructions] = gather((data for _, data in slice_chunk(labelled, "instruction", 1)), labelled.schema)
            rows = labelled_pairs(instructions, join_pairs(list(ground_truth_and_wrong(instructions))), Stats())
            written += len(parquet_bytes([rows], LABELLED_PAIR))
    measured = Measured(made, Work(time.perf_counter() - started, written))
    return measured.of(source.instructions) if made else Work()
