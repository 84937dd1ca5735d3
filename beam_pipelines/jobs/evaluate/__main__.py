"""`python -m beam_pipelines.jobs.evaluate`."""

from beam_pipelines.program import command

command("evaluate")
