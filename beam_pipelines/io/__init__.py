"""beam_pipelines/io."""
