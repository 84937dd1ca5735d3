"""build-corpus and score without Beam: processes side by side that call the jobs' own functions in a loop.

    python -m benchmarks.bare build-corpus --mixture FILE.yaml --output DIR --workers 2
    python -m benchmarks.bare score --input PATTERN --model DIR --output DIR --workers 2

The floor under every runner: the same data files, byte for byte. A process that is free takes the next read, and when
all are done the next shard; what a shard is made of waits in one file for each process. There is no manifest and no
report, and nothing is checked, resumed or tried again.
"""

import argparse
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from os import getpid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from beam_pipelines.jobs import build_corpus, score
from beam_pipelines.reads import Read, list_reads, read_units
from beam_pipelines.transforms.labelling import finish_shard
from beam_pipelines.transforms.negatives import add_wrong_responses
from beam_pipelines.transforms.render import UnitRenderer, write_instructions
from beam_pipelines.transforms.scoring import load_scorer, score_unit
from beam_pipelines.transforms.sharding import slice_chunk
from beam_pipelines.transforms.units import write_output
from cappy_model.rouge import RougeL
from schemas.tally import Tally


class CorpusWorker:
    """A process of build-corpus; `spill` is a folder for what waits for its shard."""

    def __init__(self, plan: build_corpus.CorpusPlan, spill: Path) -> None:
        self._plan, self._spill = plan, spill
        self._rouge = RougeL(plan.mixture.file.rouge)
        self._renderers = [UnitRenderer(each) for each in plan.render_plans]

    def do_read(self, read: Read) -> Tally:
        """Renders a read, writes its instructions, and slices them with their wrong responses."""
        plan, tally = self._plan, Tally()
        for unit in read_units(read, plan.wanted[read.file.group]):
            rendered = self._renderers[read.file.group].render(unit)
            tally.add(write_instructions(rendered, plan.folder))
            for chunk in rendered.chunks:
                negatives, seed = plan.mixture.file.negatives, plan.config.seed
                labelled = add_wrong_responses(chunk, self._rouge, negatives, seed, tally)
                for shard, data in slice_chunk(labelled, "instruction", plan.shards):
                    with (self._spill / f"{shard}-{getpid()}").open("ab") as file:
                        pickle.dump(data, file)
        return tally

    def do_shard(self, shard: int) -> Tally:
        """Writes the pairs of a shard."""
        slices = (data for path in self._spill.glob(f"{shard}-*") for data in _pickled(path))
        return finish_shard(shard, slices, folder=self._plan.folder, shards=self._plan.shards, rouge=self._rouge)


def _pickled(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)


class ScoreWorker:
    """A process of score."""

    def __init__(self, plan: score.ScorePlan) -> None:
        self._plan, self._scorer = plan, load_scorer(plan.spec)

    def do_read(self, read: Read) -> Tally:
        """Scores a read and writes its units."""
        plan, tally = self._plan, Tally()
        for unit in read_units(read, plan.wanted):
            tally.add(write_output(score_unit(unit, self._scorer, plan.columns), plan.folder))
        return tally


_here: dict[str, Any] = {}  # of each process: its worker


def _start(make: Callable[..., object], *arguments: object) -> None:
    _here["worker"] = make(*arguments)


def _do(step: str, element: object) -> Tally:
    tally: Tally = getattr(_here["worker"], step)(element)
    return tally


def build(config: build_corpus.BuildCorpusConfig, workers: int) -> Tally:
    """build-corpus without Beam."""
    plan, tally = build_corpus.plan(config), Tally()
    reads = [
        read
        for source, wanted in zip(plan.inputs, plan.wanted, strict=True)
        for file in source.files
        for read in list_reads(file, wanted.unit_rows)
    ]
    with TemporaryDirectory(prefix="spill-") as spill, _processes(workers, CorpusWorker, plan, Path(spill)) as pool:
        for step, elements in (("do_read", reads), ("do_shard", range(plan.shards))):
            for found in pool.map(_do, repeat(step), elements):
                tally.add(found)
    return tally


def score_all(config: score.ScoreConfig, workers: int) -> Tally:
    """score without Beam."""
    plan, tally = score.plan(config, local=False), Tally()
    reads = [read for file in plan.input.files for read in list_reads(file, plan.wanted.unit_rows)]
    with _processes(workers, ScoreWorker, plan) as pool:
        for found in pool.map(_do, repeat("do_read"), reads):
            tally.add(found)
    return tally


def _processes(workers: int, make: Callable[..., object], *arguments: object) -> ProcessPoolExecutor:
    # Spawned, since Arrow's threads do not outlive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make, *arguments))


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    corpus, scoring = (jobs.add_parser(job.name) for job in (build_corpus.BUILD_CORPUS, score.SCORE))
    corpus.add_argument("--mixture", required=True)
    scoring.add_argument("--input", required=True)
    scoring.add_argument("--model", required=True)
    scoring.add_argument("--device", required=True)
    scoring.add_argument("--dtype", required=True)
    scoring.add_argument("--tokens-per-batch", type=int, required=True)
    for job in (corpus, scoring):
        job.add_argument("--output", required=True)
        job.add_argument("--workers", type=int, required=True)
    told = vars(parser.parse_args(argv))
    job, workers = told.pop("job"), told.pop("workers")
    if job == build_corpus.JOB:
        tally = build(build_corpus.BuildCorpusConfig(**told), workers)
    else:
        tally = score_all(score.ScoreConfig(**told), workers)
    print(f"{len(tally.files):,} files, {sum(file.rows for file in tally.files):,} rows")


if __name__ == "__main__":
    # By the module's own name, so that the processes can import what they unpickle.
    from benchmarks.bare import main as run

    run()
