"""`references` as a column of one text, in every job that reads candidates."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.cappy_model.models import save_tiny_scorer
from tests.conftest import build, cappy, manifest_of, metrics_of, rows_of
from tests.end_to_end.inputs import ONE_PROCESS
from tests.end_to_end.test_adapt import candidates

KINDS = {
    "string.parquet": pa.string(),
    "large.parquet": pa.large_string(),
    "view.parquet": pa.string_view(),
    "dictionary.parquet": pa.dictionary(pa.int8(), pa.string()),
    "cells.csv": pa.string(),
    "lists.parquet": pa.list_(pa.string()),
}


def write(path: Path, count: int, *, first: int = 0, scored: bool = False) -> Path:
    """Write candidates whose `references` have the type that the name of the file says."""
    rows = candidates(count, first=first)
    table = pa.Table.from_pylist([{**row, "references": row["references"][0]} for row in rows])
    texts, kind = table["references"].combine_chunks(), KINDS[path.name]
    values = pa.array([[text] for text in texts.to_pylist()], kind) if pa.types.is_list(kind) else texts
    column = values.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else values.cast(kind)
    table = table.set_column(table.schema.get_field_index("references"), "references", column)
    if scored:
        table = table.append_column("score", pa.array([index % 7 / 7 for index in range(len(rows))]))
    path.parent.mkdir(parents=True, exist_ok=True)
    (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_rerank_and_evaluate(name: str, tmp_path: Path) -> None:
    path, best = write(tmp_path / name, 8, scored=True), tmp_path / "best"
    assert cappy("evaluate", "--input", path, "--output", tmp_path / "evaluation", *ONE_PROCESS) == 0
    metrics = metrics_of(tmp_path / "evaluation")
    assert manifest_of(tmp_path / "evaluation")["rejects"]["rows"] == 0
    assert cappy("rerank", "--input", path, "--output", best, *ONE_PROCESS) == 0
    kind = pq.read_schema(next((best / "selections").iterdir())).field("references").type
    assert kind == (pa.string() if name == "cells.csv" else KINDS[name])
    if name != "lists.parquet":
        write(tmp_path / "lists.parquet", 8, scored=True)
        lists = ["--input", tmp_path / "lists.parquet", "--output", tmp_path / "lists"]
        assert cappy("evaluate", *lists, *ONE_PROCESS) == 0
        assert metrics == metrics_of(tmp_path / "lists")


@pytest.mark.parametrize("name", ["view.parquet", "cells.csv"])
def test_adapt(name: str, tmp_path: Path) -> None:
    save_tiny_scorer(tmp_path / "scorer")
    flags = ["--train", write(tmp_path / "t" / name, 20), "--validation", write(tmp_path / "v" / name, 6, first=30)]
    few = ["--max-steps", 1, "--batch-size", 4, "--accumulation", 1, "--max-length", 60, "--device", "cpu"]
    output = tmp_path / "out"
    assert cappy("adapt", *flags, "--model", tmp_path / "scorer", "--output", output, *few, *ONE_PROCESS) == 0
    assert {row["label_source"] for row in rows_of(output / "pairs")} == {"ground_truth", "generated", "mismatch"}
    assert manifest_of(output / "evaluation")["rejects"]["rows"] == 0


@pytest.mark.parametrize("name", ["dictionary.parquet", "cells.csv"])
def test_candidates_of_a_corpus_and_held_out_files(name: str, corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "instructions", "--instructions-only") == 0
    known = rows_of(tmp_path / "instructions" / "instructions")[:60]
    path = write(tmp_path / name, 20)
    table = (pa.csv.read_csv if path.suffix == ".csv" else pq.read_table)(path)
    for column in ("instruction_id", "instruction"):
        values = pa.array([row[column] for row in known])
        table = table.set_column(table.schema.get_field_index(column), column, values)
    (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    assert build(corpus, tmp_path / "out", "--candidates", path) == 0
    assert sum(row["label_source"] == "generated" for row in rows_of(tmp_path / "out" / "pairs")) > 30
    save_tiny_scorer(tmp_path / "scorer")
    flags = ["--corpus", tmp_path / "out" / "pairs" / "*.parquet", "--model", tmp_path / "scorer", "--held-out", path]
    few = ["--max-steps", 1, "--batch-size", 4, "--max-length", 60, "--max-pairs", 100, "--device", "cpu"]
    assert cappy("train", *flags, "--output", tmp_path / "trained", *few) == 0
    assert manifest_of(tmp_path / "trained")["pairs"]["held_out"] > 0
