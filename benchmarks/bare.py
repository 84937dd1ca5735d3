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

from beam_pipelines.io.units import Read, list_reads, read_units
from beam_pipelines.jobs.build_corpus.job import job as build_corpus
from beam_pipelines.jobs.build_corpus.labelling import finish_shard
from beam_pipelines.jobs.build_corpus.negatives import add_wrong_responses
from beam_pipelines.jobs.build_corpus.render import UnitRenderer, write_instructions
from beam_pipelines.jobs.score.job import job as score
from beam_pipelines.jobs.score.scoring import load_scorer, score_unit
from beam_pipelines.transforms.map_units import write_output
from beam_pipelines.transforms.shuffle import slice_chunk
from cappy_model.metrics.rouge import RougeL
from schemas.stats import Stats


class CorpusWorker:
    """A process of build-corpus; `spill` is a folder for what waits for its shard."""

    def __init__(self, plan: build_corpus.CorpusPlan, spill: Path) -> None:
        self._plan, self._spill = plan, spill
        self._rouge = RougeL(plan.mixture.file.rouge)
        self._renderers = [UnitRenderer(each) for each in plan.render_plans]

    def do_read(self, read: Read) -> Stats:
        """Renders a read, writes its instructions, and slices them with their wrong responses."""
        plan, stats = self._plan, Stats()
        for unit in read_units(read, plan.wanted[read.file.group]):
            rendered = self._renderers[read.file.group].render(unit)
            stats.add(write_instructions(rendered, plan.folder))
            for chunk in rendered.chunks:
                negatives, seed = plan.mixture.file.negatives, plan.config.seed
                labelled = add_wrong_responses(chunk, self._rouge, negatives, seed, stats)
                for shard, data in slice_chunk(labelled, "instruction", plan.shards):
                    with (self._spill / f"{shard}-{getpid()}").open("ab") as file:
                        pickle.dump(data, file)
        return stats

    def do_shard(self, shard: int) -> Stats:
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

    def do_read(self, read: Read) -> Stats:
        """Scores a read and writes its units."""
        plan, stats = self._plan, Stats()
        for unit in read_units(read, plan.wanted):
            stats.add(write_output(score_unit(unit, self._scorer, plan.columns), plan.folder))
        return stats


_here: dict[str, Any] = {}  # of each process: its worker


def _start(make: Callable[..., object], *arguments: object) -> None:
    _here["worker"] = make(*arguments)


def _do(step: str, element: object) -> Stats:
    stats: Stats = getattr(_here["worker"], step)(element)
    return stats


def build(config: build_corpus.BuildCorpusConfig, workers: int) -> Stats:
    """build-corpus without Beam."""
    plan, stats = build_corpus.plan(config), Stats()
    reads = [
        read
        for source, wanted in zip(plan.inputs, plan.wanted, strict=True)
        for file in source.files
        for read in list_reads(file, wanted.unit_rows)
    ]
    with TemporaryDirectory(prefix="spill-") as spill, _processes(workers, CorpusWorker, plan, Path(spill)) as pool:
        for step, elements in (("do_read", reads), ("do_shard", range(plan.shards))):
            for found in pool.map(_do, repeat(step), elements):
                stats.add(found)
    return stats


def score_all(config: score.ScoreConfig, workers: int) -> Stats:
    """score without Beam."""
    plan, stats = score.plan(config, local=False), Stats()
    reads = [read for file in plan.input.files for read in list_reads(file, plan.wanted.unit_rows)]
    with _processes(workers, ScoreWorker, plan) as pool:
        for found in pool.map(_do, repeat("do_read"), reads):
            stats.add(found)
    return stats


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
        stats = build(build_corpus.BuildCorpusConfig(**told), workers)
    else:
        stats = score_all(score.ScoreConfig(**told), workers)
    print(f"{len(stats.files):,} files, {sum(file.rows for file in stats.files):,} rows")


if __name__ == "__main__":
    # By the module's own name, so that the processes can import what they unpickle.
    from benchmarks.bare import main as run

    run()
