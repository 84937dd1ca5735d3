"""The data of the claims are split correctly, and their tables match the evaluations."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from experiments import claims_data, claims_tables
from schemas.records import GENERATED
from tests.conftest import SHARED, build, needs_shared

ROWS = 5
PROMPTS = {claims_data.TRAIN: 12, claims_data.HELD_OUT: 6}
PROBLEMS = {claims_data.TRAIN: 15, claims_data.HELD_OUT: 10}
SPLITS = (claims_data.TRAIN, claims_data.HELD_OUT)


@needs_shared
def test_held_out_rows_are_not_trained_on(tmp_path: Path) -> None:
    mixtures = claims_data.write_mixtures(SHARED, tmp_path, ROWS)
    train, held_out = (yaml.safe_load(mixtures[split].read_text())["datasets"] for split in SPLITS)
    for one, other in zip(train, held_out, strict=True):
        found, kept = pq.read_table(one["paths"]), pq.read_table(other["paths"])
        assert kept.num_rows == ROWS < found.num_rows and kept.schema.equals(found.schema)
        text = next(name for name in ("text", "question", "context") if name in kept.column_names)
        if one["name"] in ("ag_news", "cosmos_qa"):  # split from one file
            assert not pc.any(pc.is_in(kept[text], value_set=found[text].combine_chunks())).as_py()


@needs_shared
@pytest.mark.slow
def test_prompts_are_picked_from_every_template(tmp_path: Path) -> None:
    mixtures = claims_data.write_mixtures(SHARED, tmp_path, ROWS)
    instructions = tmp_path / "instructions"
    assert build(mixtures[claims_data.HELD_OUT], instructions, "--instructions-only") == 0
    rendered = instructions / "instructions"
    for task in claims_data.TASKS:
        one, other = (claims_data.pick_prompts(SHARED, rendered, split, task, PROMPTS) for split in SPLITS)
        assert one.num_rows >= PROMPTS[claims_data.TRAIN] and one.schema.equals(other.schema)
        assert other.num_rows >= PROMPTS[claims_data.HELD_OUT]
        assert set(one["dataset"].to_pylist()) == {task}
        if task in claims_data.UNSEEN:
            assert not set(one["instruction_id"].to_pylist()) & set(other["instruction_id"].to_pylist())
    claims_data.pick_choices(rendered, tmp_path / "choices.parquet", 2)
    choices = pq.read_table(tmp_path / "choices.parquet")
    assert set(choices["dataset"].to_pylist()) == set(claims_data.CLASSIFIED)
    assert choices["choices"].null_count == 0
    rows = Counter(zip(choices["dataset"].to_pylist(), choices["example_id"].to_pylist(), strict=True))
    assert len(rows) == ROWS * len(claims_data.CLASSIFIED) and set(rows.values()) == {2}


def test_pairs_are_whole_instructions_in_shares(tmp_path: Path) -> None:
    rows = [
        {
            "instruction_id": f"{dataset} {number:03}",
            "dataset": dataset,
            "label_source": GENERATED if number % 2 and response else "wrong_choice",
        }
        for dataset in ("a", "b", "c")
        for number in range(100)
        for response in range(4)
    ]
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / "pairs.parquet")
    claims_data.pick_pairs(tmp_path / "corpus", tmp_path / "picked.parquet", 240, {"a": 1, "b": 2}, 0.25)
    picked = pq.read_table(tmp_path / "picked.parquet").to_pylist()
    counts = Counter(row["instruction_id"] for row in picked)
    assert set(counts.values()) == {4}
    sampled = {row["instruction_id"] for row in picked if row["label_source"] == GENERATED}
    of = {name: {one for one in counts if one.startswith(name)} for name in "abc"}
    assert [len(of[name]) for name in "abc"] == [20, 40, 0]
    assert [len(of[name] & sampled) for name in "ab"] == [5, 10]


@needs_shared
def test_problems_are_split_by_id(tmp_path: Path) -> None:
    claims_data.write_solutions(SHARED, tmp_path, PROBLEMS)
    train, held_out = (pq.read_table(tmp_path / f"{split}.parquet") for split in SPLITS)
    first, second = (set(table["instruction_id"].to_pylist()) for table in (train, held_out))
    assert (len(first), len(second)) == tuple(PROBLEMS.values()) and not first & second
    assert set(train["label"].to_pylist()) == {0.0, 1.0}
    solutions = pq.read_table(SHARED / "data" / "candidates" / "gsm8k_solutions.parquet")
    correct = {(row["instruction"], row["response"]): row["is_correct"] for row in solutions.to_pylist()}
    assert all(correct[row["instruction"], row["response"]] == row["label"] for row in train.to_pylist())


def entry(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "count": 7}


def write_metrics(folder: Path, name: str, values: dict[str, float]) -> None:
    """Write metrics of two datasets; those of the second are larger by 0.2."""
    scopes = [{"methods": {m: entry(v + more) for m, v in values.items()}} for more in (0.0, 0.2, 0.1)]
    difference = {"method": "scorer:score", "to": "random", **entry(0.05)}
    measure = {
        "datasets": {"a": scopes[0], "b": scopes[1]},
        "macro": {**scopes[2], "best_baseline": "random", "differences": [difference]},
    }
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "metrics.json").write_text(json.dumps({"measures": {name: measure}}))


def write_candidates(folder: Path, column: str, *, agrees: bool) -> None:
    """Write candidates of three instructions: `column` orders those of the first by Rouge-L and, if `agrees`, those of
    the second; those of the third have equal Rouge-L."""
    table = {
        "dataset": ["dream"] * 6,
        "instruction_id": ["a", "a", "b", "b", "c", "c"],
        "references": [["red"]] * 6,
        "response": ["red", "blue", "red", "blue", "blue", "green"],
        column: [0.9, 0.1, *([0.8, 0.2] if agrees else [0.2, 0.8]), 0.5, 0.4],
        "log_likelihood_mean": [-2.0, -1.0, -2.0, -1.0, -2.0, -1.0],
    }
    (folder / "rows").mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "rows" / "part-0.parquet")


def write_results(work: Path) -> None:
    """Write the evaluations of two seeds."""
    write_metrics(work / "classification", "accuracy", {"scorer:alone0": 0.5, "scorer:alone1": 0.6, "random": 0.25})
    write_metrics(work / "ranking", "auc_over_all", {"scorer:alone0": 0.6, "scorer:adapted0": 0.7, "random": 0.5})
    baselines = {"self-score:mean": 0.15, "random": 0.2}
    write_metrics(work / "boost", "rouge_l", {"scorer:alone0": 0.2, "scorer:alone1": 0.3, **baselines})
    write_candidates(work / "boost" / "alone1", "alone1", agrees=True)
    for seed, value in enumerate((0.3, 0.4)):
        adapted = work / "adapted" / f"seed{seed}"
        write_metrics(adapted, "rouge_l", {f"scorer:alone{seed}": 0.2, "scorer:score": value, **baselines})
        write_candidates(adapted / "dream" / "scored", "score", agrees=seed == 0)


def test_tables_have_means_over_seeds_and_intervals(tmp_path: Path) -> None:
    write_results(tmp_path)
    printed = claims_tables.all_tables(tmp_path)
    assert "| scorer:alone0 | 0.500 (0.400 to 0.600) | 0.700 (0.600 to 0.800) | 0.600 (0.500 to 0.700) |" in printed
    assert "| scorer | 25.0 (20.0 to 30.0) | 45.0 (40.0 to 50.0) | 35.0 (30.0 to 40.0) |" in printed
    assert "| scorer, adapted | 35.0 (30.0 to 40.0) | 55.0 (50.0 to 60.0) | 45.0 (40.0 to 50.0) |" in printed
    assert "| random | 20.0 | 40.0 | 30.0 |" in printed
    assert "| score minus random | +5.0 (-5.0 to +15.0) |" in printed
    assert "| scorer | +1.000 |" in printed and "| scorer, adapted | +0.500 |" in printed
    assert "| self-score | -1.000 |" in printed
    assert "auc_over_all" in printed and "| random | 0.500" in printed


def test_recipes_are_compared_where_a_claim_was_tried(tmp_path: Path) -> None:
    write_results(tmp_path / "first")
    other = {"scorer:alone0": 0.4, "random": 0.25}
    write_metrics(tmp_path / "second" / "classification", "accuracy", other)
    lines = claims_tables.comparison([tmp_path / "first", tmp_path / "second"]).splitlines()
    header = "|  | a | b | accuracy, mean | boost | adapted | self-score | ranking, AUC |"
    assert [line for line in lines if "---" not in line] == [
        header,
        "| first | 0.550 | 0.750 | 0.650 | 35.0 | 45.0 | 25.0 | 0.800 |",
        "| second | 0.400 | 0.600 | 0.500 |  |  |  |  |",
    ]
