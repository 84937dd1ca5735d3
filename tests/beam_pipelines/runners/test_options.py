import re

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from beam_pipelines.runners.options import beam_options, is_local
from cappy_model.host import usable_cores
from schemas.errors import UsageError
from tests.conftest import cappy


def test_no_runner_is_all_cores_of_this_machine() -> None:
    names = ("DirectRunner", "directrunner", "direct", "Direct", "FnApiRunner", "fnapirunner")
    for flags in ([], *(["--runner", name] for name in names)):
        options = beam_options(flags, local_mode="multi_processing")
        assert is_local(options)
        assert options.view_as(DirectOptions).direct_num_workers == usable_cores()
    single = beam_options(["--direct_num_workers=1"], local_mode="multi_processing").view_as(DirectOptions)
    assert (single.direct_num_workers, single.direct_running_mode) == (1, "in_memory")
    threads = beam_options(["--direct_num_workers=3"], local_mode="multi_threading").view_as(DirectOptions)
    assert (threads.direct_num_workers, threads.direct_running_mode) == (3, "multi_threading")


def test_a_named_runner_is_left_alone() -> None:
    options = beam_options(["--runner=FlinkRunner", "--flink_master=[local]"], local_mode="multi_processing")
    assert options.view_as(StandardOptions).runner == "FlinkRunner"
    assert not is_local(options)


def test_workers_of_a_remote_runner_are_for_a_remote_runner() -> None:
    beam_options(["--runner=FlinkRunner", "--num_workers=2"], local_mode="multi_processing")
    with pytest.raises(UsageError, match=r"--num_workers does nothing on this machine"):
        beam_options(["--num_workers=2", "--runner", "direct"], local_mode="multi_processing")
    with pytest.raises(UsageError, match=r"did you mean --num_workers\?"):
        beam_options(["--nun_workers=2", "--runner=FlinkRunner"], local_mode="multi_processing")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--direct_num_worker=1"], "unknown flag --direct_num_worker; did you mean --direct_num_workers"),
        (["--zzz"], "unknown flag --zzz"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_unknown_flags_are_errors(flags: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        beam_options(flags, local_mode="multi_processing")


@pytest.mark.parametrize(
    "flags",
    [
        ["--limit", "0"],
        ["--limit", "x"],
        ["--max-reject-rate", "2"],
        ["--storage-options", "no json"],
        ["--storage-options", "[1]"],
        ["--shards", "-1"],
        ["--candidates", "x", "--instructions-only"],
    ],
)
def test_wrong_usage_is_exit_status_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("build-corpus", "--mixture", "m.yaml", "--output", "o", *flags) == 2
    said = capsys.readouterr().err
    assert flags[0] in said or flags[-1] in said
    assert "Traceback" not in said


def test_help_names_the_flags_of_beam_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    for job in ("build-corpus", "score", "rerank", "demo"):
        assert cappy(job, "--help") == 0
        said = capsys.readouterr().out
        assert "--runner NAME" in said and "--direct_num_workers N" in said


def test_the_program_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("--version") == 0
    assert re.fullmatch(r"cappy \d+\.\d+\.\d+\n", capsys.readouterr().out)
