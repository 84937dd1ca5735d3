"""Flags: ours, strict, into a job's configuration; the rest to Beam, checked."""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.runner import create_runner

from cappy_model.host import usable_cores
from schemas.errors import UsageError

LOCAL_RUNNER = "FnApiRunner"
_LOCAL_NAMES = ("direct", "fnapi")
_REMOTE_WORKERS = ("--num_workers", "--max_num_workers")


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What every job is told.

    `limit` is in rows per input file, `max_reject_rate` a share in [0, 1]; `storage` goes to fsspec, never into a file.
    """

    output: str
    seed: int = 0
    limit: int | None = None
    dry_run: bool = False
    overwrite: bool = False
    max_reject_rate: float = 0.01
    storage: dict[str, Any] = field(default_factory=dict, repr=False)


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that all jobs share."""
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results: a path or an fsspec URL")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: 0)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N rows of each input file")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's files in the output folder")
    parser.add_argument(
        "--max-reject-rate",
        type=share,
        default=0.01,
        metavar="R",
        help="fail when more than this share is rejected: of row x template renderings and candidates in build-corpus, "
        "of prompts in generate, of pairs in score, of candidates in rerank and evaluate (default: 0.01)",
    )
    parser.add_argument(
        "--storage-options", dest="storage", type=json_object, default={}, metavar="JSON", help="passed to fsspec"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def positive(text: str) -> int:
    """A whole number from 1, of a flag."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    if int(text) > sys.maxsize:
        raise argparse.ArgumentTypeError(f"{text} is too large; leave the flag out for no limit")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1, of a flag."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, of a flag."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def beam_options(rest: Sequence[str], *, local_mode: str, ours: Sequence[str] = ()) -> PipelineOptions:
    """Beam's options of the flags that are not ours.

    Without a runner, or with DirectRunner, the job runs in Beam's in-process FnApiRunner on all cores of this machine,
    in `local_mode` (`multi_processing` or `multi_threading`); one worker runs in memory. (DirectRunner itself may hand
    over to Prism, which ignores the number of workers.) Raises UsageError for a flag that Beam does not know, naming
    the nearest of Beam's and of `ours`, for a wrong value, for a runner that is not there or lacks a flag, and for the
    workers of a remote runner where none is named.
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
    faults = PipelineOptionsValidator(options, runner).validate()
    if faults:
        raise UsageError(f"--runner {standard.runner}: {' '.join(faults)}")
    options.view_as(SetupOptions).save_main_session = False
    return options


def in_threads(options: PipelineOptions) -> PipelineOptions:
    """A copy of `options` in which a local job runs in threads of one process, which share a model."""
    copied = PipelineOptions.from_dictionary(options.get_all_options(drop_default=True))
    direct = copied.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        direct.direct_running_mode = "multi_threading"
    return copied


def _names_local(runner: str | None) -> bool:
    """Whether --runner says this machine. Beam takes names in any case, with or without "Runner"."""
    return runner is None or runner.lower().removesuffix("runner") in _LOCAL_NAMES


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs on this machine, in processes that the launcher starts."""
    return options.view_as(StandardOptions).runner == LOCAL_RUNNER


def is_dataflow(options: PipelineOptions) -> bool:
    """Whether the job runs on Dataflow: machines of its own, which see no disk of ours, and which heed hints."""
    return isinstance(create_runner(options.view_as(StandardOptions).runner), DataflowRunner)


def in_one_process(options: PipelineOptions) -> bool:
    """Whether all of the job runs in the launcher's own process."""
    return is_local(options) and options.view_as(DirectOptions).direct_running_mode != "multi_processing"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _check_known(rest: Sequence[str], ours: Sequence[str]) -> None:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in vars(kind):
            kind._add_argparse_args(parser)
    known = list(parser._option_string_actions)
    names = [flag.split("=")[0] for flag in rest if flag.startswith("-")]
    unknown = [name for name in names if name not in known]
    found, stray = parser.parse_known_args([flag for flag in rest if flag.split("=")[0] not in unknown])
    local = _names_local(found.runner)
    useful = [flag for flag in known if not (local and flag in _REMOTE_WORKERS)]
    if unknown:
        meant = [flag for flag in (*ours, *useful) if flag.endswith(f"_{unknown[0].lstrip('-')}")]
        near = difflib.get_close_matches(unknown[0], meant or [*ours, *useful], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"unknown flag {unknown[0]}{hint}")
    if stray:
        raise UsageError(f"unexpected argument {stray[0]!r}")
    idle = [name for name in names if name not in useful]
    if idle:
        raise UsageError(f"{idle[0]} does nothing on this machine; --direct_num_workers sets its workers")
