"""`python -m beam_pipelines.jobs.generate`."""

from beam_pipelines.program import command

command("generate")
