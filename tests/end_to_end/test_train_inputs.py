"""`cappy train` on what is no labelled corpus: another scorer's scores, preferences, texts in any order."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.cappy_model.models import save_tiny_scorer
from tests.cappy_model.train.corpora import some_rows, write_pairs
from tests.conftest import cappy, manifest_of
from tests.end_to_end.inputs import said, settled

torch.set_num_threads(1)

QUICK = ["--device", "cpu", "--dtype", "float32", "--batch-size", "8", "--max-length", "60", "--max-steps", "6"]
QUICK += ["--eval-fraction", "0.2", "--shuffle-buffer", "100"]


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp("init"))


def train(init: Path, corpus: object, output: Path, *more: object) -> int:
    return cappy("train", "--corpus", corpus, "--model", init, "--output", output, *settled(*QUICK, *more))


def test_scores_of_another_scorer(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "pairs.parquet", some_rows(120, responses=4))
    teacher = save_tiny_scorer(tmp_path / "teacher", seed=1)
    scoring = ["--input", tmp_path / "pairs.parquet", "--model", teacher, "--output", tmp_path / "scored"]
    assert cappy("score", *scoring, "--device", "cpu", "--dtype", "float32") == 0
    scored = tmp_path / "scored" / "rows" / "*.parquet"
    assert train(init, scored, tmp_path / "refused", "--label-column", "score") == 1
    assert "labels lie between 0 and 1, or are any finite number with --labels raw" in said(capsys)
    assert train(init, scored, tmp_path / "out", "--label-column", "score", "--labels", "raw") == 0
    manifest = manifest_of(tmp_path / "out")
    assert manifest["configuration"]["columns"] == {
        "instruction": "instruction",
        "response": "response",
        "label": "score",
        "chosen": None,
        "rejected": None,
        "raw": True,
    }
    assert manifest["pairs"]["read"] == 120 and manifest["pairs"]["instructions"] * 4 == manifest["pairs"]["training"]
    assert "on the scale of the labels that it was trained on" in (tmp_path / "out" / "README.md").read_text()

    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "scored/rows").glob("*.parquet"))])
    broken = [float("nan") if row == 5 else value for row, value in enumerate(table["score"].to_pylist())]
    column = table.schema.get_field_index("score")
    pq.write_table(table.set_column(column, "score", pa.array(broken, pa.float32())), tmp_path / "nan.parquet")
    more = ["--label-column", "score", "--labels", "raw"]
    assert train(init, tmp_path / "nan.parquet", tmp_path / "nan", *more) == 1
    assert "nan.parquet#5: the label is nan" in said(capsys)


def write_preferences(path: Path, count: int, *, equal: int) -> Path:
    rows = [
        {"prompt": f"question {n // 2}", "better": f"good {n}", "worse": f"good {n} " if n < equal else f"bad {n}"}
        for n in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows[::2] + rows[1::2]), path)
    return path


def test_preferences(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_preferences(tmp_path / "preferences.parquet", 60, equal=7)
    columns = ["--instruction-column", "prompt", "--chosen-column", "better", "--rejected-column", "worse"]
    assert train(init, corpus, tmp_path / "dry", *columns, "--dry-run") == 0
    assert "120 pairs" in capsys.readouterr().out
    assert train(init, corpus, tmp_path / "out", *columns) == 0
    manifest = manifest_of(tmp_path / "out")
    pairs = manifest["pairs"]
    assert pairs["equal_preferences"] == 7 and pairs["read"] == 106 == pairs["training"] + pairs["evaluation"]
    assert manifest["made_of"]["training"] == {"unnamed": {"unnamed": pairs["training"]}}
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert "7 preferences with two equal responses" in card


def test_random_batches_of_preferences(init: Path, tmp_path: Path) -> None:
    corpus = write_preferences(tmp_path / "preferences.parquet", 60, equal=0)
    columns = ["--instruction-column", "prompt", "--chosen-column", "better", "--rejected-column", "worse"]
    assert train(init, corpus, tmp_path / "out", *columns, "--batches", "random", "--max-pairs", 33) == 0
    manifest = manifest_of(tmp_path / "out")
    assert manifest["pairs"]["training"] == 33
    settled = manifest["settled"]
    assert {name: settled[name] for name in ("batches", "loss", "dropout", "accumulation", "learning_rate")} == {
        "batches": "random",
        "loss": "mse",
        "dropout": None,
        "accumulation": 16,
        "learning_rate": 2e-5,
    }


def test_an_order_of_rows_changes_nothing(init: Path, tmp_path: Path) -> None:
    """Rows of an instruction that stand far apart are one group, as those that stand together."""
    rows = some_rows(120, responses=4)
    write_pairs(tmp_path / "apart.parquet", [row for first in range(4) for row in rows[first::4]], group=30)
    assert train(init, tmp_path / "apart.parquet", tmp_path / "out") == 0
    pairs = manifest_of(tmp_path / "out")["pairs"]
    assert pairs["instructions"] * 4 == pairs["training"] and pairs["single_responses"] == 0


def test_one_response_only_is_counted(init: Path, tmp_path: Path) -> None:
    rows = [row for number, row in enumerate(some_rows(90)) if number % 3]
    assert train(init, write_pairs(tmp_path / "pairs.parquet", rows), tmp_path / "out") == 0
    single = manifest_of(tmp_path / "out")["pairs"]["single_responses"]
    assert single > 10
    assert f"{single} of them with one response only" in (tmp_path / "out" / "README.md").read_text()


def test_labels_that_are_all_equal(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_pairs(tmp_path / "pairs.parquet", [{**row, "label": 1.0} for row in some_rows(60)])
    assert train(init, corpus, tmp_path / "out") == 1
    assert "all labels of the instructions for training are 1: nothing tells right responses from wrong" in said(capsys)


def test_a_number_of_pairs_to_see(init: Path, tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "pairs.parquet", some_rows(90, responses=3))
    steps = QUICK.index("--max-steps")
    quick = [*QUICK[:steps], *QUICK[steps + 2 :]]
    given = ["--corpus", corpus, "--model", init, "--output", tmp_path / "out", *quick]
    assert cappy("train", *given, "--pairs-seen", 200) == 0
    metrics = manifest_of(tmp_path / "out")["metrics"]
    assert 200 <= metrics["pairs_seen"] <= 210 and metrics["epochs"] > 2


def test_dropout_of_training_is_not_kept(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "pairs.parquet", some_rows(60))
    start = save_tiny_scorer(tmp_path / "start", hidden_dropout_prob=0.2)
    losses: dict[str, Any] = {}
    for dropout in ("0", "model", "0.2"):
        assert train(start, corpus, tmp_path / dropout, "--dropout", dropout, "--eval-fraction", 0) == 0
        config = json.loads((tmp_path / dropout / "config.json").read_text())
        assert config["hidden_dropout_prob"] == 0.2 and config["attention_probs_dropout_prob"] == 0.1
        losses[dropout] = json.loads((tmp_path / dropout / "metrics.json").read_text())["losses"]
    assert len({json.dumps(each) for each in losses.values()}) == 3
