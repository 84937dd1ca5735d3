"""`python -m beam_pipelines.jobs.score`."""

from beam_pipelines.program import command

command("score")
