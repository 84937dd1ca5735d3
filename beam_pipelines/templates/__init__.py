"""beam_pipelines/templates."""
