"""beam_pipelines/jobs/adapt."""
