"""beam_pipelines/models."""
