"""Running a pipeline: Beam's options, the local runner, clusters, `PipelineJob` and forecasts."""
