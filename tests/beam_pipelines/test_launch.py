import threading
from contextlib import nullcontext

import apache_beam as beam
import pytest

from beam_pipelines.launch import PipelineFailed, execute, explain
from beam_pipelines.options import beam_options
from schemas.errors import CappyError


def fail(element: str) -> str:
    raise CappyError(f"{element}: cannot be written: Disk full. Free space.")


def stumble(element: str) -> float:
    return 1 / len(element[:0])


def run(step: object, *flags: str) -> None:
    def build(root: beam.Pipeline) -> None:
        root | beam.Create(["s3://x/y"]) | beam.Reshuffle() | beam.Map(step)

    execute(build, beam_options(flags, local_mode="multi_processing"), nullcontext())


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_ours_comes_through_in_its_words(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PipelineFailed) as caught:
        run(fail, f"--direct_num_workers={workers}")
    assert str(caught.value) == "s3://x/y: cannot be written: Disk full. Free space."
    assert "Traceback" not in capfd.readouterr().err


def test_any_other_error_names_its_kind() -> None:
    with pytest.raises((PipelineFailed, ZeroDivisionError), match="division by zero"):
        run(stumble, "--direct_num_workers=1")
    with pytest.raises(PipelineFailed, match="ZeroDivisionError"):
        run(stumble, "--direct_num_workers=2")


def test_a_run_leaves_no_thread_hook_behind() -> None:
    before = threading.excepthook
    run(str.upper, "--direct_num_workers=1")
    assert threading.excepthook is before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Traceback\n  File x\nschemas.errors.CappyError: no room [while running 'A/B-ptransform-3']\n", "no room"),
        ("x\nbeam_pipelines.storage.OutputError: a: b\n\nThe above", "a: b"),
        ("Traceback\nValueError: bad", "the pipeline failed: ValueError: bad; --debug shows the traceback"),
        ("", "the pipeline failed: RuntimeError; --debug shows the traceback"),
    ],
)
def test_explain(text: str, message: str) -> None:
    assert explain(RuntimeError(text)) == message
