import threading
import time
from contextlib import nullcontext
from typing import Any, NoReturn

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

from beam_pipelines.runners import local as launch
from beam_pipelines.runners.local import PipelineFailed, execute, explain
from beam_pipelines.runners.options import beam_options
from schemas.errors import CappyError
from tests.beam_pipelines.runners.dataflow_jobs import COMMANDS, DATAFLOW, fill_with_rows
from tests.conftest import cappy
from tests.store import Store

COLLECTED: list[int] = []


def fail(element: str) -> str:
    raise CappyError(f"{element}: cannot be written: Disk full. Free space.")


def stumble(element: str) -> float:
    return 1 / len(element[:0])


def run(step: object, *flags: str) -> None:
    def build(root: beam.Pipeline) -> None:
        root | beam.Create(["s3://x/y"]) | beam.Reshuffle() | beam.Map(step)

    execute(build, beam_options(flags, local_mode="multi_processing"), nullcontext(), module=__name__)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_ours_comes_through_in_its_words(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PipelineFailed) as caught:
        run(fail, f"--direct_num_workers={workers}")
    assert str(caught.value) == "s3://x/y: cannot be written: Disk full. Free space."
    assert "Traceback" not in capfd.readouterr().err


def test_any_other_error_names_its_kind() -> None:
    with pytest.raises(PipelineFailed, match="ZeroDivisionError: division by zero"):
        run(stumble, "--direct_num_workers=1")
    with pytest.raises(PipelineFailed, match="ZeroDivisionError"):
        run(stumble, "--direct_num_workers=2")


class SlowToPickle:
    """An element whose encoding lets other threads run."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        time.sleep(0.005)
        return SlowToPickle, (self.number,)


def collect(element: SlowToPickle) -> None:
    COLLECTED.append(element.number)


def test_no_element_is_cut_in_two_between_steps() -> None:
    """Beam's runner flushes the output of threads each second, within an element where encoding takes long."""

    def build(root: beam.Pipeline) -> None:
        elements = root | beam.Create([300]) | beam.FlatMap(lambda count: map(SlowToPickle, range(count)))
        _ = elements | beam.Reshuffle() | beam.Map(collect)

    COLLECTED.clear()
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    execute(build, beam_options(flags, local_mode="multi_processing"), nullcontext(), module=__name__)
    assert sorted(COLLECTED) == list(range(300))


def test_a_run_leaves_no_thread_hook_behind() -> None:
    before = threading.excepthook
    run(str.upper, "--direct_num_workers=1")
    assert threading.excepthook is before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Traceback\n  File x\nschemas.errors.CappyError: no room [while running 'A/B-ptransform-3']\n", "no room"),
        ("x\nbeam_pipelines.io.storage.OutputError: a: b\n\nThe above", "a: b"),
        ("Traceback\nValueError: bad", "the pipeline failed: ValueError: bad; --debug shows the traceback"),
        ("", "the pipeline failed: RuntimeError; --debug shows the traceback"),
    ],
)
def test_explain(text: str, message: str) -> None:
    assert explain(RuntimeError(text), PipelineOptions([])) == message


def test_dataflow_that_knows_no_reason() -> None:
    error = DataflowRuntimeException("Dataflow pipeline failed. State: CANCELLED, Error:\nNone", None)
    told = explain(error, PipelineOptions([]))
    assert "State: CANCELLED" in told and "None" not in told


@pytest.mark.parametrize(
    ("flags", "environments"), [(["--direct_num_workers=1"], 1), (["--runner=FlinkRunner"], 1), (DATAFLOW, 2)]
)
def test_hints_are_for_those_who_heed_them(
    flags: list[str], environments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To Beam a step with hints has an environment of its own, so worker processes of its own."""
    pipelines: list[beam.Pipeline] = []
    monkeypatch.setattr(launch, "_run", pipelines.append)
    monkeypatch.setattr(launch, "run_remotely", launch._run)
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda self, name: None)

    def build(root: beam.Pipeline) -> None:
        root | beam.Create([1]) | beam.Map(str) | beam.CombineGlobally(any).with_resource_hints(min_ram="1GB")

    execute(build, beam_options(flags, local_mode="multi_processing"), nullcontext(), module=__name__)
    assert len(pipelines[0].to_runner_api().components.environments) == environments


@pytest.fixture
def dataflow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a command that submits to Dataflow; nothing is sent."""
    monkeypatch.setattr(Store, "store", {})
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda self, name: None)
    fill_with_rows()
    return ["rerank", *COMMANDS["rerank"], "--output=store://bucket/out", *DATAFLOW]


def test_what_the_job_wrote_of_its_failure_comes_before_what_the_runner_says(
    dataflow: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_there(pipeline: beam.Pipeline) -> NoReturn:
        Store().pipe_file("/bucket/out/failure.json", b'{"reason": "2.00% of them were rejected"}')
        raise DataflowRuntimeException("Dataflow pipeline failed. State: FAILED, Error:\nworkflow failed", None)

    monkeypatch.setattr(launch, "_run", fail_there)
    assert cappy(*dataflow) == 1
    assert capsys.readouterr().err.endswith("cappy rerank: 2.00% of them were rejected\n")


def test_a_job_that_is_only_written_is_not_waited_for(
    dataflow: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_run", lambda pipeline: "DONE")
    assert cappy(*dataflow, "--template_location=gs://some-bucket/job") == 0
    assert capsys.readouterr().out.startswith("gs://some-bucket/job: holds the job, for Dataflow to run.")


def test_an_interrupt_says_that_the_job_goes_on(
    dataflow: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(pipeline: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_run", interrupt)
    assert cappy(*dataflow) == 130
    assert "the job continues without this command" in capsys.readouterr().err
