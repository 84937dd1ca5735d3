"""The estimate of a dry run: it grows with the corpus, and is nothing for a dataset without instructions."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus.datasets import DatasetPlan
from beam_pipelines.jobs.build_corpus.estimate import corpus_cost
from beam_pipelines.jobs.build_corpus.job import JOB, plan
from beam_pipelines.runners.forecast import Cost
from beam_pipelines.runners.options import DRY_RUN, beam_options
from tests.conftest import edit_mixture


def with_instructions(planned: DatasetPlan, count: int) -> DatasetPlan:
    every = planned.input.rows * len(planned.dataset.templates)
    return replace(planned, render=replace(planned.render, keep=2**64 * count // every))


def test_time_is_measured_and_scaled_to_all_instructions(corpus: Path, tmp_path: Path) -> None:
    planned = plan(BuildCorpusConfig(mixture=str(corpus), output=str(tmp_path / "out")), DRY_RUN)
    for dataset in planned.datasets:
        million = with_instructions(dataset, 10**6)
        whole = corpus_cost([million], planned.mixture, pairs=True)
        assert whole.seconds > 1  # a million instructions take a core more than a second
        assert corpus_cost([million], planned.mixture, pairs=False).bytes < whole.bytes
        assert corpus_cost([with_instructions(dataset, 0)], planned.mixture, pairs=True) == Cost()


def test_a_first_file_without_rows_is_not_timed(corpus: Path, tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "data" / "things.parquet")
    pq.write_table(pa.concat_tables([table] * 200), tmp_path / "data" / "things.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "data" / "an_empty.parquet")
    edit_mixture(corpus, lambda mixture: mixture["datasets"][0].update(paths="data/*.parquet"))
    edit_mixture(corpus, lambda mixture: mixture.update(datasets=mixture["datasets"][:1]))
    options = beam_options([], local_mode="multi_processing")
    description = JOB.dry_run(BuildCorpusConfig(mixture=str(corpus), output=str(tmp_path / "out")), options)
    assert "72,000 instructions" in description
    assert "about 0.0 s" not in description
