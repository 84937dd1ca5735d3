"""`python -m beam_pipelines.jobs.demo`."""

from beam_pipelines.program import command

command("demo")
