"""beam_pipelines/jobs/rerank."""
