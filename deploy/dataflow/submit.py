"""Submits a job to Dataflow: `cappy JOB` with the flags that it needs there.

    python deploy/dataflow/submit.py JOB --project P --region R --bucket gs://B --image I --max-workers N [flags ...]

What follows goes to `cappy JOB`: flags of the job, and of Beam, which have the last word where one is given here too.
train and adapt are no Beam pipelines: they run on one machine (docs/runners.md).
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from hashlib import blake2b

from beam_pipelines.program import main as cappy

JOBS = ("build-corpus", "generate", "score", "rerank", "evaluate")
# Workers stage and shuffle through the service: their disks hold the image, and a model.
_DISK_GB = {"corpus": 50, "model": 100}


def worker_flags(job: str, given: Sequence[str], *, image: str) -> list[str]:
    """Beam's flags for the workers of a job; `given` are its own flags.

    Corpus jobs get a process on each vCPU, as is usual. A model is held once by one process on each machine, whose
    threads feed it. GPUs are asked for by the pipeline's own hints (`--accelerator`), never by the service option
    `worker_accelerator`, which goes with no hint.
    """
    kind = "model" if computes(job, given) else "corpus"
    flags = [
        f"--sdk_container_image={image}",
        "--sdk_location=container",
        "--machine_type=n2-standard-4",
        f"--disk_size_gb={_DISK_GB[kind]}",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
    ]
    if kind == "model":
        flags += ["--experiments=no_use_multiple_sdk_containers", "--number_of_worker_harness_threads=4"]
    return flags


def computes(job: str, given: Sequence[str]) -> bool:
    """Whether a job has a model of its own: rerank where one is named, generate where no server has it."""
    if job == "rerank":
        return _value(given, "--model") is not None
    return job == "score" or (job == "generate" and _value(given, "--engine") != "openai")


def faults(job: str, given: Sequence[str]) -> list[str]:
    """What is wrong with a job's flags that would only show when machines run and cost."""
    found = []
    on_gpu = (_value(given, "--device") or "").startswith("cuda")
    if computes(job, given) and on_gpu and _value(given, "--accelerator") is None:
        found.append("--device cuda needs --accelerator: a worker has no GPU that nobody asked for")
    if _value(given, "--output") is None:
        found.append("--output is missing")
    return found


def job_name(job: str, output: str) -> str:
    """A name for the job, the same one for the same output: Dataflow runs no two jobs of one name at a time."""
    return f"cappy-{job}-{blake2b(output.encode(), digest_size=4).hexdigest()}"


def _value(given: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, given as `--flag value` or `--flag=value`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value")
    return parser.parse_known_args(list(given))[0].value


def command(arguments: Sequence[str]) -> list[str]:
    """The arguments of `cappy`. Exits with status 2 for what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--project", required=True)
    parser.add_argument("--region", required=True, help="of workers, and best of bucket and image too")
    parser.add_argument("--bucket", required=True, metavar="gs://B", help="staging/ and temp/ are below it")
    parser.add_argument("--image", required=True, help="of the workers, see build.sh")
    parser.add_argument("--max-workers", required=True, type=int, metavar="N", help="what autoscaling may reach")
    told, given = parser.parse_known_args(arguments)
    if not told.bucket.startswith("gs://"):
        parser.error(f"--bucket {told.bucket}: must start with gs://")
    for fault in faults(told.job, given):
        parser.error(fault)
    bucket = told.bucket.rstrip("/")
    return [
        told.job,
        "--runner=DataflowRunner",
        f"--project={told.project}",
        f"--region={told.region}",
        f"--staging_location={bucket}/staging",
        f"--temp_location={bucket}/temp",
        f"--job_name={job_name(told.job, _value(given, '--output') or '')}",
        f"--max_num_workers={told.max_workers}",
        *worker_flags(told.job, given, image=told.image),
        *given,
    ]


if __name__ == "__main__":
    arguments = command(sys.argv[1:])
    print(shlex.join(["cappy", *arguments]), file=sys.stderr)
    sys.exit(cappy(arguments))
