"""Checks of a runner: a probe runs on a worker and returns its findings."""

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import MetricResults, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from beam_pipelines.doctor import probe
from beam_pipelines.doctor.findings import Finding, check
from beam_pipelines.io.patterns import alternatives
from beam_pipelines.io.storage import StorageOptions, absolute, explained, file_system, join, read_bytes, write_whole
from beam_pipelines.runners.cluster import await_end, cancel, check_reachable, name_job
from beam_pipelines.runners.local import PipelineFailed, explain
from beam_pipelines.runs.release import Release, this_release
from schemas.errors import CappyError

_SECTION = "Cluster"
_SILENT = (
    "no worker has answered within {} s, and the job is {}: perhaps no slot is free, or the workers cannot start, for "
    "example without Beam; see the logs of the cluster and of its workers. Check that the job has ended there, and "
    "wait longer with --wait"
)


def check_cluster(
    options: PipelineOptions,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    storage: StorageOptions,
    seconds: int,
) -> list[Finding]:
    """Check that the runner of `options` answers, the versions on its worker, and the worker's access to files.

    `inputs` are patterns of files to read, `outputs` folders to write to: this machine writes a file of a random name,
    the worker overwrites it, and this machine reads and deletes it. Waits for the worker at most `seconds`.
    """
    inputs, findings = [url for pattern in inputs for url in alternatives(pattern, storage)], []
    with ExitStack() as stack:
        files = {}
        for folder in map(absolute, outputs):
            try:
                files[stack.enter_context(_temporary_file(folder, storage))] = folder
            except CappyError as error:
                findings.append(_needed(f"output {folder}", f"from this machine: {error}"))
        started = time.monotonic()
        try:
            check_reachable(options)
            request = {"inputs": inputs, "outputs": list(files), "storage": dict(storage)}
            answer = _ask(json.dumps(request), options, seconds)
        except CappyError as error:
            return [_needed("round trip", str(error)), *findings]
        took = time.monotonic() - started
        findings += [_needed(f"input {url}", answer["files"][url], "the worker reads it") for url in inputs]
        for url, folder in files.items():
            problem = answer["files"][url] or _unconfirmed(url, storage)
            findings.append(_needed(f"output {folder}", problem, "the worker writes there, and this machine sees it"))
    return [
        _needed("round trip", None, f"{took:.1f} s, through a worker on {answer['host']}"),
        *_worker(answer),
        *findings,
    ]


def _ask(request: str, options: PipelineOptions, seconds: int) -> dict[str, Any]:
    """Run the probe on a worker and return its answer. Raises PipelineFailed."""
    name_job(options, "doctor", uuid.uuid4().hex)
    pipeline = beam.Pipeline(options=options)
    # Text, which every worker can unpickle. A function of a module that it lacks breaks a worker before it connects:
    # Flink waits three minutes for that, and then restarts it, as often as it is configured to.
    _ = pipeline | "Ask" >> beam.Create([_source(request)]) | "Probe" >> beam.Map(exec, {})
    try:
        result = pipeline.run()
        state = await_end(result, options, seconds)
        if not PipelineState.is_terminal(state):
            cancel(result, options)
            raise PipelineFailed(_SILENT.format(seconds, state))
        metrics = result.metrics().query(MetricsFilter().with_namespace(probe.METRIC))
    except Exception as error:  # each runner has errors of its own
        raise PipelineFailed(explain(error, options)) from error
    # A worker that was lost later may have answered, too; any answer will do.
    answers = [text for metric in metrics[MetricResults.STRINGSETS] for text in metric.result]
    if not answers:
        raise PipelineFailed(f"the job ended as {state}, and the runner brought back nothing from its worker")
    answer: dict[str, Any] = json.loads(answers[0])
    return answer


def _source(request: str) -> str:
    """Return the source of the probe and of its call."""
    return f"{Path(probe.__file__).read_text()}\nreport({request!r})\n"


@contextmanager
def _temporary_file(folder: str, storage: StorageOptions) -> Iterator[str]:
    """Yield the URL of a new file in `folder` that holds this URL, and delete it afterwards. Raises CappyError."""
    url = join(folder, f"cappy-doctor-{uuid.uuid4().hex}")
    write_whole(url, os.fsencode(url), storage)
    try:
        yield url
    finally:
        fs, path = file_system(url, storage)
        with explained(url, "deleted"):
            fs.rm_file(path)


def _unconfirmed(url: str, storage: StorageOptions) -> str | None:
    if read_bytes(url, storage) == os.fsencode(probe.confirmation(url)):
        return None
    return "this machine does not see the file that the worker wrote: it is not the same folder for both"


def _worker(answer: Mapping[str, Any]) -> list[Finding]:
    """Compare the versions on the worker with those here."""
    ours, theirs = this_release(), Release(*answer["cappy"]) if answer["cappy"] else "no cappy"
    python = platform.python_version()
    return [
        _like_here("cappy", str(theirs), str(ours), same=theirs == ours),
        _like_here("apache-beam", answer["beam"], beam.__version__, same=answer["beam"] == beam.__version__),
        _like_here("Python", answer["python"], python, same=_minor(answer["python"]) == _minor(python)),
        _torch(answer["torch"]),
    ]


def _like_here(name: str, theirs: str, ours: str, *, same: bool) -> Finding:
    if same:
        return Finding(_SECTION, name, "ok", theirs, needed=True)
    remedy = "install the same version here and on the workers, and restart these; docs/runners.md has images"
    return Finding(_SECTION, name, "missing", f"the worker has {theirs}, this machine {ours}", remedy, needed=True)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _torch(versions: Sequence[str] | None) -> Finding:
    if versions is None:
        remedy = "install the extra `model` where the workers run"
        return Finding(_SECTION, "torch", "missing", "score and generate need it on the workers", remedy)
    version, *devices = versions
    return Finding(_SECTION, "torch", "ok", f"{version}; {', '.join(devices) or 'no CUDA device'}")


def _needed(name: str, problem: str | None, detail: str = "") -> Finding:
    return check(_SECTION, name, problem, detail=detail, needed=True)
