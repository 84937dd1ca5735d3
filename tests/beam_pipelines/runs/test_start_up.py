import time

import psutil
import pytest

from beam_pipelines.runners.forecast import Cost, forecast
from beam_pipelines.runners.options import beam_options
from beam_pipelines.runs.start_up import counting_start_up, describe_start_up, end_start_up


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time as a list of one number, which a test changes."""
    now = [1_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_counts_until_the_first_measured_row(clock: list[float]) -> None:
    end_start_up()
    assert describe_start_up() == ""
    with counting_start_up():
        assert describe_start_up() == ""
        clock[0] += 12.3
        with counting_start_up():
            end_start_up()
        clock[0] += 100
        end_start_up()
        assert describe_start_up() == ", after about 12 s of start-up"
    assert describe_start_up() == ""


def test_counts_from_the_start_of_the_process(clock: list[float]) -> None:
    clock[0] = psutil.Process().create_time() + 7_200
    with counting_start_up(of_program=True):
        clock[0] += 1.2
        end_start_up()
        assert describe_start_up() == ", after about 7,201 s of start-up"


@pytest.mark.parametrize(("flags", "said"), [((), True), (("--runner=PortableRunner", "--job_endpoint=embed"), False)])
def test_a_forecast_names_it_on_this_machine(flags: tuple[str, ...], said: bool, clock: list[float]) -> None:
    with counting_start_up():
        clock[0] += 4
        end_start_up()
        text = forecast(Cost(90, 1e6), beam_options(flags, local_mode="multi_processing"), "machine")
    assert ("about 1 min 30 s of this machine's work, after about 4 s of start-up; about" in text) == said
    assert ("start-up" in text) == said
