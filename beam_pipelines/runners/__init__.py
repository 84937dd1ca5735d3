"""beam_pipelines/runners."""
