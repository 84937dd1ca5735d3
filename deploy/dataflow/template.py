"""What the launcher of a flex template runs: the template's parameters become the flags of `cappy JOB`.

The image says which job (CAPPY_JOB) and in which image its workers run (CAPPY_IMAGE). Parameters are the flags with
underscores, `true` standing for a flag without a value.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from submit import faults, worker_flags

from beam_pipelines.cli import JOBS
from beam_pipelines.jobs.score.job import add_scorer_flags
from beam_pipelines.program import main as cappy
from beam_pipelines.runners.options import add_job_flags
from beam_pipelines.runs.job import Job
from schemas.errors import UsageError

_NEEDS_NO_LAUNCH = ("dry_run", "debug")
# A template is one pipeline, and rerank with a model is two: score's template comes first.
_TWO_PIPELINES = "rerank"


def parameters(job: Job) -> dict[str, argparse.Action]:
    """The parameters of a job's template by name: the job's own flags."""
    parser = argparse.ArgumentParser(add_help=False)
    job.add_flags(parser)
    add_job_flags(parser)
    left_out = {*_NEEDS_NO_LAUNCH}
    if job.name == _TWO_PIPELINES:
        scorer = argparse.ArgumentParser(add_help=False)
        add_scorer_flags(scorer)
        left_out |= {"model", *(_name(action) for action in scorer._actions)}
    return {_name(action): action for action in parser._actions if _name(action) not in left_out}


def _name(action: argparse.Action) -> str:
    return action.option_strings[0].lstrip("-").replace("-", "_")


def job_named(name: str) -> Job:
    """The job of a name."""
    return next(job for job in JOBS if job.name == name)


def arguments(job: Job, given: Sequence[str]) -> list[str]:
    """The flags of `cappy` for what the launcher gives, each as `--name=value`. Raises UsageError."""
    known = parameters(job)
    found = []
    for text in given:
        name, _, value = text.removeprefix("--").partition("=")
        action = known.get(name)
        if action is None:
            found.append(text)  # of Beam's
        elif action.nargs != 0:
            found.append(f"{action.option_strings[0]}={value}")
        elif value not in ("true", "false"):
            raise UsageError(f"{name}={value}: must be true or false")
        elif value == "true":
            found.append(action.option_strings[0])
    return found


def main(given: Sequence[str]) -> int:
    """Writes the job where the launcher wants it; the exit status."""
    name = os.environ["CAPPY_JOB"]
    flags = arguments(job_named(name), given)
    for fault in faults(name, flags):
        raise SystemExit(f"cappy {name}: {fault}")
    return cappy([name, *worker_flags(name, flags, image=os.environ["CAPPY_IMAGE"]), *flags])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
