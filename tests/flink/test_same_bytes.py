"""Every job on a Flink cluster: the bytes of the in-process runner, whatever the parallelism."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import data_bytes, sentence
from tests.end_to_end.inputs import ONE_PROCESS, PORTABLE, TWO_PROCESSES
from tests.flink.conftest import corpus_of, run
from tools import flink

pytestmark = [pytest.mark.flink, pytest.mark.slow]


def test_corpus(cluster: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    corpus_of(corpus, tmp_path / "one", ONE_PROCESS)
    expected = data_bytes(tmp_path / "one")
    assert expected
    runs = {
        "two": TWO_PROCESSES,
        "portable": PORTABLE,
        "flink-1": flink.flags(cluster, parallelism=1),
        "flink-4": flink.flags(cluster, parallelism=4),
    }
    for name, flags in runs.items():
        corpus_of(corpus, tmp_path / name, flags)
        assert data_bytes(tmp_path / name) == expected, name


def test_score_and_rerank(cluster: dict[str, Any], tmp_path: Path) -> None:
    model, rows = save_tiny_scorer(tmp_path / "model"), tmp_path / "rows"
    rows.mkdir()
    for file in range(4):
        numbers = range(file * 50, file * 50 + 50)
        found = [{"instruction": sentence(i // 4, 6), "response": sentence(i, 1 + i % 9)} for i in numbers]
        pq.write_table(pa.Table.from_pylist(found), rows / f"{file}.parquet")
    settled = ["--model", model, "--device=cpu", "--dtype=float32", "--tokens-per-batch=1024"]
    for name, flags in {"here": ONE_PROCESS, "flink": flink.flags(cluster, parallelism=4)}.items():
        scored = run("score", "--input", rows / "*.parquet", "--output", tmp_path / name / "scored", *settled, *flags)
        assert scored.returncode == 0, scored.stderr
        best = run("rerank", "--input", tmp_path / name / "scored/part-*", "--output", tmp_path / name / "best", *flags)
        assert best.returncode == 0, best.stderr
    assert data_bytes(tmp_path / "here") == data_bytes(tmp_path / "flink") != {}
