"""A runner as the jobs will find it: a probe goes to a worker, and what it finds there comes back."""

import json
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
from beam_pipelines.io.storage import StorageOptions, absolute, explained, file_system, join, read_bytes, write_whole
from beam_pipelines.runners.cluster import await_end, cancel, check_reachable, name_job
from beam_pipelines.runners.local import PipelineFailed, explain
from beam_pipelines.runs.release import Release, this_release
from schemas.errors import CappyError

_SECTION = "Cluster"
_SILENT = (
    "no worker has answered within {} s, and the job is {}: perhaps no slot is free, or the workers cannot start, as "
    "where Beam is missing; the logs of the cluster and of its workers say. Look whether the job has ended there, and "
    "give the worker longer with --wait"
)


def check_cluster(
    options: PipelineOptions,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    storage: StorageOptions,
    seconds: int,
) -> list[Finding]:
    """Whether the runner that `options` name answers, what a worker of it is, and what files that worker reaches.

    `inputs` are patterns of files to be read, `outputs` folders to be written to: this machine writes a file of a
    random name there, the worker answers in it, this machine reads the answer and deletes it. The worker has `seconds`.
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
            asked = {"inputs": inputs, "outputs": list(left), "storage": dict(storage)}
            told = _ask(json.dumps(asked), options, seconds)
        except CappyError as error:
            return [_needed("round trip", str(error)), *found]
        took = time.monotonic() - started
        found += [_needed(f"input {url}", told["files"][url], "the worker reads it") for url in inputs]
        for url, folder in left.items():
            problem = told["files"][url] or _unanswered(url, storage)
            found.append(_needed(f"output {folder}", problem, "the worker writes there, and this machine sees it"))
    return [_needed("round trip", None, f"{took:.1f} s, through a worker on {told['host']}"), *_worker(told), *found]


def _ask(asked: str, options: PipelineOptions, seconds: int) -> dict[str, Any]:
    """What a worker tells. Raises PipelineFailed."""
    name_job(options, "doctor", uuid.uuid4().hex)
    pipeline = beam.Pipeline(options=options)
    # Text, for a worker can always take it in. A function of a module that it lacks breaks it before it is connected:
    # Flink waits three minutes for that, and then starts it again, as often as it is told to.
    _ = pipeline | "Ask" >> beam.Create([_source(asked)]) | "Probe" >> beam.Map(exec, {})
    try:
        result = pipeline.run()
        state = await_end(result, options, seconds)
        if not PipelineState.is_terminal(state):
            cancel(result, options)
            raise PipelineFailed(_SILENT.format(seconds, state))
        metrics = result.metrics().query(MetricsFilter().with_namespace(probe.METRIC))
    except Exception as error:  # each runner has errors of its own
        raise PipelineFailed(explain(error, options)) from error
    # A worker that was lost may have told it before; any of them will do.
    told = [text for metric in metrics[MetricResults.STRINGSETS] for text in metric.result]
    if not told:
        raise PipelineFailed(f"the job ended as {state}, and the runner brought back nothing of what its worker said")
    answer: dict[str, Any] = json.loads(told[0])
    return answer


def _source(asked: str) -> str:
    """The probe as text, with its call."""
    return f"{Path(probe.__file__).read_text()}\nreport({asked!r})\n"


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
    if read_bytes(url, storage) == probe.answered(url).encode():
        return None
    return "what the worker writes there this machine does not see: it is not the same folder for both"


def _worker(told: Mapping[str, Any]) -> list[Finding]:
    """What the worker runs, beside what runs here."""
    ours, theirs = this_release(), Release(*told["cappy"]) if told["cappy"] else "no cappy"
    python = platform.python_version()
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
