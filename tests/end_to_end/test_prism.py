"""build-corpus, score and rerank on Prism: the same bytes as on the in-process runner.

`make prism` builds the binary; without it the tests are skipped.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from beam_pipelines.doctor.runners import prism_binary
from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import data_bytes, sentence
from tests.end_to_end.inputs import ONE_PROCESS, parquet

SECONDS = 240

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(prism_binary() is None, reason="needs the prism binary; `make prism` builds it"),
]


def run(job: str, *arguments: object, on_prism: bool) -> None:
    """Run a job in its own process, on Prism or on the in-process runner; fail unless it succeeds."""
    flags = ["--runner=PrismRunner", f"--prism_location={prism_binary()}"] if on_prism else ONE_PROCESS
    command = [sys.executable, "-m", "beam_pipelines.program", job, *map(str, arguments), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def test_corpus(corpus: Path, tmp_path: Path) -> None:
    for name, on_prism in (("here", False), ("prism", True)):
        run("build-corpus", "--mixture", corpus, "--output", tmp_path / name, "--shards", 3, on_prism=on_prism)
    assert data_bytes(tmp_path / "prism") == data_bytes(tmp_path / "here") != {}


def test_score_and_rerank(tmp_path: Path) -> None:
    model = save_tiny_scorer(tmp_path / "model")
    for file in range(3):
        numbers = range(file * 80, file * 80 + 80)
        rows = [{"instruction": sentence(i // 4, 6), "response": sentence(i, 1 + i % 9)} for i in numbers]
        (tmp_path / f"{file}.parquet").write_bytes(parquet(rows, row_group_size=30))
    settled = ["--model", model, "--device=cpu", "--dtype=float32", "--tokens-per-batch=1024"]
    for name, on_prism in (("here", False), ("prism", True)):
        scored = tmp_path / name / "scored"
        run("score", "--input", tmp_path / "*.parquet", "--output", scored, *settled, on_prism=on_prism)
        run("rerank", "--input", scored / "rows" / "part-*", "--output", tmp_path / name / "best", on_prism=on_prism)
    assert data_bytes(tmp_path / "prism") == data_bytes(tmp_path / "here") != {}
