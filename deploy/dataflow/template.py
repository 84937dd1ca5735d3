"""Entry point of the launcher of a flex template: the template's parameters become the flags of `cappy JOB`.

The image names the job (CAPPY_JOB) and the image of its workers (CAPPY_IMAGE). Parameters are the job's flags with
underscores; a flag without a value is `true` or `false`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields

from submit import faults, worker_flags

from beam_pipelines.jobs.score.config import ScorerConfig
from beam_pipelines.program import main as cappy
from beam_pipelines.runs.config import JobConfig
from beam_pipelines.runs.flags import add_flags
from beam_pipelines.runs.job import JOBS, load_config
from schemas.errors import UsageError

_NO_PARAMETERS = {"dry_run", "show", "scorers"}  # a template is one pipeline, and several scorers are several
# A template is one pipeline, and rerank with a model is two: score's template comes first.
_OPTIONS_OF_MODELS = {"model"} | {field.name for field in fields(ScorerConfig)} - {f.name for f in fields(JobConfig)}


def parameters(job: str) -> dict[str, argparse.Action]:
    """Return the parameters of a job's template by name: the job's own flags."""
    parser = argparse.ArgumentParser(add_help=False)
    add_flags(parser, load_config(job))
    left_out = _NO_PARAMETERS | (_OPTIONS_OF_MODELS if JOBS[job].workers == "cpu" else set())
    return {_name(action): action for action in parser._actions if action.dest not in left_out}


def _name(action: argparse.Action) -> str:
    return action.option_strings[0].lstrip("-").replace("-", "_")


def arguments(job: str, given: Sequence[str]) -> list[str]:
    """Return the flags of `cappy` for the parameters `given`, each as `--name=value`. Raises UsageError."""
    known = parameters(job)
    flags = []
    for text in given:
        name, _, value = text.removeprefix("--").partition("=")
        action = known.get(name)
        if action is None:
            flags.append(text)  # a flag of Beam
        elif action.nargs != 0:
            flags.append(f"{action.option_strings[0]}={value}")
        elif value not in ("true", "false"):
            raise UsageError(f"{name}={value}: must be true or false")
        elif value == "true":
            flags.append(action.option_strings[0])
    return flags


def main(given: Sequence[str]) -> int:
    """Run the job with the parameters `given`; return the exit status."""
    job = os.environ["CAPPY_JOB"]
    flags = arguments(job, given)
    for fault in faults(job, flags):
        raise SystemExit(f"cappy {job}: {fault}")
    return cappy([job, *worker_flags(job, flags, image=os.environ["CAPPY_IMAGE"]), *flags])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
