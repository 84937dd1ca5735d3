"""`python -m beam_pipelines.jobs.train`."""

from beam_pipelines.program import command

command("train")
