"""Every job as submitted to Dataflow: hints, images, sizes, and nothing of the submitting machine."""

import gzip
import io
import json
import os
import re
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam import coders
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.transforms.environments import python_sdk_dependencies

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.units import Unit, list_reads, read_units
from beam_pipelines.jobs.build_corpus import BuildCorpusConfig
from beam_pipelines.jobs.build_corpus import job as build_corpus
from beam_pipelines.jobs.rerank import RerankConfig
from beam_pipelines.jobs.rerank import job as rerank
from beam_pipelines.jobs.score import ScoreConfig
from beam_pipelines.jobs.score import job as score
from beam_pipelines.runners.options import Placement
from beam_pipelines.runs.finish import FinishRun
from schemas.chunks import CHUNK_BYTES, CHUNK_ROWS
from tests.beam_pipelines.runners.dataflow_jobs import (
    ACCELERATOR,
    COMMANDS,
    COMPUTING,
    DATAFLOW,
    GPU,
    IMAGE,
    fill_with_models,
    fill_with_rows,
    hints,
    payloads,
    submitted,
    translated,
)
from tests.conftest import cappy
from tests.store import Store

REQUEST_LIMIT = 10 * 10**6
"""Maximum bytes of a job's graph on Dataflow."""
REMOTE = Placement(local=False, one_process=False)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the files of `store://bucket`."""
    fill_with_rows()
    fill_with_models(tmp_path_factory.mktemp("models"))
    return dict(Store.store)


@pytest.fixture(autouse=True)
def bucket(filled: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore `store://bucket` for each test, and make no request to Google about buckets."""
    monkeypatch.setattr(Store, "store", dict(filled))
    monkeypatch.setenv("CAPPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda self, name: None)


@pytest.mark.parametrize("job", COMPUTING)
def test_the_accelerator_is_where_units_are_done_and_nowhere_else(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = translated(*submitted(monkeypatch, job, *DATAFLOW, f"--accelerator={ACCELERATOR}"))
    found = hints(proto)
    assert all(each == {"accelerator": ACCELERATOR.encode()} for each in found.values())
    stage = f"{job.capitalize()}Units"
    assert all(name.startswith(f"{stage}/ComputeMissing/") for name in found)
    assert {name.split("/")[2] for name in found} == {"SkipFinished", "Compute", "WriteUnits", "AllStats"}
    assert any("RunInference" in name for name in found)
    assert not hints(translated(*submitted(monkeypatch, job, *DATAFLOW)))


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        ("build-corpus", {"WritePairs/"}),
        ("rerank", {"SelectAndWrite/"}),
        ("evaluate", {"EvaluateShards/", "Conclude/"}),
    ],
)
def test_what_holds_a_shard_asks_for_its_memory(job: str, steps: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = hints(translated(*submitted(monkeypatch, job, *DATAFLOW)))
    assert all(any(name.startswith(step) for step in steps) for name in found)
    assert all(any(name.startswith(step) for name in found) for step in steps)
    assert {int(each["min_ram_bytes"]) for each in found.values()} == {4 * (600 + 5 * 64) * 2**20}


def test_larger_shards_ask_for_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = rerank.plan(RerankConfig(input="store://bucket/in/rows/*", output="store://bucket/out"), REMOTE)
    large = replace(planned, inputs=(replace(planned.inputs[0], bytes=10**12),), shards=2_000)

    def build(root: beam.Pipeline) -> None:
        rerank.build(root, large, FinishRun(large.output, dict, rerank.CARD, 0.0))

    _, options = submitted(monkeypatch, "rerank", *DATAFLOW)
    (memory,) = {each["min_ram_bytes"] for each in hints(translated(build, options)).values()}
    assert int(memory) == 4 * (600 * 2**20 + 5 * 500_000_000)


@pytest.mark.parametrize("job", COMMANDS)
def test_every_step_runs_in_the_image(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = translated(*submitted(monkeypatch, job, *DATAFLOW))
    for environment in proto.components.environments.values():
        assert environment.urn == "beam:env:docker:v1" and IMAGE.encode() in environment.payload


def test_nothing_is_staged_but_a_list_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    _, options = submitted(monkeypatch, "rerank", *DATAFLOW)
    staged = [beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(a.role_payload).staged_name
              for a in python_sdk_dependencies(options)]  # fmt: skip
    assert staged == ["submission_environment_dependencies.txt"]


@pytest.mark.parametrize("job", COMMANDS)
def test_nothing_refers_to_this_machine(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = translated(*submitted(monkeypatch, job, *DATAFLOW))
    places = {str(tmp_path), os.getcwd(), str(Path.home()), sys.prefix, str(Path(beam.__file__).parents[1])}
    seen = 0
    for step, payload in payloads(proto):
        seen += payload.count(b"store://bucket/")
        for place in places:
            for mention in re.findall(re.escape(place.encode()) + rb"[\w./-]*", payload):
                # A function that is pickled by value names its source for tracebacks.
                assert mention.endswith(b".py"), (step, mention)
    assert seen


@pytest.mark.parametrize("job", ["build-corpus", "rerank", "score"])
def test_thousands_of_files_fit_into_a_request(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are listed by workers, so a job grows by an entry for each file, and compressed ones at that."""
    _, options = submitted(monkeypatch, job, *DATAFLOW)
    jobs = [translated(_many(job, count), options) for count in (1_000, 2_000)]
    sizes = [len(proto.SerializeToString()) for proto in jobs]
    each = (sizes[1] - sizes[0]) / 1_000
    print(f"{job}: {sizes[1]:,} bytes for 2,000 files, {each:.0f} for each")
    assert each < 250 and sizes[1] < REQUEST_LIMIT / 10
    # The most that one step carries are the elements of the Create of the files.
    assert max(len(step.spec.payload) for step in jobs[1].components.transforms.values()) < REQUEST_LIMIT / 100


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz"])
def test_an_element_is_a_unit_of_16_mb(ending: str) -> None:
    """A unit ends with the row that reaches 16 MB, and is no larger when encoded between workers."""
    row = 100_000
    texts = pa.table({"t": [f"{i:03d}".ljust(row, ".") for i in range(400)]})
    sink = io.BytesIO()
    if ending == "parquet":
        pq.write_table(texts, sink)
    else:
        sink.write(b"".join(json.dumps(each).encode() + b"\n" for each in texts.to_pylist()))
    data = gzip.compress(sink.getvalue(), 1) if ending.endswith("gz") else sink.getvalue()
    Store().pipe_file(f"/bucket/large/rows.{ending}", data)
    source = open_input([f"store://bucket/large/*.{ending}"], {})
    spec, coder = ReadSpec(source.schema, CHUNK_ROWS), coders.registry.get_coder(Unit)
    (file,) = source.files
    sizes = [len(coder.encode(unit)) for read in list_reads(file, spec) for unit in read_units(read, spec)]
    assert len(sizes) == 3 and max(sizes) < CHUNK_BYTES + row + 10_000


def _many(job: str, count: int) -> Any:
    """Return the function that builds a job over `count` files, each with a hash of its own."""
    files: dict[str, Any] = {"output": "store://bucket/out", "input": "store://bucket/in/rows/*"}

    def more(found: Any) -> Any:
        name = "some/folder/of/generated/candidates-{0:05d}-of-02000.parquet"
        one = found.files[0]
        copies = (
            replace(one, number=i, name=name.format(i), url=f"gs://bucket/{name.format(i)}", ends=secrets.token_hex(16))
            for i in range(count)
        )
        return replace(found, files=tuple(copies))

    if job == "build-corpus":
        mixture = COMMANDS[job][0].split("=")[1]
        corpus = build_corpus.plan(BuildCorpusConfig(mixture=mixture, output=files["output"]), REMOTE)
        (dataset,) = corpus.datasets
        return _builder(build_corpus, replace(corpus, datasets=(replace(dataset, input=more(dataset.input)),)))
    if job == "rerank":
        chosen = rerank.plan(RerankConfig(**files), REMOTE)
        return _builder(rerank, replace(chosen, inputs=(more(chosen.inputs[0]),)))
    config = ScoreConfig(
        **files,
        model="store://bucket/scorer",
        score_column="s",
        device="cuda",
        dtype="bfloat16",
        tokens_per_batch=8192,
    )
    scored = score.plan(config, REMOTE)
    return _builder(score, replace(scored, inputs=(more(scored.inputs[0]),)))


def _builder(job: Any, plan: Any) -> Any:
    """Return the function that builds the pipeline of a job's module for its plan."""
    finish = FinishRun(plan.output, job.JOB.manifest(plan, job.fingerprint_inputs(plan)), job.JOB.card, 0)
    return lambda root: job.build(root, plan, finish)


def test_the_fingerprint_does_not_know_of_hints() -> None:
    config = ScoreConfig(
        input="store://bucket/in/rows/*", output="store://bucket/out", model="store://bucket/scorer",
        score_column="s", device="cuda", dtype="bfloat16", tokens_per_batch=8192,
    )  # fmt: skip
    plain, hinted = (score.plan(each, REMOTE) for each in (config, replace(config, accelerator=ACCELERATOR)))
    assert score.fingerprint_inputs(plain) == score.fingerprint_inputs(hinted)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--accelerator=nvidia-l4", *GPU), "must be type:T;count:N"),
        (
            (f"--accelerator={ACCELERATOR}", "--device=cpu", "--dtype=float32", "--tokens-per-batch=9"),
            "nothing would use the GPU",
        ),
    ],
)
def test_accelerators_that_cannot_be(flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("score", *COMMANDS["score"][:3], "--output=store://bucket/out", *DATAFLOW, *flags) == 2
    assert message in capsys.readouterr().err


def test_files_of_this_machine_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("rerank", *COMMANDS["rerank"], f"--output={tmp_path}/out", *DATAFLOW) == 2
    assert "is on this machine, where Dataflow's workers are not" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_flag_that_dataflow_needs_is_missed_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("rerank", "--input=store://none", "--output=store://o", *DATAFLOW[:1], *DATAFLOW[2:]) == 2
    assert "Missing required option: project" in capsys.readouterr().err


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the files sent to Google's storage. Nothing is sent, and no credentials are used."""
    reason = "the extra `gcp` is not installed, which DataflowRunner needs for its requests"
    apiclient = pytest.importorskip(
        "apache_beam.runners.dataflow.internal.apiclient", reason=reason, exc_type=ImportError
    )
    sent: dict[str, bytes] = {}

    def stage_file(self: object, folder: str, name: str, stream: Any, *rest: object, **more: object) -> None:
        sent[f"{folder}/{name}"] = stream.read()

    monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file", stage_file)
    return sent


@pytest.mark.parametrize("job", COMMANDS)
def test_dataflows_own_job_file(job: str, uploads: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    template = "--template_location=gs://some-bucket/templates/job"
    hint = [f"--accelerator={ACCELERATOR}"] if job in COMPUTING else []
    threads = ("--experiments=no_use_multiple_sdk_containers", "--number_of_worker_harness_threads=4")
    output = "--output=store://bucket/out"
    assert cappy(job, *COMMANDS[job], output, *DATAFLOW, *threads, *hint, template, "--no_auth") == 0
    assert "the same command without --template_location finds it finished" in capsys.readouterr().out
    request = json.loads(uploads["gs://some-bucket/templates/job"])
    (pool,) = request["environment"]["workerPools"]
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert pool["numThreadsPerWorker"] == 4
    assert "no_use_multiple_sdk_containers" in request["environment"]["experiments"]
    (graph,) = (content for name, content in uploads.items() if name.endswith("/pipeline.pb"))
    proto = beam_runner_api_pb2.Pipeline.FromString(graph)
    kinds = {kind for each in hints(proto).values() for kind in each}
    assert kinds == ({"accelerator"} if job in COMPUTING else {"min_ram_bytes"})
    assert Store().exists("/bucket/out/run.json")


def test_dataflow_is_known_by_any_of_its_names() -> None:
    from beam_pipelines.runners.options import beam_options, is_dataflow

    for name in ("DataflowRunner", "dataflow", f"{DataflowRunner.__module__}.DataflowRunner"):
        assert is_dataflow(beam_options([f"--runner={name}", *DATAFLOW[1:]], local_mode="multi_processing"))
    assert not is_dataflow(beam_options([], local_mode="multi_processing"))
