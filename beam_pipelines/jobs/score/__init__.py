"""beam_pipelines/jobs/score."""
