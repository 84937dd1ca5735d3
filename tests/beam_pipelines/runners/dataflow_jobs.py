"""The jobs as they are submitted to Dataflow, over small inputs at URLs; and what their portable pipelines hold."""

import base64
import bz2
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.environments import DockerEnvironment

from beam_pipelines.runners import pipeline_job
from schemas.errors import HandedOver
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import cappy, template
from tests.store import Store

IMAGE = "registry.example/cappy:1"
ACCELERATOR = "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"
GPU = ("--device=cuda", "--dtype=bfloat16", "--tokens-per-batch=8192")
DATAFLOW = (
    "--runner=DataflowRunner",
    "--project=some-project",
    "--region=europe-west4",
    "--staging_location=gs://some-bucket/staging",
    "--temp_location=gs://some-bucket/temp",
    f"--sdk_container_image={IMAGE}",
    "--sdk_location=container",
)
ROWS = [
    {
        "instruction_id": str(i // 3),
        "instruction": f"Task {i // 3}",
        "response": f"response {i}",
        "references": ["response 1"],
        "generator": "some-model",
        "decoding": "sampling",
        "sample_index": i % 3,
        "score": i / 7,
    }
    for i in range(30)
]

Build = Callable[[beam.Pipeline], None]


def fill(folder: str, files: Mapping[str, bytes]) -> None:
    """Write files below a folder of `store://`."""
    for name, content in files.items():
        Store().pipe_file(f"{folder}/{name}", content)


def fill_with_rows() -> None:
    """Write the inputs of the jobs: rows, and a mixture with its templates."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    templates = {"dataset": "tasks", "templates": {"t": template("t", "t", "{{ instruction }}|||{{ response }}")}}
    mixture = {"templates": "templates", "datasets": [{"name": "tasks", "paths": "rows/*.parquet"}]}
    fill("/bucket/in/rows", {"a.parquet": sink.getvalue(), "b.parquet": sink.getvalue()})
    fill("/bucket/in", {"mixture.yaml": yaml.safe_dump(mixture).encode()})
    fill("/bucket/in/templates/tasks", {"templates.yaml": yaml.safe_dump(templates).encode()})


def fill_with_models(tmp_path: Path) -> None:
    """Write the models of the jobs that have one, built in a local folder."""
    for name, save in (("scorer", save_tiny_scorer), ("generator", save_tiny_generator)):
        folder = save(tmp_path / name)
        fill(f"/bucket/{name}", {path.name: path.read_bytes() for path in folder.iterdir()})


COMMANDS: dict[str, tuple[str, ...]] = {
    "build-corpus": ("--mixture=store://bucket/in/mixture.yaml", "--candidates=store://bucket/in/rows/a.parquet"),
    "generate": ("--input=store://bucket/in/rows/*", "--model=store://bucket/generator", *GPU),
    "score": ("--input=store://bucket/in/rows/*", "--model=store://bucket/scorer", "--score-column=s", *GPU),
    "rerank": ("--input=store://bucket/in/rows/*",),
    "evaluate": ("--input=store://bucket/in/rows/*",),
}
COMPUTING = ("generate", "score")


def submitted(monkeypatch: pytest.MonkeyPatch, job: str, *flags: str) -> tuple[Build, PipelineOptions]:
    """Return the pipeline that `cappy JOB` would have run, and its options."""
    found: list[tuple[Build, PipelineOptions]] = []

    def execute(build: Build, options: PipelineOptions, progress: object, *, module: str) -> None:
        found.append((build, options))
        raise HandedOver("not run")

    monkeypatch.setattr(pipeline_job, "execute", execute)
    assert cappy(job, *COMMANDS[job], "--output=store://bucket/out", *flags) == 0
    return found[0]


def translated(build: Build, options: PipelineOptions) -> Any:
    """Return the portable pipeline, in the environment that DataflowRunner gives it."""
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    image = options.view_as(WorkerOptions).sdk_container_image
    return pipeline.to_runner_api(default_environment=DockerEnvironment.from_container_image(image))


def hints(proto: Any) -> dict[str, dict[str, bytes]]:
    """Return the hints of the steps that have any, by the step's name; composites are left out."""
    environments = proto.components.environments
    return {
        step.unique_name: found
        for step in proto.components.transforms.values()
        if not step.subtransforms and step.environment_id
        if (
            found := {
                urn.split(":")[2]: value for urn, value in environments[step.environment_id].resource_hints.items()
            }
        )
    }


def payloads(proto: Any) -> Iterator[tuple[str, bytes]]:
    """Yield the payloads of the steps of a pipeline, pickled ones unpacked (Beam compresses them)."""
    for step in proto.components.transforms.values():
        payload = step.spec.payload
        if step.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(payload).do_fn.payload
        yield step.unique_name, bz2.decompress(base64.b64decode(payload)) if payload.startswith(b"Qlpo") else payload
