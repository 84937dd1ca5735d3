"""beam_pipelines/jobs/build_corpus."""
