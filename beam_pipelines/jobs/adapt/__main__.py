"""`python -m beam_pipelines.jobs.adapt`."""

from beam_pipelines.program import command

command("adapt")
