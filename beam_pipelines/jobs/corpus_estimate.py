"""How long a corpus will take: some rows of each dataset are rendered and labelled, and timed."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from beam_pipelines.formats.base import InputFile
from beam_pipelines.mixture import MixtureFile
from beam_pipelines.reads import Wanted, list_reads, read_units
from beam_pipelines.transforms.labelling import ground_truth_and_wrong, join_pairs, labelled_pairs
from beam_pipelines.transforms.negatives import add_wrong_responses
from beam_pipelines.transforms.render import RenderPlan, UnitRenderer
from beam_pipelines.transforms.sharding import slice_chunk
from cappy_model.rouge import RougeL
from schemas.tally import Tally

SAMPLE_INSTRUCTIONS = 400


class Source(NamedTuple):
    """A dataset to be timed: how it is rendered, its first file, what is read of it, and its instructions in all."""

    plan: RenderPlan
    file: InputFile
    wanted: Wanted
    instructions: int


def core_seconds(sources: Iterable[Source], mixture: MixtureFile) -> float:
    """Seconds of one core for all instructions of all datasets, candidates and the writing of files not counted.

    Measured here and now: about 400 instructions of each dataset go through everything that a worker does with them.
    """
    rouge = RougeL(mixture.rouge)
    return sum(_seconds_of(source, mixture, rouge) for source in sources)


def _seconds_of(source: Source, mixture: MixtureFile, rouge: RougeL) -> float:
    rows = max(1, SAMPLE_INSTRUCTIONS // len(source.plan.dataset.templates))
    file = replace(source.file, rows=min(rows, source.file.rows), limit=rows)
    renderer = UnitRenderer(replace(source.plan, keep=2**64))
    wanted = source.wanted._replace(unit_rows=rows)
    units = [unit for read in list_reads(file, rows) for unit in read_units(read, wanted)]
    started, made = time.perf_counter(), 0
    for chunk in [chunk for unit in units for chunk in renderer.render(unit).chunks]:
        labelled = add_wrong_responses(chunk, rouge, mixture.negatives, source.plan.seed, Tally())
        for _ in slice_chunk(labelled, "instruction", 1):
            pass
        labelled_pairs(labelled, join_pairs(list(ground_truth_and_wrong(labelled))), Tally())
        made += chunk.num_rows
    return (time.perf_counter() - started) * source.instructions / made if made else 0.0
