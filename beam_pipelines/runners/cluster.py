"""Clusters: checking that one answers, running a job on it, and explaining its errors."""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from urllib.parse import urlsplit

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.portable_runner import TERMINAL_STATES
from apache_beam.runners.runner import PipelineResult

from beam_pipelines.runners.flink import NoAnswer, jobs_on_flink
from schemas.errors import CappyError
from schemas.ids import digest

_LOG = logging.getLogger("cappy")
_CONNECT_SECONDS = 10
_PACKAGES = "docs/flink.md says how workers get their packages"
_REMEDIES = (
    (
        r"No module named '((?:schemas|cappy_model|beam_pipelines)[\w.]*)'",
        "the workers lack this project, or this version of it (no module {}): install it where they run, or give "
        "--setup_file; " + _PACKAGES,
    ),
    (r"No module named '([\w.]+)'", "the workers lack the module {}: install it where they run; " + _PACKAGES),
    (
        r"Can't get attribute '(\w+)' on <module '(?:schemas|cappy_model|beam_pipelines)",
        "the workers run another version of this project ({} is not in it): install this one; " + _PACKAGES,
    ),
    (
        r"TimeoutException: (Waited \d+ minutes)",
        "a worker did not start ({}), perhaps because a package or a model is missing: see the log of its pool; "
        + _PACKAGES,
    ),
    (
        r"(InvalidClassException: [\w.$]+)",
        "the job server was built for another version of Flink than the cluster's ({}): use one for that version",
    ),
    (
        r"(NoResourceAvailableException)",
        "the cluster has fewer free slots than the job requests: lower --parallelism, or add TaskManagers",
    ),
)


def check_reachable(options: PipelineOptions) -> None:
    """Raise CappyError, naming the flag, if nothing listens at the address of a job server or a Flink cluster."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint and endpoint != "embed":
        _connect(f"//{endpoint}", f"--job_endpoint {endpoint}", "a job server: start it, or fix the address")
    jobs = jobs_on_flink(options)
    if jobs is not None:
        flag = f"--flink_master {options.view_as(FlinkRunnerOptions).flink_master}"
        _connect(jobs.url, flag, "the REST port of a Flink JobManager: start the cluster, or fix the address")


def name_job(options: PipelineOptions, job: str, folder: str) -> None:
    """Name a job after its output folder, unless a flag names it, so that one that is still running is recognised."""
    cloud = options.view_as(GoogleCloudOptions)
    cloud.job_name = cloud.job_name or f"{job}-{digest(folder)[:12]}"


def check_idle(options: PipelineOptions) -> None:
    """Raise CappyError if a job of the same name is running, left behind by a killed command.

    Asks both the job server and Flink: a restarted job server has forgotten earlier jobs, and Flink may not be named.
    """
    name, flink = options.view_as(GoogleCloudOptions).job_name, jobs_on_flink(options)
    if _running_on_job_server(options, name) or (flink is not None and flink.running(name)):
        raise CappyError(
            f"{name}: a job that was submitted before is still running in this folder. Wait for its end, or cancel it "
            "on the cluster, and run the same command again."
        )


def _running_on_job_server(options: PipelineOptions, name: str) -> bool:
    portable = options.view_as(PortableOptions)
    endpoint = portable.job_endpoint
    if not endpoint or endpoint == "embed":
        return False
    with grpc.insecure_channel(endpoint) as channel:
        try:
            request = beam_job_api_pb2.GetJobsRequest()
            stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
            jobs = stub.GetJobs(request, timeout=portable.job_server_timeout).job_info
        except grpc.RpcError as error:
            raise CappyError(
                f"--job_endpoint {endpoint}: is no job server of Beam ({error.code().name}); start one, or fix "
                "the address"
            ) from error
    return any(job.job_name == name and job.state not in TERMINAL_STATES for job in jobs)


def _connect(url: str, flag: str, expected: str) -> None:
    address = urlsplit(url)
    try:
        endpoint = (address.hostname or "", address.port or {"https": 443}.get(address.scheme, 80))
        socket.create_connection(endpoint, _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise CappyError(f"{flag}: no answer ({error}); it must be {expected}") from error


def import_on_workers(root: beam.Pipeline, module: str) -> None:
    """Add a step that imports `module` on a worker, whose error names the module that it lacks.

    A worker that cannot unpickle a step keeps Flink waiting for three minutes, and the reason is lost. This step needs
    only Beam and the standard library to be unpickled.
    """
    root | "Module" >> beam.Create([module]) | "Import" >> beam.Filter(import_module)


def run_remotely(pipeline: beam.Pipeline) -> str | None:
    """Run a pipeline on a cluster to its end; return its final state. See `await_end`."""
    with _explaining_job_server():
        return await_end(pipeline.run(), pipeline.options)


def await_end(result: PipelineResult, options: PipelineOptions, seconds: int | None = None) -> str | None:
    """Wait at most `seconds` for a job on a cluster to end; return its state.

    Cancels the job if this process is interrupted.
    """
    try:
        with _without_beam_errors():
            state: str | None = result.wait_until_finish(seconds and 1000 * seconds)
    except (KeyboardInterrupt, SystemExit):
        cancel(result, options)
        raise
    except RuntimeError as error:
        raise RuntimeError(f"{_failures_on_flink(options)}\n{error}") from error
    return state


def cancel(result: PipelineResult, options: PipelineOptions) -> None:
    """Cancel a job on a cluster."""
    result.cancel()
    _cancel_on_flink(options)


def _cancel_on_flink(options: PipelineOptions) -> None:
    """Cancel the job over Flink's REST: Beam's job server only forgets it, and Flink goes on."""
    if options.view_as(PortableOptions).job_endpoint == "embed":
        return
    name, jobs = options.view_as(GoogleCloudOptions).job_name, jobs_on_flink(options)
    if jobs is None:
        _LOG.warning("the cluster may go on with %s: cancel it there; with --flink_master this command does", name)
        return
    try:
        jobs.cancel(name)
    except NoAnswer as error:
        _LOG.warning("%s cannot be cancelled on the cluster: %s", name, error)


def _failures_on_flink(options: PipelineOptions) -> str:
    """Return the failures that Flink recorded: the last one, which is all that Beam reports, may follow from another.

    Empty if Flink is not named or does not answer.
    """
    jobs = jobs_on_flink(options)
    if jobs is None:
        return ""
    try:
        return "\n".join(jobs.failures(options.view_as(GoogleCloudOptions).job_name))
    except NoAnswer:
        return ""


@contextmanager
def _explaining_job_server() -> Iterator[None]:
    """Raise CappyError if a job server refuses a request, or ends."""
    try:
        yield
    except grpc.RpcError as error:
        raise CappyError(
            f"the job server answers {error.code().name} ({error.details()}): it has ended, or its version of Beam is "
            f"not compatible with {beam.__version__}. See its log; start one that is, and run the command again."
        ) from error


@contextmanager
def _without_beam_errors() -> Iterator[None]:
    """Drop Beam's log records of errors that it also raises, unless debugging."""
    debugging, root = logging.getLogger("cappy").isEnabledFor(logging.DEBUG), logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return debugging or record.module != "portable_runner"

    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def remedy(text: str, options: PipelineOptions) -> str | None:
    """Return the remedy for an error of a job with these options, by its text; None if it is unknown."""
    for pattern, message in _REMEDIES:
        found = re.search(pattern, text, re.S)
        if found:
            return message.format(found.group(1))
    if "Connection refused" in text:
        return _refused(re.findall(r"Connection refused: (\S+:\d+)", text), options)
    return None


def _refused(addresses: list[str], options: PipelineOptions) -> str:
    """Return the remedy for refused connections to `addresses`, in Java's notation: `name/IP:port`, either optional.

    Beam passes on the root cause of an error, which has no address; Flink's record of it has one.
    """
    pool = options.view_as(PortableOptions).environment_config or ""
    host, _, port = pool.rpartition(":")
    pattern = re.compile(rf"(\S*/)?{re.escape(host)}(/\S+)?:{port}")
    fix = f"start it, or fix --environment_config {pool}, its address as the TaskManagers see it"
    if any(pattern.fullmatch(address) for address in addresses):
        return f"the cluster reaches no worker pool (Connection refused): {fix}"
    if addresses:
        return (
            f"nothing listens at {addresses[-1]} (Connection refused), and it is not the worker pool's address: a part "
            "of the cluster has ended, or its address is wrong. Start or fix it, and run the same command again"
        )
    return (
        "a connection on the cluster was refused, and the error has no address; --flink_master would show it. If it "
        f"is the worker pool: {fix}. If it is a part of Flink: start it"
    )
