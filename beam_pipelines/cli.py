"""The `cappy` program: one subcommand for each job, a thin shell over the jobs."""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import StandardOptions

from beam_pipelines import DISTRIBUTION
from beam_pipelines.doctor.cluster import check_cluster
from beam_pipelines.doctor.diagnosis import doctor
from beam_pipelines.doctor.findings import exit_status, render
from beam_pipelines.doctor.installation import installed_version
from beam_pipelines.io.storage import absolute, join, write_whole
from beam_pipelines.jobs.adapt.job import job as adapt
from beam_pipelines.jobs.build_corpus.job import BUILD_CORPUS
from beam_pipelines.jobs.demo.job import job as demo
from beam_pipelines.jobs.evaluate.job import EVALUATE
from beam_pipelines.jobs.generate.job import GENERATE
from beam_pipelines.jobs.rerank.job import RERANK
from beam_pipelines.jobs.score.job import SCORE
from beam_pipelines.jobs.train.config import TrainConfig, add_train_flags
from beam_pipelines.jobs.train.job import job as train
from beam_pipelines.program import interrupted
from beam_pipelines.report.page import render_report
from beam_pipelines.report.text import plural
from beam_pipelines.runners.local import HandedOver
from beam_pipelines.runners.options import add_job_flags, beam_options, json_object, positive
from beam_pipelines.runs.folder import load_manifest, verify
from beam_pipelines.runs.job import Job
from schemas.errors import CappyError, UsageError
from schemas.manifest import REPORT

JOBS = (BUILD_CORPUS, GENERATE, SCORE, RERANK, EVALUATE)
DONE, FAILED, WRONG_USAGE = 0, 1, 2

_EPILOG = """\
Flags of Apache Beam that matter most; any other flag must be one of Beam's, too:
  --runner NAME             where it runs (default: on this machine)
  --direct_num_workers N    workers on this machine (default: its cores; 1 needs the least memory)
  --job_endpoint HOST:PORT  of the job server of --runner PortableRunner
"""

_DOCTOR = "what works on this machine, and what to install; with any flag, what works on the runner that it names"

Command = Callable[[argparse.Namespace, Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; its exit status: 0 done, 1 failed, 2 wrong usage."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    _set_up_logging(debug=getattr(arguments, "debug", False))
    signal.signal(signal.SIGTERM, _terminate)
    command: Command = arguments.run
    try:
        return command(arguments, rest)
    except HandedOver as told:
        print(told)
        return DONE
    except CappyError as error:
        return _fail(arguments, error, WRONG_USAGE if isinstance(error, UsageError) else FAILED)
    except KeyboardInterrupt:
        return interrupted()
    except Exception as error:  # the last resort of a program: no user shall meet a traceback
        return _fail(arguments, CappyError(f"unexpected {type(error).__name__}: {error}; --debug shows where"), FAILED)


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)  # so that worker processes are ended too


def _fail(arguments: argparse.Namespace, error: CappyError, status: int) -> int:
    if getattr(arguments, "debug", False):
        traceback.print_exc()
    message = f"cappy {arguments.command}: {error}"
    print(message.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    return status


def _set_up_logging(*, debug: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("cappy").setLevel(logging.DEBUG if debug else logging.INFO)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cappy",
        allow_abbrev=False,
        description="Build, score and rerank instruction-response corpora. Flags that are not ours go to Apache Beam.",
    )
    version = installed_version(DISTRIBUTION) or "from a source tree, not installed"
    parser.add_argument("--version", action="version", version=f"cappy {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for job in JOBS:
        _add(commands, job.name, partial(_run_job, job), job.help, _job_flags(job), epilog=_EPILOG)
    _add(commands, train.JOB, _train, train.HELP, add_train_flags)
    _add(commands, adapt.JOB, _adapt, adapt.HELP, adapt.add_adapt_flags, epilog=_EPILOG)
    _add(commands, demo.JOB, _demo, demo.HELP, demo.add_demo_flags, epilog=_EPILOG)
    _add(commands, "report", _report, "draw report.html again from a finished run's manifest", _folder_flags)
    _add(commands, "verify", _verify, "check a finished run's files against its manifest", _folder_flags)
    _add(commands, "doctor", _doctor, _DOCTOR, _doctor_flags, epilog=_EPILOG)
    return parser


def _add(
    commands: Any,
    name: str,
    run: Command,
    text: str,
    add_flags: Callable[[argparse.ArgumentParser], None],
    *,
    epilog: str | None = None,
) -> None:
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the epilog is a list
        allow_abbrev=False,
    )
    add_flags(parser)
    parser.set_defaults(run=run, flags=tuple(parser._option_string_actions))


def _job_flags(job: Job) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        job.add_flags(parser)
        add_job_flags(parser)

    return add


def _config(kind: type[Any], arguments: argparse.Namespace) -> Any:
    """The flags that a dataclass of a configuration has."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in vars(arguments).items() if name in names})


def _run_job(job: Job, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    config = _config(job.config, arguments)
    options = beam_options(rest, local_mode=job.local_mode, ours=arguments.flags)
    if config.dry_run:
        print(job.dry_run(config, options))
        return DONE
    manifest = job.run(config, options)
    print(f"{job.summary(manifest)}\nreport: {join(absolute(config.output), REPORT)}")
    return DONE


def _train(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    _no_more(rest)
    config = _config(TrainConfig, arguments)
    told = train.dry_run(config) if config.dry_run else train.summary(train.run(config))
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun has started, the first one
        print(told)
    return DONE


def _adapt(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    config = _config(adapt.AdaptConfig, arguments)
    options = beam_options(rest, local_mode="multi_processing", ours=arguments.flags)
    print(adapt.dry_run(config) if config.dry_run else adapt.summary(adapt.run(config, options)))
    return DONE


def _demo(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    config = _config(demo.DemoConfig, arguments)
    options = beam_options(rest, local_mode="multi_processing", ours=arguments.flags)
    print(demo.summary(config, demo.run(config, options)))
    return DONE


def _folder_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the output folder of a job")
    _add_common_flags(parser)


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage-options", dest="storage", type=json_object, default={}, metavar="JSON", help="passed to fsspec"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _report(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    _no_more(rest)
    folder = absolute(arguments.folder)
    page = render_report(load_manifest(folder, arguments.storage))
    write_whole(join(folder, REPORT), page.encode(), arguments.storage)
    print(join(folder, REPORT))
    return DONE


def _verify(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    _no_more(rest)
    folder = absolute(arguments.folder)
    faults = verify(folder, arguments.storage)
    for fault in faults:
        print(fault)
    count = len(load_manifest(folder, arguments.storage)["files"])
    if faults:
        print(f"{plural(len(faults), 'fault')} in {plural(count, 'file')}")
    else:
        print(f"{plural(count, 'file')} checked: all as the manifest says")
    return FAILED if faults else DONE


def _doctor_flags(parser: argparse.ArgumentParser) -> None:
    for name, metavar, text in (
        ("input", "PATTERN", "files that a worker must be able to read; may be given again"),
        (
            "output",
            "DIR",
            "a folder that a worker must be able to write to, made where there is none; may be given again",
        ),
    ):
        parser.add_argument(f"--{name}", dest=f"{name}s", action="append", default=[], metavar=metavar, help=text)
    wait = "how long the worker may take to answer (default: 300); Dataflow takes minutes to start one"
    parser.add_argument("--wait", type=positive, default=300, metavar="SECONDS", help=wait)
    _add_common_flags(parser)


def _doctor(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    if not (rest or arguments.inputs or arguments.outputs):
        return doctor()
    options = beam_options(rest, local_mode="multi_threading", ours=arguments.flags)
    findings = check_cluster(
        options,
        inputs=arguments.inputs,
        outputs=arguments.outputs,
        storage=arguments.storage,
        seconds=arguments.wait,
    )
    print(render(findings, f"on {options.view_as(StandardOptions).runner}"))
    return exit_status(findings)


def _no_more(rest: Sequence[str]) -> None:
    if rest:
        raise UsageError(f"unknown argument {rest[0]!r}")
