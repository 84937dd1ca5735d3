"""Outputs in the memory of the launcher: good for a job in one process, refused where workers are elsewhere."""

from pathlib import Path

import fsspec
import pytest

from beam_pipelines.jobs import rerank
from beam_pipelines.runners.options import beam_options
from schemas.errors import UsageError
from tests.conftest import cappy
from tests.end_to_end.inputs import ONE_PROCESS, PORTABLE, TWO_PROCESSES, TWO_THREADS, json_lines, said


@pytest.fixture
def config(tmp_path: Path) -> rerank.RerankConfig:
    (tmp_path / "in.jsonl").write_bytes(json_lines({"instruction": "i", "response": "r", "score": 0.5}))
    return rerank.RerankConfig(input=str(tmp_path / "in.jsonl"), output=f"memory:/{tmp_path}/out")


@pytest.mark.parametrize("flags", [ONE_PROCESS, TWO_THREADS], ids=lambda flags: flags[-1])
def test_one_process_writes_to_its_memory(flags: list[str], config: rerank.RerankConfig) -> None:
    manifest = rerank.run(config, beam_options(flags, local_mode="multi_processing")).manifest
    fs, path = fsspec.url_to_fs(config.output)
    assert manifest["totals"]["selected"] == 1
    assert fs.exists(f"{path}/{manifest['files'][0]['path']}") and fs.exists(f"{path}/report.html")


@pytest.mark.parametrize("flags", [TWO_PROCESSES, PORTABLE], ids=lambda flags: flags[0])
def test_workers_elsewhere_do_not_share_it(flags: list[str], config: rerank.RerankConfig) -> None:
    with pytest.raises(UsageError, match=rf"^{config.output}: is in the memory of this process, which the job's work"):
        rerank.run(config, beam_options(flags, local_mode="multi_processing"))


def test_the_command_writes_to_no_memory(config: rerank.RerankConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("rerank", "--input", config.input, "--output", config.output, *ONE_PROCESS) == 2
    assert "would be gone when the command ends; give a place on a disk or an object store" in said(capsys)
