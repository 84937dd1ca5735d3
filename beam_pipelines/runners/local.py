"""Running a pipeline from the launcher: the local runner, progress, and readable errors."""

import logging
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress

import apache_beam as beam
import grpc
import psutil
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.dataflow import dataflow_runner
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.runner import PipelineState
from apache_beam.runners.worker import sdk_worker
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from beam_pipelines.runners.cluster import check_idle, check_reachable, import_on_workers, remedy, run_remotely
from beam_pipelines.runners.options import is_dataflow, is_local
from schemas.errors import CappyError, HandedOver

_LOG = logging.getLogger("cappy")
_STEP = "[while running"  # Beam adds the step's label to a worker's message
_OURS = re.compile(r"(?:schemas|beam_pipelines|cappy_model)[\w.]*\.[A-Z]\w+: (.+?)(?:\s*\[while running|\n\n|\Z)", re.S)


_WORKER_THREAD = "run_worker"  # the runner's thread that waits for a worker process, and raises when it dies
_CONTROL_THREAD = "beam_control_read"  # the one that reads a worker's messages, and raises when the connection breaks
_WORKER_MODULE = "beam_pipelines.runners.worker"
_KILLED_SECONDS = 5
_LOST = (
    "{}: it was killed, or memory ran out. Run the same command again; --direct_num_workers=1 needs the least memory."
)


class PipelineFailed(CappyError):
    """The pipeline stopped with an error."""


class WorkerLost(CappyError):
    """A worker process of the in-process runner ended on its own."""


def execute(
    build: Callable[[beam.Pipeline], None],
    options: PipelineOptions,
    progress: AbstractContextManager[object],
    *,
    module: str,
) -> None:
    """Build the pipeline of the job in `module`, and run it to its end.

    Raises PipelineFailed with the worker's message; HandedOver if there is no end to wait for.
    """
    local, dataflow = is_local(options), is_dataflow(options)
    if not local:
        check_reachable(options)
        check_idle(options)
    pipeline = beam.Pipeline(runner=_local_runner(options) if local else None, options=options)
    build(pipeline)
    if not (local or dataflow):
        import_on_workers(pipeline, module)
    if dataflow:
        logging.getLogger(dataflow_runner.__name__).setLevel(logging.INFO)  # the job's name, states and messages
    else:
        pipeline.visit(_WithoutHints())
    with progress:
        try:
            state = _run(pipeline) if local or dataflow else run_remotely(pipeline)
        except (KeyboardInterrupt, SystemExit):
            if dataflow:
                _LOG.warning("the job continues without this command; it can be cancelled where it runs")
            raise
        except Exception as error:  # each runner has errors of its own, for missing credentials above all
            raise PipelineFailed(explain(error, options)) from error
    if state not in (PipelineState.DONE, None):
        raise PipelineFailed(f"the runner ended the job as {state}; see its log")
    template = options.view_as(GoogleCloudOptions).template_location
    if template and dataflow:
        raise HandedOver(
            f"{template}: holds the job, for Dataflow to run. When it is done, the same command without "
            "--template_location finds it finished and writes the report."
        )


class _WithoutHints(PipelineVisitor):
    """Remove resource hints from a pipeline for a runner that ignores them.

    Beam gives a step with hints an environment of its own: other worker processes, and no fusion with other steps.
    """

    def enter_composite_transform(self, transform_node: AppliedPTransform) -> None:
        transform_node.resource_hints = {}

    visit_transform = enter_composite_transform


def _run(pipeline: beam.Pipeline) -> str | None:
    """Run a pipeline in a thread; return its final state.

    The in-process runner waits forever for a worker process that has died, and cannot be interrupted. In a thread, the
    death of a worker is an error, signals are handled, and worker processes end with the run.
    """
    outcome: Future[str | None] = Future()

    def work() -> None:
        try:
            outcome.set_result(pipeline.run().wait_until_finish())
        except Exception as error:  # any error of the pipeline belongs to the thread that waits for it
            with suppress(InvalidStateError):
                outcome.set_exception(error)

    def on_exception(raised: threading.ExceptHookArgs) -> None:
        if raised.thread is not None and raised.thread.name == _WORKER_THREAD:
            with suppress(InvalidStateError):
                outcome.set_exception(WorkerLost(_LOST.format(raised.exc_value)))
        elif not isinstance(raised.exc_value, grpc.RpcError):  # broken connections only follow from it
            before(raised)

    before, threading.excepthook = threading.excepthook, on_exception
    threading.Thread(target=work, name="pipeline", daemon=True).start()
    try:
        return outcome.result()
    finally:
        lost = outcome.done() and isinstance(outcome.exception(), WorkerLost)
        _end_workers(lost=lost)
        threading.excepthook = before


def _end_workers(*, lost: bool) -> None:
    """Kill the remaining worker processes, and wait for the threads that raise because of these or of a `lost` one.

    Waits while the exception hook is still installed. Workers that are threads of this process raise nothing and may
    run for long, so they are not waited for: a signal takes effect at once.
    """
    remaining = worker_processes(os.getpid())
    for process in remaining:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for thread in threading.enumerate():
        if (remaining or lost) and thread.name in (_WORKER_THREAD, _CONTROL_THREAD):
            thread.join(_KILLED_SECONDS)


def worker_processes(launcher: int) -> list[psutil.Process]:
    """Return the running worker processes of the in-process runner in the process `launcher`."""
    found = []
    for process in psutil.Process(launcher).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if _WORKER_MODULE in process.cmdline():
                found.append(process)
    return found


def _local_runner(options: PipelineOptions) -> FnApiRunner:
    """Return the in-process runner, which starts our worker processes instead of Beam's.

    Unless debugging, Beam's loggers are silenced: it logs the traceback of every error that it also raises.
    """
    debugging = logging.getLogger("cappy").isEnabledFor(logging.DEBUG)
    level = logging.INFO if debugging else logging.CRITICAL
    logging.getLogger("apache_beam.runners").setLevel(level)
    # A worker that is a thread of this process also prints each of them.
    vars(sdk_worker)["print"] = print if debugging else lambda *texts, file: None
    # A timed flush by another thread would cut elements in two, and their collection would be lost or damaged.
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    provision = beam_provision_api_pb2.ProvisionInfo(retrieval_token="local")
    provision.pipeline_options.update({"beam:option:default_sdk_harness_log_level:v1": logging.getLevelName(level)})
    direct, environment = options.view_as(DirectOptions), None
    if direct.direct_running_mode == "multi_processing":
        direct.direct_running_mode = "in_memory"  # any other mode would replace the environment given here
        command = f"exec {shlex.quote(sys.executable)} -m {_WORKER_MODULE}{' --loud' if debugging else ''}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    return FnApiRunner(environment, provision_info=ExtendedProvisionInfo(provision))


def explain(error: Exception, options: PipelineOptions) -> str:
    """Return the message of a pipeline's error: our own one within it, a known remedy, or the last line."""
    text = str(error)
    if isinstance(error, CappyError):
        return text.split(_STEP)[0].strip()
    ours = _OURS.findall(text)
    if ours:
        return str(ours[-1]).strip()
    known_remedy = remedy(text, options)
    if known_remedy:
        return known_remedy
    # Dataflow prints None where it knows no reason.
    lines = [line.strip() for line in text.splitlines() if line.strip() not in ("", "None")]
    kind = type(error).__name__
    reason = lines[-1] if lines and isinstance(error, RuntimeError) else ": ".join([kind, *lines[-1:]])
    return f"the pipeline failed: {reason}; --debug shows the traceback"
