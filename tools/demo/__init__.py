"""Generator of the demo's data files and recorded candidates, which are committed in `beam_pipelines/jobs/demo/`."""
