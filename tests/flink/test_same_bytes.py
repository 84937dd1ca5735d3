"""Every job on every runner that is here: the bytes of the in-process runner, whatever the parallelism."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from beam_pipelines.doctor.runners import prism_binary
from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import build, cappy, data_bytes
from tests.end_to_end.inputs import ONE_PROCESS, PORTABLE, TWO_PROCESSES
from tests.end_to_end.test_generate import some_rows, table
from tests.flink.conftest import CPU
from tools import flink

pytestmark = [pytest.mark.flink, pytest.mark.slow]


def test_corpus(cluster: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "one") == 0
    expected = data_bytes(tmp_path / "one")
    assert expected
    runs = {
        "two": TWO_PROCESSES,
        "portable": PORTABLE,
        "flink-1": flink.flags(cluster, parallelism=1),
        "flink-4": flink.flags(cluster, parallelism=4),
    }
    prism = prism_binary()
    if prism:
        runs["prism"] = ["--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    for name, flags in runs.items():
        assert cappy("build-corpus", "--mixture", corpus, "--output", tmp_path / name, *flags) == 0, name
        assert data_bytes(tmp_path / name) == expected, name


def test_from_instructions_to_metrics(cluster: dict[str, Any], tmp_path: Path) -> None:
    """generate, score, rerank and evaluate, each on what the one before has written."""
    for file in range(2):
        pq.write_table(table(some_rows(20, file * 20)), tmp_path / f"{file}.parquet")
    lm, scorer = save_tiny_generator(tmp_path / "lm"), save_tiny_scorer(tmp_path / "scorer")

    def jobs(root: Path) -> list[list[object]]:
        drawn, scored = root / "candidates", root / "scored"
        few = ["--max-new-tokens=12", "--unit-rows=7"]
        return [
            ["generate", "--input", tmp_path / "?.parquet", "--output", drawn, "--model", lm, *CPU, *few],
            ["score", "--input", drawn / "candidates" / "*.parquet", "--output", scored, "--model", scorer, *CPU],
            ["rerank", "--input", scored / "rows" / "*.parquet", "--output", root / "best"],
            ["evaluate", "--input", scored / "rows" / "*.parquet", "--output", root / "metrics"],
        ]

    for job in jobs(tmp_path / "here"):
        assert cappy(*job, *ONE_PROCESS) == 0
    for job in jobs(tmp_path / "flink"):
        assert cappy(*job, *flink.flags(cluster, parallelism=4)) == 0
    expected = data_bytes(tmp_path / "here")
    assert {path.split("/")[0] for path in expected} == {"candidates", "scored", "best", "metrics"}
    assert data_bytes(tmp_path / "flink") == expected
