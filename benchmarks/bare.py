"""build-corpus and score without Beam: parallel processes that call the jobs' own functions in a loop.

    python -m benchmarks.bare build-corpus --mixture FILE.yaml --output DIR --workers 2
    python -m benchmarks.bare score --input PATTERN --model DIR --device cpu ... --output DIR --workers 2

The baseline for every runner: the same data files, byte for byte. A free process takes the next read and, when all
reads are done, the next shard; slices of shards wait in one file per shard and process. There is no manifest and no
report, and nothing is checked, resumed or retried.
"""

import argparse
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from os import getpid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.units import Read, list_reads, read_units
from beam_pipelines.jobs.build_corpus import job as build_corpus
from beam_pipelines.jobs.build_corpus.candidates import PLACED_CANDIDATE
from beam_pipelines.jobs.build_corpus.labelling import finish_shard
from beam_pipelines.jobs.build_corpus.negatives import LABELLED_INSTRUCTION, reduce_instructions
from beam_pipelines.jobs.build_corpus.render import UnitRenderer
from beam_pipelines.jobs.score import plan as score
from beam_pipelines.jobs.score.scoring import load_scorer, score_unit
from beam_pipelines.runners.options import Placement
from beam_pipelines.runs.data import table_folder
from beam_pipelines.runs.flags import add_flags, config_from
from beam_pipelines.runs.job import load_config
from beam_pipelines.transforms.results import write_result, write_unit
from beam_pipelines.transforms.shuffle import shard_result, slice_chunk
from benchmarks.machine import make_parser
from cappy_model.metrics.rouge import RougeL
from schemas.stats import Stats

_ELSEWHERE = Placement(local=False, one_process=False)


class CorpusWorker:
    """A process of build-corpus; `spill` is the folder of slices that wait for their shard."""

    def __init__(self, plan: build_corpus.CorpusPlan, spill: Path) -> None:
        rouge = RougeL(plan.mixture.rouge)
        self._plan, self._spill, self._finish = plan, spill, partial(finish_shard, rouge=rouge)
        self._renderers = [UnitRenderer(dataset.render) for dataset in plan.datasets]
        negatives, seed = plan.mixture.negatives, plan.config.seed
        self._reduce = partial(reduce_instructions, rouge=rouge, negatives=negatives, seed=seed)

    def do_read(self, read: Read) -> Stats:
        """Render a read, write its instructions, and slice them with their wrong responses."""
        plan, group, stats = self._plan, read.file.group, Stats()
        for unit in read_units(read, plan.datasets[group].read):
            rendered = self._renderers[group].render(unit)
            stats.add(write_result(rendered, plan.output, "instructions"))
            for chunk in self._reduce(rendered).rows:
                for shard, data in slice_chunk(chunk, "instruction", plan.shards):
                    with (self._spill / f"{shard}-{getpid()}").open("ab") as file:
                        pickle.dump(data, file)
        return stats

    def do_shard(self, shard: int) -> Stats:
        """Write the pairs of a shard."""
        slices = (data for path in self._spill.glob(f"{shard}-*") for data in _unpickle(path))
        schemas = (LABELLED_INSTRUCTION, PLACED_CANDIDATE)
        result = shard_result((shard, slices), self._finish, schemas, self._plan.shards)
        return write_result(result, self._plan.output, "pairs")


def _unpickle(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)


class ScoreWorker:
    """A process of score."""

    def __init__(self, plan: score.ScorePlan) -> None:
        self._plan, self._scorer = plan, load_scorer(plan.scorer)

    def do_read(self, read: Read) -> Stats:
        """Score a read and write its units."""
        plan, stats = self._plan, Stats()
        for unit in read_units(read, plan.spec):
            stats.add(write_unit(score_unit(unit, self._scorer, plan.columns), plan.output, table_folder("score")))
        return stats


_worker: Any = None  # of this process


def _start(make: Callable[..., object], *arguments: object) -> None:
    global _worker
    _worker = make(*arguments)


def _do(step: str, element: object) -> Stats:
    stats: Stats = getattr(_worker, step)(element)
    return stats


def _reads(plan: Any, specs: Sequence[ReadSpec]) -> list[Read]:
    """Return all reads of a plan; `specs` say how each dataset is read."""
    return [
        read
        for source, spec in zip(plan.inputs, specs, strict=True)
        for f in source.files
        for read in list_reads(f, spec)
    ]


def _run(workers: int, make: Callable[..., object], arguments: Sequence[object], **steps: Sequence[object]) -> Stats:
    """Run steps one after another, each over its elements, in new processes that hold a worker each."""
    stats = Stats()
    context = multiprocessing.get_context("spawn")  # Arrow's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make, *arguments)) as pool:
        for step, elements in steps.items():
            for result in pool.map(_do, repeat(step), elements):
                stats.add(result)
    return stats


def main(argv: Sequence[str] | None = None) -> None:
    """Run a job."""
    parser = make_parser(__doc__)
    jobs = parser.add_subparsers(dest="job", required=True)
    for name in ("build-corpus", "score"):
        job = jobs.add_parser(name)
        add_flags(job, load_config(name))
        job.add_argument("--workers", type=int, required=True)
    arguments: argparse.Namespace = parser.parse_args(argv)
    config = config_from(load_config(arguments.job), arguments)
    if arguments.job == "build-corpus":
        corpus = build_corpus.plan(config, _ELSEWHERE)
        reads = _reads(corpus, [dataset.read for dataset in corpus.datasets])
        with TemporaryDirectory(prefix="spill-") as spill:
            steps = {"do_read": reads, "do_shard": range(corpus.shards)}
            stats = _run(arguments.workers, CorpusWorker, (corpus, Path(spill)), **steps)
    else:
        scoring = score.plan(config, _ELSEWHERE)
        stats = _run(arguments.workers, ScoreWorker, (scoring,), do_read=_reads(scoring, [scoring.spec]))
    print(f"{len(stats.files):,} files, {sum(file.rows for file in stats.files):,} rows")


if __name__ == "__main__":
    # Imported by its own name, so that the processes can import what they unpickle.
    from benchmarks.bare import main as run

    run()
