import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from unittest.mock import Mock

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from beam_pipelines.runners.cluster import check_idle, check_reachable, import_on_workers, name_job, run_remotely
from beam_pipelines.runners.local import explain
from beam_pipelines.runners.options import beam_options
from schemas.errors import CappyError


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("runner", "flag", "wanted"),
    [
        ("PortableRunner", "--job_endpoint={}", "a job server"),
        ("FlinkRunner", "--job_endpoint={}", "a job server"),
        ("FlinkRunner", "--flink_master={}", "the REST port of a Flink JobManager"),
        ("flinkrunner", "--flink_master=http://{}", "the REST port of a Flink JobManager"),
    ],
)
def test_a_cluster_that_is_not_there_is_named_with_its_flag(runner: str, flag: str, wanted: str) -> None:
    address = flag.format(f"localhost:{closed_port()}")
    options = beam_options([f"--runner={runner}", address], local_mode="multi_processing")
    with pytest.raises(CappyError) as caught:
        check_reachable(options)
    assert str(caught.value).startswith(address.replace("=", " ")) and wanted in str(caught.value)


@pytest.mark.parametrize("runner", ["PortableRunner", "FlinkRunner"])
def test_of_a_job_server_and_its_cluster_both_must_be_there(runner: str) -> None:
    gone = f"localhost:{closed_port()}"
    with socket.create_server(("localhost", 0)) as server:
        there = f"localhost:{server.getsockname()[1]}"
        for (endpoint, master), named in {(there, gone): "--flink_master", (gone, there): "--job_endpoint"}.items():
            flags = [f"--runner={runner}", f"--job_endpoint={endpoint}", f"--flink_master={master}"]
            with pytest.raises(CappyError, match=f"^{named} {gone}: no answer"):
                check_reachable(beam_options(flags, local_mode="multi_processing"))


def test_what_is_there_or_needs_nothing_is_let_through() -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=server.accept, daemon=True).start()
        there = [f"--job_endpoint=localhost:{port}"]
        for flags in (there, ["--job_endpoint=embed"], []):
            check_reachable(beam_options(["--runner=PortableRunner", *flags], local_mode="multi_processing"))
    check_reachable(beam_options(["--runner=FlinkRunner", "--flink_master=[local]"], local_mode="multi_processing"))


class JobsOf(beam_job_api_pb2_grpc.JobServiceServicer):
    """A job server that knows these jobs."""

    def __init__(self, jobs: Sequence[beam_job_api_pb2.JobInfo]) -> None:
        self._jobs = jobs

    def DescribePipelineOptions(
        self, request: object, context: object
    ) -> beam_job_api_pb2.DescribePipelineOptionsResponse:
        return beam_job_api_pb2.DescribePipelineOptionsResponse()

    def Prepare(self, request: object, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown urn beam:new:v9")

    def GetJobs(self, request: beam_job_api_pb2.GetJobsRequest, context: object) -> beam_job_api_pb2.GetJobsResponse:
        return beam_job_api_pb2.GetJobsResponse(job_info=self._jobs)


@contextmanager
def job_server(*services: beam_job_api_pb2_grpc.JobServiceServicer) -> Iterator[str]:
    """Serve on the loopback interface; yield the flag that names the server."""
    server = grpc.server(ThreadPoolExecutor(1))
    for service in services:
        beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"--job_endpoint=localhost:{port}"
    server.stop(None)


def job_options(endpoint: str, *flags: str, folder: str = "/out") -> GoogleCloudOptions:
    options = beam_options(["--runner=FlinkRunner", endpoint, *flags], local_mode="multi_processing")
    name_job(options, "score", folder)
    return options.view_as(GoogleCloudOptions)


def test_a_job_still_at_work_in_the_folder_is_named() -> None:
    name = job_options("--job_endpoint=embed").job_name
    states = beam_job_api_pb2.JobState
    known = [beam_job_api_pb2.JobInfo(job_name=name, state=state) for state in (states.DONE, states.RUNNING)]
    with job_server(JobsOf(known)) as endpoint:
        with pytest.raises(CappyError, match=f"{name}: .* still running in this folder. Wait"):
            check_idle(job_options(endpoint))
        check_idle(job_options(endpoint, folder="/another"))
        check_idle(job_options(endpoint, "--job_name=mine"))
    with job_server(JobsOf(known[:1])) as endpoint:
        check_idle(job_options(endpoint))


def test_a_server_that_is_no_job_server_is_named() -> None:
    with job_server() as endpoint, pytest.raises(CappyError, match=r"is no job server of Beam \(UNIMPLEMENTED\)"):
        check_idle(job_options(endpoint))


def test_what_a_job_server_refuses_is_said_in_words() -> None:
    with job_server(JobsOf([])) as endpoint:
        pipeline = beam.Pipeline(options=job_options(endpoint, "--environment_type=EXTERNAL", "--environment_config=x"))
        pipeline | beam.Create([1])
        with pytest.raises(CappyError, match=r"INVALID_ARGUMENT \(unknown urn beam:new:v9\).* start one that is"):
            run_remotely(pipeline)


class Flink(BaseHTTPRequestHandler):
    """A JobManager with three jobs, one of them done, and what was wrong with each; what it is asked to cancel."""

    cancelled: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        name, asked = job_options("--job_endpoint=embed").job_name, self.path.split("/")[2:]
        jobs = [
            {"jid": identifier, "name": called, "start-time": start, "end-time": end}
            for identifier, called, start, end in [
                ("mine", name, 2, -1),
                ("done", name, 1, 5),
                ("other", "other", 3, -1),
            ]
        ]
        found = [{"stacktrace": f"No module named '{asked[0]}.{number}'"} for number in range(2)]
        answer = {"jobs": jobs} if asked == ["overview"] else {"exceptionHistory": {"entries": found}}
        self._answer(json.dumps(answer).encode())

    def do_PATCH(self) -> None:
        self.cancelled.append(self.path)
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on the loopback interface; yield the flag that names the server as a JobManager."""
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"--flink_master=localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture
def flink_master() -> Iterator[str]:
    """Serve a JobManager; yield the flag that names it."""
    with listening(Flink) as flag:
        yield flag


def test_a_job_that_a_new_job_server_has_forgotten_is_known_to_flink(flink_master: str) -> None:
    with job_server(JobsOf([])) as endpoint:
        check_idle(job_options(endpoint))
        check_idle(job_options(endpoint, flink_master, folder="/another"))
        with pytest.raises(CappyError, match="still running in this folder. Wait"):
            check_idle(job_options(endpoint, flink_master))


class NoFlink(BaseHTTPRequestHandler):
    """Answers with what is not JSON, with JSON that a JobManager does not say, and with what is not HTTP."""

    answers: ClassVar[dict[str, bytes]] = {
        "a page": b"HTTP/1.0 200 OK\r\n\r\n<html>",
        "a list": b"HTTP/1.0 200 OK\r\n\r\n[]",
        "an object": b"HTTP/1.0 200 OK\r\n\r\n{}",
        "an error": b"HTTP/1.0 404 Not Found\r\n\r\n{}",
        "no HTTP": b"\x00\x00\x12\x04",
    }
    answer = b""

    def do_GET(self) -> None:
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("answer", NoFlink.answers)
def test_what_is_no_flink_hides_no_error(
    answer: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(NoFlink, "answer", NoFlink.answers[answer])
    with listening(NoFlink) as master:
        with pytest.raises(RuntimeError, match="^\nat last$"):
            run_remotely(job_that_ends_with(RuntimeError("at last"), master))
        with pytest.raises(KeyboardInterrupt):
            run_remotely(job_that_ends_with(KeyboardInterrupt(), master))
        assert "cannot be cancelled on the cluster: --flink_master" in caplog.text
        with pytest.raises(CappyError, match="does not answer as the REST port of a Flink JobManager does"):
            check_idle(job_options("--job_endpoint=embed", master))


def job_that_ends_with(error: BaseException, *flags: str) -> Mock:
    """Return a pipeline whose run ends with this error."""
    result = Mock(**{"wait_until_finish.side_effect": error})
    return Mock(options=job_options("--job_endpoint=there:1", *flags), **{"run.return_value": result})


def test_an_interrupted_job_is_cancelled_on_flink(flink_master: str, caplog: pytest.LogCaptureFixture) -> None:
    for flags in ([], [flink_master]):
        pipeline = job_that_ends_with(KeyboardInterrupt(), *flags)
        with pytest.raises(KeyboardInterrupt):
            run_remotely(pipeline)
        pipeline.run.return_value.cancel.assert_called_once_with()
    assert caplog.text.count("the cluster may go on with") == 1
    assert Flink.cancelled == ["/jobs/mine?mode=cancel"]


def test_a_failure_is_told_with_those_before_it(flink_master: str) -> None:
    for flags, told in (
        ([], "\nat last"),
        ([flink_master], "No module named 'mine.0'\nNo module named 'mine.1'\nat last"),
    ):
        with pytest.raises(RuntimeError) as caught:
            run_remotely(job_that_ends_with(RuntimeError("at last"), *flags))
        assert str(caught.value) == told


def test_what_a_worker_lacks_is_named() -> None:
    options = beam_options(["--direct_num_workers=1"], local_mode="multi_processing")
    named = pytest.raises(Exception, match=r"No module named 'beam_pipelines\.jobs\.none'")
    with named, beam.Pipeline(options=options) as root:
        import_on_workers(root, "beam_pipelines.jobs.none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ModuleNotFoundError: No module named 'beam_pipelines'", "no module beam_pipelines): install it where they"),
        ("ModuleNotFoundError: No module named 'torch'", "the workers lack the module torch: install it"),
        ("Can't get attribute '_OnOurCode' on <module 'beam_pipelines.io.units' from", "(_OnOurCode is not in it)"),
        (
            "java.net.ConnectException: finishConnect(..) failed: Connection refused",
            "If it is the worker pool: start it, or fix --environment_config pools:50000,",
        ),
        (
            "AnnotatedConnectException: finishConnect(..) failed: Connection refused: pools/10.0.0.7:50000\nCaused by",
            "no worker pool (Connection refused): start it, or fix --environment_config pools:50000,",
        ),
        (
            "AnnotatedConnectException: Connection refused: pools/10.0.0.7:8081\nCaused by: Connection refused",
            "nothing listens at pools/10.0.0.7:8081 (Connection refused), and it is not the worker pool's address",
        ),
        (
            "java.io.InvalidClassException: org.apache.flink.api.common.ExecutionConfig; local class incompatible",
            "built for another version of Flink than the cluster's (InvalidClassException: org.apache.flink.api",
        ),
        ("java.util.concurrent.TimeoutException: Waited 3 minutes (plus 1 ns)", "did not start (Waited 3"),
        ("jobmanager.scheduler.NoResourceAvailableException: Could not", "lower --parallelism"),
    ],
)
def test_errors_of_a_cluster_name_a_remedy(text: str, said: str) -> None:
    options = job_options("--job_endpoint=embed", "--environment_config=pools:50000")
    assert said in explain(RuntimeError(f"Pipeline x failed in state FAILED: {text}"), options)
