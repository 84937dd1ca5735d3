"""The files of `deploy/`: versions that agree, paths that exist, templates that match the flags of the jobs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.transforms.environments import python_sdk_dependencies

from beam_pipelines.runners.options import beam_options

ROOT = Path(__file__).resolve().parents[1]
DATAFLOW, FLINK = ROOT / "deploy" / "dataflow", ROOT / "deploy" / "flink"
DOCKERFILES = sorted(DATAFLOW.glob("Dockerfile*"))
MANIFESTS = sorted(FLINK.rglob("*.yaml"))
sys.path.insert(0, str(DATAFLOW))  # scripts, not a package

import metadata  # noqa: E402
import submit  # noqa: E402
import template  # noqa: E402

FLINK_VERSION = "1.20"
PLACE = ["--project=p", "--region=r", "--bucket=gs://b/", "--image=i:1", "--max-workers=3"]


def beam_version() -> str:
    return re.search(r"^apache-beam==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]  # type: ignore[index]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def images(found: Any) -> list[str]:
    """Return every `image` in a document."""
    if isinstance(found, dict):
        return [v for k, v in found.items() if k == "image"] + [i for v in found.values() for i in images(v)]
    return [image for each in found for image in images(each)] if isinstance(found, list) else []


def instructions(path: Path, word: str) -> list[list[str]]:
    """Return the words of each instruction `word` of a Dockerfile."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    return [line.split()[1:] for line in lines if line.startswith(f"{word} ")]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_copied_files_exist(path: Path) -> None:
    values = dict(words[0].split("=", 1) for words in instructions(path, "ARG") if "=" in words[0])
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    for *sources, _ in instructions(path, "COPY"):
        if not sources[0].startswith("--from="):
            for source in sources:
                source = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], source)
                assert (ROOT / source).exists() and source.split("/")[0] not in ignored, source


def test_the_image_has_all_packages() -> None:
    copied = {source for *sources, _ in instructions(DATAFLOW / "Dockerfile", "COPY") for source in sources}
    assert {"setup.py", "constraints.txt", "README.md", "schemas", "cappy_model", "beam_pipelines"} <= copied


def test_images_have_the_tested_version_of_beam() -> None:
    assert f"ARG BEAM={beam_version()}\n" in (DATAFLOW / "Dockerfile").read_text()
    servers = [
        image for path in MANIFESTS for each in documents(path) for image in images(each) if "job_server" in image
    ]
    assert set(servers) == {f"apache/beam_flink{FLINK_VERSION}_job_server:{beam_version()}"} and len(servers) == 2


def test_flink_has_one_version() -> None:
    found = {image for path in MANIFESTS for each in documents(path) for image in images(each) if "flink:" in image}
    assert found == {f"flink:{FLINK_VERSION}-java17"}
    (session,) = documents(FLINK / "kubernetes" / "session.yaml")
    assert session["spec"]["flinkVersion"] == f"v{FLINK_VERSION.replace('.', '_')}"


def test_every_taskmanager_has_workers_in_its_own_network() -> None:
    (compose,) = documents(FLINK / "compose.yaml")
    services = compose["services"]
    managers = {name for name, each in services.items() if each.get("command") == "taskmanager"}
    pools = {each["network_mode"]: each for each in services.values() if each.get("command") == ["--worker_pool"]}
    assert set(pools) == {f"service:{name}" for name in managers} and len(managers) == 2
    (gpus,) = documents(FLINK / "compose.gpu.yaml")
    assert all(services[name]["command"] == ["--worker_pool"] for name in gpus["services"])
    for name in managers:
        assert "numberOfTaskSlots" in services[name]["environment"]["FLINK_PROPERTIES"]


@pytest.mark.parametrize("folder", ["kubernetes", "kubernetes-gpu"])
def test_patches_match_the_session(folder: str) -> None:
    (kustomization,) = documents(FLINK / folder / "kustomization.yaml")
    (session,) = documents(FLINK / "kubernetes" / "session.yaml")
    assert all((FLINK / folder / name).exists() for name in kustomization["resources"])
    for patch in kustomization["patches"]:
        assert patch["target"] == {"kind": session["kind"], "name": session["metadata"]["name"]}
        for step in yaml.safe_load(patch["patch"]):
            *way, last = [part.replace("~1", "/") for part in step["path"].split("/")[1:]]
            place: Any = session
            for part in way:
                place = place[int(part)] if isinstance(place, list) else place[part]
            assert step["op"] == "add" or last in place, step


SUBMITTED = ("kubernetes", "kubernetes-gpu")


def command_of(folder: str) -> list[str]:
    """Return the command of a job on Kubernetes."""
    (job,) = documents(FLINK / folder / "submit.yaml")
    command: list[str] = job["spec"]["template"]["spec"]["containers"][0]["command"]
    return command


@pytest.mark.parametrize("folder", SUBMITTED)
def test_endpoints_are_those_of_the_job_server(folder: str) -> None:
    deployment, service = documents(FLINK / "kubernetes" / "jobserver.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]
    command = command_of(folder)
    for port in service["spec"]["ports"]:
        name = "job_endpoint" if port["name"] == "jobs" else "artifact_endpoint"
        assert f"--{name}={service['metadata']['name']}:{port['port']}" in command


@pytest.mark.parametrize("folder", SUBMITTED)
def test_a_job_on_kubernetes_stages_nothing(folder: str) -> None:
    """Workers fetch staged files from their TaskManager, which does not see the disk of the job server."""
    flags = command_of(folder)
    beams = flags[flags.index("--runner=PortableRunner") :]
    assert not python_sdk_dependencies(beam_options(beams, local_mode="multi_processing"))


def test_each_slot_of_a_corpus_job_has_a_process_and_each_gpu_one() -> None:
    (session,) = documents(FLINK / "kubernetes" / "session.yaml")
    slots = session["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    assert f"--sdk_worker_parallelism={slots}" in command_of("kubernetes")
    assert not any(flag.startswith("--sdk_worker_parallelism") for flag in command_of("kubernetes-gpu"))


@pytest.mark.parametrize("folder", SUBMITTED)
def test_flags_on_kubernetes_exist(folder: str) -> None:
    _, job, *flags = command_of(folder)
    known = {parameter["name"] for parameter in json.loads(metadata.text(job))["parameters"]}
    own = flags[: flags.index("--runner=PortableRunner")]
    assert {flag.split("=")[0].removeprefix("--").replace("-", "_") for flag in own} <= known


def test_the_image_with_torch_can_train() -> None:
    assert "'.[train]'" in (DATAFLOW / "Dockerfile.gpu").read_text()


def test_compose_shares_what_jobs_stage_with_taskmanagers() -> None:
    (compose,) = documents(FLINK / "compose.yaml")
    readers = [each for name, each in compose["services"].items() if name.startswith(("taskmanager", "jobserver"))]
    assert len(readers) == 3 and all("artifacts:/tmp/beam-artifact-staging" in each["volumes"] for each in readers)


def test_restarts_wait_until_a_dead_worker_has_left_the_cache() -> None:
    (compose,) = documents(FLINK / "compose.yaml")
    (session,) = documents(FLINK / "kubernetes" / "session.yaml")
    command = command_of("kubernetes")
    (cached,) = [int(flag.split("=")[1]) for flag in command if flag.startswith("--environment_cache_millis=")]
    properties = yaml.safe_load(compose["services"]["jobmanager"]["environment"]["FLINK_PROPERTIES"])
    for settings in (properties, session["spec"]["flinkConfiguration"]):
        assert int(settings["restart-strategy.fixed-delay.delay"].removesuffix(" s")) * 1000 > cached


@pytest.mark.parametrize("job", submit.PIPELINES)
def test_templates_are_current(job: str) -> None:
    written = (DATAFLOW / "templates" / f"{job}.json").read_text()
    assert written == metadata.text(job), "update the files: python deploy/dataflow/metadata.py"
    for parameter in json.loads(written)["parameters"]:
        assert re.fullmatch("[a-z][a-z_]*", parameter["name"]) and parameter["helpText"]


def test_every_pipeline_has_a_template() -> None:
    assert {path.stem for path in (DATAFLOW / "templates").iterdir()} == set(submit.PIPELINES)
    assert set(submit.PIPELINES) == {"build-corpus", "generate", "score", "rerank", "evaluate"}


def test_parameters_become_flags() -> None:
    given = ["--mixture=gs://b/m.yaml", "--max_reject_rate=0.5", "--overwrite=true", "--instructions_only=false"]
    beams = ["--runner=DataflowRunner", "--template_location=gs://b/job_object"]
    found = template.arguments("build-corpus", [*given, *beams])
    assert found == ["--mixture=gs://b/m.yaml", "--max-reject-rate=0.5", "--overwrite", *beams]
    with pytest.raises(template.UsageError, match="overwrite=1: must be true or false"):
        template.arguments("build-corpus", ["--overwrite=1"])


def test_template_runs_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(template, "cappy", lambda arguments: started.append(arguments) or 0)
    monkeypatch.setenv("CAPPY_JOB", "score")
    monkeypatch.setenv("CAPPY_IMAGE", "gpu:1")
    assert template.main(["--output=gs://b/o", "--device=cuda", "--accelerator=type:t;count:1", "--job_name=n"]) == 0
    (flags,) = started
    assert flags[0] == "score" and {"--sdk_container_image=gpu:1", "--accelerator=type:t;count:1"} <= set(flags)
    assert flags[-1] == "--job_name=n"
    with pytest.raises(SystemExit, match="needs --accelerator"):
        template.main(["--output=gs://b/o", "--device=cuda"])


ONE_PROCESS = ["--experiments=no_use_multiple_sdk_containers", "--number_of_worker_harness_threads=4"]


@pytest.mark.parametrize(
    ("job", "flags", "model"),
    [
        ("build-corpus", [], False),
        ("evaluate", [], False),
        ("rerank", [], False),
        ("rerank", ["--model=m"], True),
        ("score", ["--model", "m"], True),
        ("generate", ["--model=m"], True),
        ("generate", ["--model=m", "--engine=openai"], False),
    ],
)
def test_a_machine_holds_one_model(job: str, flags: list[str], model: bool) -> None:
    found = submit.command([job, *PLACE, "--output=gs://b/o", *flags])
    assert (set(ONE_PROCESS) <= set(found)) is model
    assert found[0] == job and found[-len(flags) :] == flags if flags else True
    assert {"--runner=DataflowRunner", "--temp_location=gs://b/temp", "--max_num_workers=3"} <= set(found)
    assert not any("worker_accelerator" in flag for flag in found)


def test_the_same_output_has_the_same_job_name() -> None:
    names = [submit.job_name("score", output) for output in ("gs://b/o", "gs://b/o", "gs://b/p")]
    assert names[0] == names[1] != names[2] and re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", names[0])


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", *PLACE, "--output=gs://b/o", "--device=cuda"],
        ["score", *PLACE],
        ["train", *PLACE, "--output=gs://b/o"],
        ["rerank", *PLACE[:2], "--bucket=b", *PLACE[3:], "--output=gs://b/o"],
    ],
    ids=["no accelerator", "no output", "no pipeline", "no bucket"],
)
def test_errors_before_submission(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        submit.command(arguments)
    assert caught.value.code == 2 and "error:" in capsys.readouterr().err


def test_added_flags_are_known_to_beam() -> None:
    arguments = submit.command(["score", *PLACE, "--output=gs://b/o"])
    beams = [flag for flag in arguments[1:] if not flag.startswith(("--output", "--staging", "--temp", "--runner"))]
    beam_options([*beams, "--runner=FlinkRunner"], local_mode="multi_threading")


def test_build_script_without_arguments() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    assert subprocess.run([bash, str(DATAFLOW / "build.sh")], capture_output=True).returncode == 2


def test_build_script_builds_a_template_for_every_pipeline(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("docker", "gcloud"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\ncat > /dev/null\n')
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(DATAFLOW / "build.sh"), "R", "1", "gs://b/t", "--build-arg", "MODEL=m"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    assert [line for line in lines if "MODEL=m" in line] == [
        "docker build --file deploy/dataflow/Dockerfile.gpu --build-arg CORPUS=R/cappy:1 --build-arg MODEL=m "
        "--tag R/cappy-gpu:1 ."
    ]
    launchers = {
        (line.split("IMAGE=")[1].split()[0], line.split("JOB=")[1].split()[0]) for line in lines if "JOB=" in line
    }
    assert launchers == {
        ("R/cappy:1", "build-corpus"),
        ("R/cappy-gpu:1", "generate"),
        ("R/cappy-gpu:1", "score"),
        ("R/cappy:1", "rerank"),
        ("R/cappy:1", "evaluate"),
    }
    assert sum(line.startswith("gcloud dataflow flex-template build gs://b/t/") for line in lines) == len(launchers)
