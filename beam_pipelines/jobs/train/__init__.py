"""beam_pipelines/jobs/train."""
