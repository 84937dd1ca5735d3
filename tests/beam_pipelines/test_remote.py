import socket
import threading

import pytest

from beam_pipelines.launch import explain
from beam_pipelines.options import beam_options
from beam_pipelines.remote import check_reachable
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


def test_what_is_there_or_needs_nothing_is_let_through() -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=server.accept, daemon=True).start()
        there = [f"--job_endpoint=localhost:{port}"]
        for flags in (there, ["--job_endpoint=embed"], []):
            check_reachable(beam_options(["--runner=PortableRunner", *flags], local_mode="multi_processing"))
    check_reachable(beam_options(["--runner=FlinkRunner", "--flink_master=[local]"], local_mode="multi_processing"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ModuleNotFoundError: No module named 'beam_pipelines'", "no module beam_pipelines): install it where they"),
        ("ModuleNotFoundError: No module named 'torch'", "the workers lack the module torch: install it"),
        ("Can't get attribute '_OnOurCode' on <module 'beam_pipelines.reads' from", "(_OnOurCode is not in it)"),
        (
            "java.net.ConnectException: finishConnect(..) failed: Connection refused",
            "no worker pool (Connection refused): start it, or mend --environment_config",
        ),
        ("jobmanager.scheduler.NoResourceAvailableException: Could not", "lower --parallelism"),
    ],
)
def test_errors_of_a_cluster_name_a_remedy(text: str, said: str) -> None:
    assert said in explain(RuntimeError(f"Pipeline x failed in state FAILED: {text}"))
