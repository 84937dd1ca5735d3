"""The `cappy` program: one subcommand for each job of the registry, and three that look at folders and machines.

Imports a job, and with it Beam and torch, only when the job is to run: help and errors in our own flags need neither.
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NoReturn

from beam_pipelines import DISTRIBUTION
from beam_pipelines.doctor.config import add_model_flags, model_check
from beam_pipelines.runs.config import RunConfig
from beam_pipelines.runs.flags import add_flag, add_flags, check_words, config_from, positive, refuse_memory
from beam_pipelines.runs.job import JOBS, load_config, load_job
from beam_pipelines.runs.parser import WRONG_USAGE, CommandParser, ProgramParser, describe_unknown, flags_in
from beam_pipelines.runs.start_up import counting_start_up
from cappy_model.paths import readable, shareable
from schemas.errors import CappyError, HandedOver, UsageError

_LOG = logging.getLogger("cappy")

DONE, FAILED = 0, 1

_EPILOG = """\
The most useful flags of Apache Beam; any other flag must be one of Beam's, too:
  --runner NAME             runner of the pipeline (default: this machine, in process)
  --direct_num_workers N    workers on this machine (default: its cores; 1 needs the least memory)
  --job_endpoint HOST:PORT  job server of --runner PortableRunner
"""

Command = Callable[[argparse.Namespace, Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status: 0 done, 1 failed, 2 wrong usage."""
    words = sys.argv[1:] if argv is None else list(argv)
    command_word = next((word for word in words if not word.startswith("-")), None)
    arguments, rest = build_parser(command_word).parse_known_args(words)
    _set_up_logging(debug=getattr(arguments, "debug", False))
    signal.signal(signal.SIGTERM, _terminate)
    command: Command = arguments.run
    try:
        if words[0] != arguments.command:
            raise UsageError(f"{words[0]} stands before the command; flags follow it")
        check_words(arguments.parser, words)
        return command(arguments, rest)
    except HandedOver as message:
        print(readable(str(message)))
        return DONE
    except CappyError as error:
        return _fail(arguments, error, WRONG_USAGE if isinstance(error, UsageError) else FAILED)
    except Exception as error:  # the last resort: no user shall see a traceback
        return _fail(arguments, CappyError(f"unexpected {type(error).__name__}: {error}; --debug shows where"), FAILED)


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)  # unwinds the stack, so that worker processes are ended too


def _fail(arguments: argparse.Namespace, error: CappyError, status: int) -> int:
    if getattr(arguments, "debug", False):
        traceback.print_exc()
    print(shareable(f"cappy {arguments.command}: {error}"), file=sys.stderr)
    return status


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shareable(super().format(record))


def _set_up_logging(*, debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(name)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("cappy").setLevel(logging.DEBUG if debug else logging.INFO)


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser of all subcommands, with the flags of `command`."""
    parser = ProgramParser(
        prog="cappy",
        allow_abbrev=False,
        description="Build, score and rerank instruction-response corpora. Flags that are not ours go to Apache Beam.",
    )
    parser.add_argument("--version", action="version", version=f"cappy {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, entry in JOBS.items():
        job = _add_command(commands, name, entry.help, _run_job)
        if name == command:
            config = load_config(name)
            add_flags(job, config)
            if config.takes_beam_flags:
                _take_beam_flags(job)
        _add_debug(job)
    _add_folder_flags(_add_command(commands, "report", "redraw report.html from a finished run's manifest", _report))
    _add_folder_flags(_add_command(commands, "verify", "check a finished run's files against its manifest", _verify))
    _add_export_flags(_add_command(commands, "export", "write the table of a finished run to one file", _export))
    _add_doctor_flags(
        _add_command(commands, "doctor", "check this machine, a scorer, or the runner that flags name", _doctor)
    )
    return parser


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "from a source tree, not installed"


def _add_command(commands: Any, name: str, text: str, run: Command) -> CommandParser:
    parser: CommandParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the epilog is a list
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def _take_beam_flags(parser: CommandParser) -> None:
    parser.epilog, parser.other_flags = _EPILOG, _beam_flags


def _beam_flags() -> Sequence[str]:
    from beam_pipelines.runners.options import beam_flags

    return beam_flags()


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_folder_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="output folder of a job")
    _add_storage_flags(parser)


def _add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="output folder of a job")
    formats = "file to write: .csv, .jsonl or .parquet; .csv.gz, .jsonl.zst and so on are compressed"
    parser.add_argument("file", metavar="FILE", help=formats)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    _add_storage_flags(parser)


def _add_storage_flags(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, RunConfig, "storage")
    _add_debug(parser)


def _run_job(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    config = config_from(load_config(arguments.command), arguments)
    if not config.takes_beam_flags:
        _refuse(arguments, rest)
    options = _beam_options(arguments, rest) if rest else None  # reports a misspelt flag before a missing one
    config.check()
    if config.takes_beam_flags and options is None:
        options = _beam_options(arguments, rest)
    job = load_job(arguments.command)
    if getattr(config, "dry_run", False) or getattr(config, "show", None):
        with counting_start_up(of_program=True):
            text = job.dry_run(config, options)
    else:
        text = job.summary(config, job.run(config, options))
    if os.environ.get("RANK", "0") == "0":  # under torchrun, the first process alone
        print(readable(text))
    return DONE


def _beam_options(arguments: argparse.Namespace, rest: Sequence[str]) -> Any:
    """Return Beam's options. Jobs with a model run in threads, which share it; others in processes."""
    from beam_pipelines.runners.options import beam_options

    entry = JOBS.get(arguments.command)
    mode = "multi_threading" if entry is None or entry.workers == "gpu" else "multi_processing"
    return beam_options(rest, local_mode=mode, ours=tuple(arguments.parser._option_string_actions))


def _report(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    from beam_pipelines.io.storage import absolute, join, write_whole
    from beam_pipelines.runs.files import describe_lost, lost_files, remedy_for_lost
    from beam_pipelines.runs.folder import load_manifest
    from beam_pipelines.runs.report import render_report
    from schemas.manifest import REPORT

    _refuse(arguments, rest)
    folder = absolute(arguments.folder)
    manifest = load_manifest(folder, arguments.storage)
    write_whole(join(folder, REPORT), render_report(manifest).encode(), arguments.storage)
    lost = lost_files(folder, arguments.storage)
    if lost:
        _LOG.warning("%s: %s; %s", folder, describe_lost(lost), remedy_for_lost(manifest))
    print(readable(join(folder, REPORT)))
    return DONE


def _verify(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    from beam_pipelines.io.storage import absolute
    from beam_pipelines.report.text import plural
    from beam_pipelines.runs.files import verify
    from beam_pipelines.runs.folder import load_manifest

    _refuse(arguments, rest)
    folder = absolute(arguments.folder)
    faults = verify(folder, arguments.storage)
    for fault in faults:
        print(readable(fault))
    count = len(load_manifest(folder, arguments.storage)["files"])
    if faults:
        print(f"{plural(len(faults), 'fault')} in {plural(count, 'file')}")
    else:
        print(f"{plural(count, 'file')} checked: all match the manifest")
    return FAILED if faults else DONE


def _export(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    from beam_pipelines.report.text import plural
    from beam_pipelines.runs.export import export
    from beam_pipelines.runs.result import open_result

    _refuse(arguments, rest)
    refuse_memory("FILE", arguments.file)
    storage = arguments.storage
    rows = export(
        open_result(arguments.folder, storage), arguments.file, overwrite=arguments.overwrite, storage=storage
    )
    print(readable(f"{plural(rows, 'row')}: {arguments.file}"))
    return DONE


def _add_doctor_flags(parser: CommandParser) -> None:
    _take_beam_flags(parser)
    for name, metavar, text in (
        ("input", "PATTERN", "files that a worker must be able to read, or the pairs of a scorer; may be repeated"),
        ("output", "DIR", "folder that a worker must be able to create and write to; may be repeated"),
    ):
        parser.add_argument(f"--{name}", dest=f"{name}s", action="append", default=[], metavar=metavar, help=text)
    wait = "seconds to wait for the worker (default: 300); Dataflow takes minutes to start one"
    parser.add_argument("--wait", type=positive, default=300, metavar="SECONDS", help=wait)
    _add_storage_flags(parser)
    add_model_flags(parser)


def _doctor(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    from beam_pipelines.doctor.diagnosis import doctor
    from beam_pipelines.models.settle import needing_extra

    asked = model_check(arguments, rest)
    if asked is not None:
        with needing_extra("model", "checking a scorer"):
            from beam_pipelines.doctor.model import doctor_model
        return doctor_model(asked)
    if not (rest or arguments.inputs or arguments.outputs):
        return doctor()
    from apache_beam.options.pipeline_options import StandardOptions

    from beam_pipelines.doctor.cluster import check_cluster
    from beam_pipelines.doctor.findings import exit_status, render

    options = _beam_options(arguments, rest)
    findings = check_cluster(
        options,
        inputs=arguments.inputs,
        outputs=arguments.outputs,
        storage=arguments.storage,
        seconds=arguments.wait,
    )
    print(readable(render(findings, f"on {options.view_as(StandardOptions).runner}")))
    return exit_status(findings)


def _refuse(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    unknown = flags_in(rest)
    if unknown:
        raise UsageError(describe_unknown(unknown, list(arguments.parser._option_string_actions)))
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}")
