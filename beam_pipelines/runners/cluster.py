"""Clusters: whether one is there, a job's life on it, and its errors in words."""

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
_PACKAGES = "docs/flink.md says how workers get what they need"
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
        "a worker did not take up its work ({}), for want of a package or of a model: the log of its pool says which; "
        + _PACKAGES,
    ),
    (
        r"(InvalidClassException: [\w.$]+)",
        "the job server was built for another version of Flink than the cluster's ({}): take one for that version",
    ),
    (
        r"(NoResourceAvailableException)",
        "the cluster has not got as many free slots as the job wants: lower --parallelism, or add TaskManagers",
    ),
)


def check_reachable(options: PipelineOptions) -> None:
    """Raises CappyError, naming the flag, where nothing listens at the address of a job server or a Flink cluster."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint and endpoint != "embed":
        _connect(f"//{endpoint}", f"--job_endpoint {endpoint}", "a job server: start it, or mend the address")
    jobs = jobs_on_flink(options)
    if jobs is not None:
        given = f"--flink_master {options.view_as(FlinkRunnerOptions).flink_master}"
        _connect(jobs.url, given, "the REST port of a Flink JobManager: start the cluster, or mend the address")


def name_job(options: PipelineOptions, job: str, folder: str) -> None:
    """Names a job after the folder it writes, unless a flag names it: so one that is still at work is known again."""
    cloud = options.view_as(GoogleCloudOptions)
    cloud.job_name = cloud.job_name or f"{job}-{digest(folder)[:12]}"


def check_idle(options: PipelineOptions) -> None:
    """Raises CappyError where a job of the same name is at work, which a killed command has left.

    Both are asked, since a job server that was started anew knows of no job before, and only the job server is sure to
    be named.
    """
    name, flink = options.view_as(GoogleCloudOptions).job_name, jobs_on_flink(options)
    if _at_work_on_job_server(options, name) or (flink is not None and flink.at_work(name)):
        raise CappyError(
            f"{name}: a job that was submitted before is still at work in this folder. Wait for its end, or cancel it "
            "on the cluster, and give the same command again."
        )


def _at_work_on_job_server(options: PipelineOptions, name: str) -> bool:
    portable = options.view_as(PortableOptions)
    endpoint = portable.job_endpoint
    if not endpoint or endpoint == "embed":
        return False
    with grpc.insecure_channel(endpoint) as channel:
        try:
            asked = beam_job_api_pb2.GetJobsRequest()
            stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
            jobs = stub.GetJobs(asked, timeout=portable.job_server_timeout).job_info
        except grpc.RpcError as error:
            raise CappyError(
                f"--job_endpoint {endpoint}: is no job server of Beam ({error.code().name}); start one, or mend "
                "the address"
            ) from error
    return any(job.job_name == name and job.state not in TERMINAL_STATES for job in jobs)


def _connect(url: str, given: str, wanted: str) -> None:
    address = urlsplit(url)
    try:
        where = (address.hostname or "", address.port or {"https": 443}.get(address.scheme, 80))
        socket.create_connection(where, _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise CappyError(f"{given}: no answer ({error}); it wants {wanted}") from error


def import_on_workers(root: beam.Pipeline, module: str) -> None:
    """Has a worker import a module of this project, or say which one it lacks.

    A worker that cannot even unpickle a step keeps Flink waiting for three minutes, and the reason is lost. For this
    step it unpickles nothing but Beam and the standard library.
    """
    root | "Module" >> beam.Create([module]) | "Import" >> beam.Filter(import_module)


def run_remotely(pipeline: beam.Pipeline) -> str | None:
    """Runs a pipeline on a cluster to its end; its final state. See `await_end`."""
    with _job_server_in_words():
        return await_end(pipeline.run(), pipeline.options)


def await_end(result: PipelineResult, options: PipelineOptions, seconds: int | None = None) -> str | None:
    """Waits, at most so many `seconds`, for a job on a cluster to end; its state then.

    Ends the job there when this process is told to end.
    """
    try:
        with _told_once():
            state: str | None = result.wait_until_finish(seconds and 1000 * seconds)
    except (KeyboardInterrupt, SystemExit):
        cancel(result, options)
        raise
    except RuntimeError as error:
        raise RuntimeError(f"{_failures_on_flink(options)}\n{error}") from error
    return state


def cancel(result: PipelineResult, options: PipelineOptions) -> None:
    """Ends a job on a cluster."""
    result.cancel()
    _cancel_on_flink(options)


def _cancel_on_flink(options: PipelineOptions) -> None:
    """Cancels the job over Flink's REST: Beam's job server only lets go of it, and Flink goes on."""
    if options.view_as(PortableOptions).job_endpoint == "embed":
        return
    name, jobs = options.view_as(GoogleCloudOptions).job_name, jobs_on_flink(options)
    if jobs is None:
        _LOG.warning("the cluster may go on with %s: cancel it there. With --flink_master this command does.", name)
        return
    try:
        jobs.cancel(name)
    except NoAnswer as error:
        _LOG.warning("%s cannot be cancelled on the cluster: %s", name, error)


def _failures_on_flink(options: PipelineOptions) -> str:
    """What Flink noted of the job's failures: the last one, which is all that Beam tells, may but follow from another.

    Empty where Flink is not named, or does not answer: then there is what Beam tells.
    """
    jobs = jobs_on_flink(options)
    if jobs is None:
        return ""
    try:
        return "\n".join(jobs.failures(options.view_as(GoogleCloudOptions).job_name))
    except NoAnswer:
        return ""


@contextmanager
def _job_server_in_words() -> Iterator[None]:
    """Raises CappyError where a job server refuses what it is asked, or ends."""
    try:
        yield
    except grpc.RpcError as error:
        raise CappyError(
            f"the job server answers {error.code().name} ({error.details()}): it was ended, or its version of Beam "
            f"does not go with {beam.__version__}. Its log says more; start one that does, and give the command again."
        ) from error


@contextmanager
def _told_once() -> Iterator[None]:
    """Beam logs each error of a job, with its traceback, and raises it, too. Unless debugging, raising it is enough."""
    debugging, root = logging.getLogger("cappy").isEnabledFor(logging.DEBUG), logging.getLogger()

    def wanted(record: logging.LogRecord) -> bool:
        return debugging or record.module != "portable_runner"

    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def remedy(text: str, options: PipelineOptions) -> str | None:
    """What to do about an error of a job with these options, by its text; None where that is not known."""
    for pattern, message in _REMEDIES:
        found = re.search(pattern, text, re.S)
        if found:
            return message.format(found.group(1))
    if "Connection refused" in text:
        return _refused(re.findall(r"Connection refused: (\S+:\d+)", text), options)
    return None


def _refused(addresses: list[str], options: PipelineOptions) -> str:
    """What to do where nothing listens at these addresses, written as Java does: `name/IP:port`, either left out.

    Beam passes on the root of an error, which has no address; what Flink has noted has it.
    """
    pool = options.view_as(PortableOptions).environment_config or ""
    host, _, port = pool.rpartition(":")
    written = re.compile(rf"(\S*/)?{re.escape(host)}(/\S+)?:{port}")
    mend = f"start it, or mend --environment_config {pool}, its address as the TaskManagers see it"
    if any(written.fullmatch(address) for address in addresses):
        return f"the cluster reaches no worker pool (Connection refused): {mend}"
    if addresses:
        return (
            f"nothing listens at {addresses[-1]} (Connection refused), and it is not the worker pool's address: a part "
            "of the cluster has ended, or its address is wrong. Start or mend it, and give the same command again"
        )
    return (
        "a connection on the cluster was refused, and the error does not say where; --flink_master would tell. If it "
        f"is the worker pool: {mend}. If it is a part of Flink: start it"
    )
