"""Beam's options: parsed from the flags that are not ours, checked, and completed for this machine."""

import argparse
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.runner import create_runner

from beam_pipelines.runs.parser import describe_unknown
from cappy_model.host import usable_cores
from schemas.errors import UsageError

LOCAL_RUNNER = "FnApiRunner"
_LOCAL_NAMES = ("direct", "fnapi")
_REMOTE_WORKERS = ("--num_workers", "--max_num_workers")


class Placement(NamedTuple):
    """Where a job runs, as far as its plan depends on it.

    `local`: on this machine, in processes that the launcher starts. `one_process`: all of it in the launcher's own.
    """

    local: bool
    one_process: bool


DRY_RUN = Placement(local=True, one_process=True)


def placement_of(options: PipelineOptions) -> Placement:
    """Return where a job with these options runs."""
    one_process = options.view_as(DirectOptions).direct_running_mode != "multi_processing"
    return Placement(is_local(options), is_local(options) and one_process)


def beam_options(rest: Sequence[str], *, local_mode: str, ours: Sequence[str] = ()) -> PipelineOptions:
    """Return Beam's options from the flags that are not ours.

    Without a runner, or with DirectRunner, the job runs in Beam's in-process FnApiRunner on all cores of this machine,
    in `local_mode` (`multi_processing` or `multi_threading`); one worker runs in memory. (DirectRunner itself may use
    Prism, which ignores the number of workers.) Raises UsageError for an unknown flag, naming the nearest of Beam's and
    of `ours`, for a wrong value, for a runner that is not installed or lacks a required flag, and for a remote runner's
    number of workers without such a runner.
    """
    _check_known(rest, ours)
    options = PipelineOptions(list(rest))
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    given = {flag.split("=")[0] for flag in rest}
    if _names_local(standard.runner):
        standard.runner = LOCAL_RUNNER
        if "--direct_num_workers" not in given:
            direct.direct_num_workers = usable_cores()
        if "--direct_running_mode" not in given and direct.direct_num_workers != 1:
            direct.direct_running_mode = local_mode
        if direct.direct_num_workers < 0:
            raise UsageError(f"--direct_num_workers {direct.direct_num_workers} is less than 0; 0 means every core")
    try:
        runner = create_runner(standard.runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner {standard.runner}: {error}") from error
    errors = PipelineOptionsValidator(options, runner).validate()
    if errors:
        raise UsageError(f"--runner {standard.runner}: {' '.join(errors)}")
    options.view_as(SetupOptions).save_main_session = False
    return options


def in_threads(options: PipelineOptions) -> PipelineOptions:
    """Return a copy of `options` with which a local job runs in threads of one process, which share a model."""
    copied = PipelineOptions.from_dictionary(options.get_all_options(drop_default=True))
    direct = copied.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        direct.direct_running_mode = "multi_threading"
    return copied


def _names_local(runner: str | None) -> bool:
    """Return whether --runner names this machine. Beam accepts names in any case, with or without "Runner"."""
    return runner is None or runner.lower().removesuffix("runner") in _LOCAL_NAMES


def is_local(options: PipelineOptions) -> bool:
    """Return whether the job runs on this machine, in processes that the launcher starts."""
    return options.view_as(StandardOptions).runner == LOCAL_RUNNER


def is_dataflow(options: PipelineOptions) -> bool:
    """Return whether the job runs on Dataflow, whose machines see no local disk and honour resource hints."""
    return isinstance(create_runner(options.view_as(StandardOptions).runner), DataflowRunner)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def beam_flags() -> list[str]:
    """Return all flags that Beam knows."""
    return list(_beam_parser()._option_string_actions)


def _beam_parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in vars(kind):
            kind._add_argparse_args(parser)
    return parser


def _check_known(rest: Sequence[str], ours: Sequence[str]) -> None:
    parser = _beam_parser()
    known = list(parser._option_string_actions)
    names = [flag.split("=")[0] for flag in rest if flag.startswith("-")]
    unknown = [name for name in names if name not in known]
    parsed, stray = parser.parse_known_args([flag for flag in rest if flag.split("=")[0] not in unknown])
    local = _names_local(parsed.runner)
    useful = [flag for flag in known if not (local and flag in _REMOTE_WORKERS)]
    if unknown:
        raise UsageError(describe_unknown(unknown, [*ours, *useful]))
    if stray:
        raise UsageError(f"unexpected argument {stray[0]!r}")
    idle = [name for name in names if name not in useful]
    if idle:
        raise UsageError(f"{idle[0]} does nothing on this machine; --direct_num_workers sets its workers")
