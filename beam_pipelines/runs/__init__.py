"""beam_pipelines/runs."""
