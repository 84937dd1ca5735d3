"""Durations of jobs: the number of workers, the text, and the sums of costs."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.runners.forecast import Cost, Timing, Worker, forecast, workers_of
from beam_pipelines.runners.options import beam_options

REMOTE = ("--runner=PortableRunner", "--job_endpoint=embed")


@pytest.mark.parametrize(
    ("flags", "worker", "found"),
    [
        (["--direct_num_workers=3"], "core", (3, "")),
        (["--direct_num_workers=3"], "machine", (1, "")),
        ([*REMOTE, "--parallelism=4"], "core", (4, " (--parallelism)")),
        ([*REMOTE, "--parallelism=4", "--max_num_workers=9"], "machine", (9, " (--max_num_workers)")),
        ([*REMOTE, "--num_workers=2"], "core", (2, " (--num_workers)")),
        (REMOTE, "core", None),
    ],
)
def test_workers(flags: Sequence[str], worker: Worker, found: tuple[int, str] | None) -> None:
    assert workers_of(beam_options(flags, local_mode="multi_processing"), worker) == found


@pytest.mark.parametrize(
    ("flags", "worker", "words"),
    [
        (["--direct_num_workers=2"], "core", "1 h 0 min of one core's work, 30 min 0 s on 2 cores; "),
        (["--direct_num_workers=2"], "machine", "1 h 0 min of this machine's work; "),
        ([*REMOTE, "--parallelism=4"], "machine", "this machine's work, 15 min 0 s on 4 machines (--parallelism); "),
        (REMOTE, "core", "one core's work; --max_num_workers or --parallelism sets the number of workers; "),
    ],
)
def test_words(flags: Sequence[str], worker: Worker, words: str) -> None:
    said = forecast(Cost(3600, 2e9), beam_options(flags, local_mode="multi_processing"), worker)
    assert said.startswith("about 1 h 0 min of ") and words + "about 2.0 GB of files" in said


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**12)), max_size=5), st.integers(1, 1_000))
def test_costs_add_up_and_scale(parts: list[tuple[int, int]], factor: int) -> None:
    whole = sum((Cost(*part) for part in parts), Cost())
    assert whole == Cost(sum(seconds for seconds, _ in parts), sum(count for _, count in parts))
    assert Timing(7, whole).scaled_to(7 * factor) == sum(
        (Timing(7, Cost(*part)).scaled_to(7 * factor) for part in parts), Cost()
    )
