"""The estimate of a dry run: it grows with the corpus, and leaves out what renders nothing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.jobs.build_corpus.estimate import Source, corpus_work
from beam_pipelines.jobs.build_corpus.job import BuildCorpusConfig, dry_run, plan
from beam_pipelines.runners.forecast import Work
from beam_pipelines.runners.options import beam_options
from tests.conftest import edit_mixture


def test_time_is_measured_and_scaled_to_all_instructions(corpus: Path, tmp_path: Path) -> None:
    planned = plan(BuildCorpusConfig(mixture=str(corpus), output=str(tmp_path / "out")))
    found = zip(planned.render_plans, planned.inputs, planned.wanted, strict=True)
    sources = [Source(render, source.files[0], wanted, 10**6) for render, source, wanted in found]
    for source in sources:
        whole = corpus_work([source], planned.mixture.file, pairs=True)
        assert whole.seconds > 1  # a million instructions take a core more than a second
        assert corpus_work([source], planned.mixture.file, pairs=False).bytes < whole.bytes
        assert corpus_work([source._replace(instructions=0)], planned.mixture.file, pairs=True) == Work()


def test_a_first_file_without_rows_is_not_what_is_timed(corpus: Path, tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "data" / "things.parquet")
    pq.write_table(pa.concat_tables([table] * 200), tmp_path / "data" / "things.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "data" / "an_empty.parquet")
    edit_mixture(corpus, lambda mixture: mixture["datasets"][0].update(paths="data/*.parquet"))
    edit_mixture(corpus, lambda mixture: mixture.update(datasets=mixture["datasets"][:1]))
    options = beam_options([], local_mode="multi_processing")
    said = dry_run(BuildCorpusConfig(mixture=str(corpus), output=str(tmp_path / "out")), options)
    assert "72,000 instructions" in said
    assert "about 0.0 s" not in said
