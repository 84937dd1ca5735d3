"""The folders of tables as other tools read them, without a word about files: pandas, polars, duckdb, datasets."""

from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from tests.cappy_model.models import save_tiny_generator, save_tiny_scorer
from tests.conftest import cappy, rows_of, sentence
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, json_lines

ROWS = [{"id": i, "instruction": sentence(i // 2, 4), "response": sentence(i, 3)} for i in range(8)]
TABLES = {"score": "rows", "generate": "candidates", "rerank": "selections"}

TOOLS: Mapping[str, Callable[[Path], list[str]]] = {
    "pandas": lambda folder: pd.read_parquet(folder)["response"].tolist(),
    "polars": lambda folder: pl.read_parquet(folder)["response"].to_list(),
    "duckdb": lambda folder: [row for (row,) in duckdb.sql(f"SELECT response FROM '{folder}/*.parquet'").fetchall()],
    "pyarrow": lambda folder: ds.dataset(folder).to_table()["response"].to_pylist(),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each job, with rejects."""
    root = tmp_path_factory.mktemp("runs")
    for name in "ab":
        (root / f"{name}.jsonl").write_bytes(json_lines(*ROWS, b"{broken"))
    scorer, generator = save_tiny_scorer(root / "scorer"), save_tiny_generator(root / "generator")
    usual = ["--device", "cpu", "--dtype", "float32", *ALL_MAY_FAIL, *ONE_PROCESS]
    given = ["--input", root / "*.jsonl", *usual]
    assert cappy("score", *given, "--model", scorer, "--output", root / "score") == 0
    short = ["--decodings", "sampling", "--max-new-tokens", 4]
    assert cappy("generate", *given, *short, "--model", generator, "--output", root / "generate") == 0
    assert cappy("rerank", *given, "--model", scorer, "--output", root / "rerank") == 0
    return root


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("job", TABLES)
def test_a_table_is_read_from_its_folder(job: str, tool: str, runs: Path) -> None:
    expected = [row["response"] for row in rows_of(runs / job)]
    found = TOOLS[tool](runs / job / TABLES[job])
    assert sorted(found) == sorted(expected) != []


@pytest.mark.parametrize("job", TABLES)
def test_datasets_reads_the_run_by_its_card(job: str, runs: Path, tmp_path: Path) -> None:
    found = datasets.load_dataset(str(runs / job), split="train", cache_dir=str(tmp_path))
    assert found["response"][:] == [row["response"] for row in rows_of(runs / job)]
    if rows_of(runs / job / "rejects"):  # those of rerank with a model are of its scoring
        rejects = datasets.load_dataset(str(runs / job), "rejects", split="train", cache_dir=str(tmp_path))
        assert set(rejects["reason"]) == {"broken_json"} and job != "rerank"
