"""beam_pipelines/jobs/generate."""
