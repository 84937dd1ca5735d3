"""`python -m beam_pipelines.jobs.rerank`."""

from beam_pipelines.program import command

command("rerank")
