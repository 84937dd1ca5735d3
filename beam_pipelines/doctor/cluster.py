"""A runner as the jobs will find it: a probe goes to a worker, and what it finds there comes back."""

import json
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import MetricResults, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.doctor.findings import Finding, check
from beam_pipelines.doctor.probe import METRIC, Probe, answered
from beam_pipelines.launch import PipelineFailed, explain
from beam_pipelines.release import Release, this_release
from beam_pipelines.remote import await_end, check_reachable
from beam_pipelines.storage import StorageOptions, absolute, explained, file_system, join, read_bytes, write_whole
from schemas.errors import CappyError

_SECTION = "Cluster"


def check_cluster(
    options: PipelineOptions, *, inputs: Sequence[str], outputs: Sequence[str], storage: StorageOptions
) -> list[Finding]:
    """Whether the runner that `options` name answers, what a worker of it is, and what files that worker reaches.

    `inputs` are patterns of files to be read, `outputs` folders to be written to: this machine writes a file of a
    random name there, the worker answers in it, this machine reads the answer and deletes it.
    """
    inputs, found = [absolute(url) for url in inputs], []
    with ExitStack() as stack:
        left = {}
        for folder in map(absolute, outputs):
            try:
                left[stack.enter_context(_left_in(folder, storage))] = folder
            except CappyError as error:
                found.append(_needed(f"output {folder}", f"from this machine: {error}"))
        started = time.monotonic()
        try:
            check_reachable(options)
            told = _ask(Probe(inputs, list(left), dict(storage)), options)
        except CappyError as error:
            return [_needed("round trip", str(error)), *found]
        seconds = time.monotonic() - started
        found += [_needed(f"input {url}", told["files"][url], "the worker reads it") for url in inputs]
        for url, folder in left.items():
            problem = told["files"][url] or _unanswered(url, storage)
            found.append(_needed(f"output {folder}", problem, "the worker writes there, and this machine sees it"))
    return [_needed("round trip", None, f"{seconds:.1f} s, through a worker on {told['host']}"), *_worker(told), *found]


def _ask(probe: Probe, options: PipelineOptions) -> dict[str, Any]:
    """What a worker tells. Raises PipelineFailed."""
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Impulse() | beam.ParDo(probe)  # Create and Map would bring functions
    try:
        result = pipeline.run()
        state = await_end(result)
        metrics = result.metrics().query(MetricsFilter().with_namespace(METRIC))
    except Exception as error:  # each runner has errors of its own
        raise PipelineFailed(explain(error)) from error
    # A worker that was lost has told it twice; any of them will do.
    told = [text for metric in metrics[MetricResults.STRINGSETS] for text in metric.result]
    if not told:
        raise PipelineFailed(f"the job ended as {state}, and the runner brought back nothing of what its worker said")
    answer: dict[str, Any] = json.loads(told[0])
    return answer


@contextmanager
def _left_in(folder: str, storage: StorageOptions) -> Iterator[str]:
    """The URL of a new file in `folder` that holds this URL; deleted in the end. Raises CappyError."""
    url = join(folder, f"cappy-doctor-{uuid.uuid4().hex}")
    write_whole(url, url.encode(), storage)
    try:
        yield url
    finally:
        fs, path = file_system(url, storage)
        with explained(url, "deleted"):
            fs.rm_file(path)


def _unanswered(url: str, storage: StorageOptions) -> str | None:
    if read_bytes(url, storage) == answered(url):
        return None
    return "what the worker writes there this machine does not see: it is not the same folder for both"


def _worker(told: Mapping[str, Any]) -> list[Finding]:
    """What the worker runs, beside what runs here."""
    ours, theirs, python = this_release(), Release(*told["cappy"]), platform.python_version()
    return [
        _like_here("cappy", str(theirs), str(ours), same=theirs == ours),
        _like_here("apache-beam", told["beam"], beam.__version__, same=told["beam"] == beam.__version__),
        _like_here("Python", told["python"], python, same=_minor(told["python"]) == _minor(python)),
        _torch(told["torch"]),
    ]


def _like_here(name: str, theirs: str, ours: str, *, same: bool) -> Finding:
    if same:
        return Finding(_SECTION, name, "ok", theirs, needed=True)
    remedy = "install here and where the workers run the same, and restart the workers; docs/runners.md has images"
    return Finding(_SECTION, name, "missing", f"the worker has {theirs}, this machine {ours}", remedy, needed=True)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _torch(found: Sequence[str] | None) -> Finding:
    if found is None:
        remedy = "install the extra `model` where the workers run"
        return Finding(_SECTION, "torch", "missing", "score and generate need it on the workers", remedy)
    version, *devices = found
    return Finding(_SECTION, "torch", "ok", f"{version}; {', '.join(devices) or 'no CUDA device'}")


def _needed(name: str, problem: str | None, detail: str = "") -> Finding:
    return check(_SECTION, name, problem, detail=detail, needed=True)
