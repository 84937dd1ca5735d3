"""`python -m beam_pipelines.jobs.build_corpus`."""

from beam_pipelines.program import command

command("build-corpus")
