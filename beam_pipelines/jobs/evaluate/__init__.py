"""beam_pipelines/jobs/evaluate."""
