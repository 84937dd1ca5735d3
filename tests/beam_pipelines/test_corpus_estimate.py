"""The estimate of a dry run: it grows with the corpus, and leaves out what renders nothing."""

from pathlib import Path

from beam_pipelines.jobs.build_corpus import BuildCorpusConfig, plan
from beam_pipelines.jobs.corpus_estimate import Source, core_seconds


def test_time_is_measured_and_scaled_to_all_instructions(corpus: Path, tmp_path: Path) -> None:
    planned = plan(BuildCorpusConfig(mixture=str(corpus), output=str(tmp_path / "out")))
    found = zip(planned.render_plans, planned.inputs, planned.wanted, strict=True)
    sources = [Source(render, source.files[0], wanted, 10**6) for render, source, wanted in found]
    for source in sources:
        assert core_seconds([source], planned.mixture.file) > 1  # a million instructions take a core more than a second
        assert core_seconds([source._replace(instructions=0)], planned.mixture.file) == 0
