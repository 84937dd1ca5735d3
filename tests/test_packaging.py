"""`--setup_file` stages the sdist on workers: it must contain all files, and install without torch."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.environments import python_sdk_dependencies

from beam_pipelines.runners.options import beam_options

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names of the files of the sdist, below its folder."""
    folder = tmp_path_factory.mktemp("sdist")
    command = ["setup.py", "--quiet", "egg_info", "--egg-base", str(folder), "sdist", "--dist-dir", str(folder)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (archive,) = folder.glob("*.tar.gz")
    return names_in(archive)


def names_in(archive: Path) -> list[str]:
    """Return the names of the files of an sdist, below its folder."""
    with tarfile.open(archive) as content:
        return [name.split("/", 1)[1] for name in content.getnames() if "/" in name]


def test_the_sdist_has_every_file_of_the_packages(sdist: list[str]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "schemas", "cappy_model", "beam_pipelines", "setup.py", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("not a git checkout: no list of files to compare with")
    assert len(tracked.stdout.split()) > 50
    assert set(tracked.stdout.split()) - set(sdist) == set()


@pytest.mark.slow
def test_beam_stages_every_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses a copy, since Beam builds in the folder of setup.py."""
    packages = ("schemas", "cappy_model", "beam_pipelines")
    for name in packages:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    options = beam_options(["--runner=PortableRunner", "--setup_file=./setup.py"], local_mode="multi_processing")
    staged = {
        beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload).staged_name:
        beam_runner_api_pb2.ArtifactFilePayload.FromString(artifact.type_payload).path
        for artifact in python_sdk_dependencies(options)
    }  # fmt: skip
    found = set(names_in(Path(staged["workflow.tar.gz"])))
    assert {str(file.relative_to(tmp_path)) for name in packages for file in (tmp_path / name).rglob("*.py")} <= found


def test_the_base_install_needs_no_torch() -> None:
    setup = (ROOT / "setup.py").read_text()
    base = setup[setup.index("BASE = [") : setup.index("TEST = [")]
    assert "torch" not in base
    assert "transformers" not in base


def test_the_constraints_pin_the_requirements() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    names = {"apache-beam", "torch", "transformers", "pyarrow", "rouge-score", "fsspec", "jinja2", "pydantic", "s3fs"}
    assert not {name for name in names if name not in {pin.replace("_", "-") for pin in pins}}
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()
