"""Submit a job to Dataflow: run `cappy JOB` with the flags that Dataflow requires.

    python deploy/dataflow/submit.py JOB --project P --region R --bucket gs://B --image I --max-workers N [flags ...]

All other flags go to `cappy JOB`, those of the job and those of Beam; they override the flags that are added here.
train, adapt and demo are no Beam pipelines: they run on one machine (docs/runners.md).
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from hashlib import blake2b

from beam_pipelines.program import main as cappy
from beam_pipelines.runs.job import JOBS

PIPELINES = tuple(name for name, entry in JOBS.items() if entry.workers)
"""The jobs that are Beam pipelines."""

# Workers stage and shuffle through the service: their disks hold the image, and a model.
_DISK_GB, _DISK_GB_WITH_MODEL = 50, 100


def worker_flags(job: str, given: Sequence[str], *, image: str) -> list[str]:
    """Return Beam's flags for the workers of a job whose own flags are `given`.

    Workers without a model run one process per vCPU, as is usual. A model is held by one process per machine, whose
    threads share it. GPUs are requested by resource hints in the pipeline (`--accelerator`), never by the service
    option `worker_accelerator`, which excludes hints.
    """
    model = has_model(job, given)
    flags = [
        f"--sdk_container_image={image}",
        "--sdk_location=container",
        "--machine_type=n2-standard-4",
        f"--disk_size_gb={_DISK_GB_WITH_MODEL if model else _DISK_GB}",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
    ]
    if model:
        flags += ["--experiments=no_use_multiple_sdk_containers", "--number_of_worker_harness_threads=4"]
    return flags


def has_model(job: str, given: Sequence[str]) -> bool:
    """Return whether workers of a job hold a model: rerank's only with --model, generate's not with an API."""
    if JOBS[job].workers == "gpu":
        return _value(given, "--engine") != "openai"
    return _value(given, "--model") is not None


def faults(job: str, given: Sequence[str]) -> list[str]:
    """Return errors in a job's flags that would otherwise show only on machines that cost money."""
    found = []
    on_gpu = (_value(given, "--device") or "").startswith("cuda")
    if has_model(job, given) and on_gpu and _value(given, "--accelerator") is None:
        found.append("--device cuda needs --accelerator: workers have a GPU only if it is requested")
    if _value(given, "--output") is None:
        found.append("--output is missing")
    return found


def job_name(job: str, output: str) -> str:
    """Return the name of the Dataflow job: the same for the same output, so that Dataflow refuses a second one."""
    return f"cappy-{job}-{blake2b(output.encode(), digest_size=4).hexdigest()}"


def _value(given: Sequence[str], flag: str) -> str | None:
    """Return the last value of a flag, given as `--flag value` or `--flag=value`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value")
    return parser.parse_known_args(list(given))[0].value


def command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `cappy`. Exits with status 2 for invalid flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=PIPELINES)
    parser.add_argument("--project", required=True)
    parser.add_argument("--region", required=True, help="region of the workers, best also of the bucket and the image")
    parser.add_argument("--bucket", required=True, metavar="gs://B", help="bucket for staging/ and temp/")
    parser.add_argument("--image", required=True, help="container image of the workers, see build.sh")
    parser.add_argument("--max-workers", required=True, type=int, metavar="N", help="upper limit of autoscaling")
    own, given = parser.parse_known_args(arguments)
    if not own.bucket.startswith("gs://"):
        parser.error(f"--bucket {own.bucket}: must start with gs://")
    for fault in faults(own.job, given):
        parser.error(fault)
    bucket = own.bucket.rstrip("/")
    return [
        own.job,
        "--runner=DataflowRunner",
        f"--project={own.project}",
        f"--region={own.region}",
        f"--staging_location={bucket}/staging",
        f"--temp_location={bucket}/temp",
        f"--job_name={job_name(own.job, _value(given, '--output') or '')}",
        f"--max_num_workers={own.max_workers}",
        *worker_flags(own.job, given, image=own.image),
        *given,
    ]


if __name__ == "__main__":
    arguments = command(sys.argv[1:])
    print(shlex.join(["cappy", *arguments]), file=sys.stderr)
    sys.exit(cappy(arguments))
