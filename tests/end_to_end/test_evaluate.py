"""`cappy evaluate`, by its command, over small tables: the numbers against pandas, and what is refused."""

import io
import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rouge_score import rouge_scorer
from scipy import stats
from sklearn.metrics import roc_auc_score

from beam_pipelines.jobs import evaluate
from beam_pipelines.runners.options import beam_options
from tests.conftest import cappy, data_bytes, manifest_of, metrics_of, rows_of
from tests.end_to_end.inputs import ALL_MAY_FAIL, TWO_PROCESSES, TWO_THREADS, json_lines, parquet, said

Rows = list[dict[str, Any]]
WORDS = ["river", "stone", "lamp", "garden", "window", "paper", "silver", "morning", "letter", "bridge"]
DECODINGS = ("beam4", "topk40", "topk40", "sampling", "sampling")


def candidates(groups: int = 24) -> Rows:
    """Candidates of two datasets, with equal texts, ties of scores, and a few without a score."""
    generator = np.random.default_rng(17)
    rows = []
    for group in range(groups):
        references = [" ".join(generator.choice(WORDS, 5)) for _ in range(1 + group % 2)]
        texts = [" ".join(generator.choice(WORDS, 4)) for _ in DECODINGS[:4]]
        texts.append(texts[group % 4])
        likelihoods = generator.random(5)
        likelihoods[4] = likelihoods[group % 4]
        for number, (text, decoding) in enumerate(zip(texts, DECODINGS, strict=True)):
            rows.append(
                {
                    "instruction_id": f"id {group}",
                    "dataset": "first" if group % 3 else "second",
                    "instruction": f"Write {group}",
                    "references": references,
                    "response": text,
                    "decoding": decoding,
                    "sample_index": 1 - number % 2,
                    "log_likelihood_sum": -float(likelihoods[number] * 10),
                    "log_likelihood_mean": -float(likelihoods[number] / (1 + len(text))),
                    "score": None if (group + number) % 11 == 0 else float(generator.integers(0, 4)) / 4,
                    "adapted": float(generator.random()),
                }
            )
    return sorted(rows, key=lambda row: (row["decoding"], row["instruction_id"]))


def run_over(content: bytes | Rows, output: Path, *arguments: object, name: str = "scored.parquet") -> int:
    """`cappy evaluate` over one file, which is written beside the output folder; its exit status."""
    path = output.parent / name
    path.write_bytes(content if isinstance(content, bytes) else parquet(content))
    return cappy("evaluate", "--input", path, "--output", output, "--direct_num_workers=1", *arguments)


def check_accounts(output: Path) -> dict[str, Any]:
    """Recounts what a manifest says from the files themselves."""
    manifest = manifest_of(output)
    totals, rows, rejects = manifest["totals"], rows_of(output), rows_of(output / "rejects")
    assert totals["candidates"] == totals["evaluated"] + totals["rejected"]
    assert totals["examples"] == len(rows)
    assert totals["evaluated"] - totals["duplicates"] == sum(row["candidates"] for row in rows)
    assert manifest["rejects"]["rows"] == len(rejects)
    assert totals["rejected_examples"] == sum(row["stage"] == "evaluate" for row in rejects)
    assert rows == sorted(rows, key=lambda row: (row["dataset"], row["group"]))
    assert {entry["path"] for entry in manifest["files"]} == set(data_bytes(output))
    content = metrics_of(output)
    assert {name: content[name] for name in manifest["results"]} == manifest["results"]
    assert cappy("verify", output) == 0
    return manifest


def rouge(references: list[str], response: str) -> float:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    return max(scorer.score(reference, response)["rougeL"].fmeasure for reference in references)


def chosen_by_pandas(rows: Rows) -> dict[tuple[str, str], dict[str, float]]:
    """What each method's choice is worth, by (dataset, group)."""
    frame = pd.DataFrame(rows)
    frame["worth"] = [rouge(*pair) for pair in zip(frame["references"], frame["response"], strict=True)]
    found = {}
    for key, group in frame.groupby(["dataset", "instruction_id"]):
        distinct = group.drop_duplicates("response").copy()
        values = {"random": distinct["worth"].mean(), "oracle": distinct["worth"].max()}
        by = {"scorer:score": "score", "scorer:adapted": "adapted"}
        by |= {"self-score:sum": "log_likelihood_sum", "self-score:mean": "log_likelihood_mean"}
        for method, column in by.items():
            known = group.dropna(subset=column).drop_duplicates("response")
            distinct[method] = distinct["response"].map(known.set_index("response")[column])
            values[method] = distinct["worth"][distinct[method].idxmax()]
        for decoding, drawn in group.groupby("decoding"):
            first = drawn.sort_values("sample_index", kind="stable").iloc[0]
            values[f"first:{decoding}"] = first["worth"]
        found[key] = values
    return found


@pytest.mark.parametrize("name", ["scored.parquet", "scored.jsonl"])
def test_generation(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, output = candidates(), tmp_path / "out"
    content = parquet(rows) if name.endswith("parquet") else json_lines(*rows)
    assert run_over(content, output, "--score-column", "score,adapted", "--shards", 3, name=name) == 0
    printed = capsys.readouterr().out
    manifest, expected = check_accounts(output), chosen_by_pandas(rows)
    found = {(row["dataset"], row["group"]): row for row in rows_of(output)}
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        own = {n: v for n, v in found[key].items() if n not in ("dataset", "group", "candidates")}
        assert own == pytest.approx(values)
    content = metrics_of(output)
    measure = content["measures"]["rouge_l"]
    frame = pd.DataFrame(expected).T
    means = frame.groupby(level=0).mean()
    for method in frame.columns:
        for dataset in means.index:
            entry = measure["datasets"][dataset]["methods"][method]
            assert entry["value"] == pytest.approx(means[method][dataset])
            assert entry["low"] <= entry["value"] <= entry["high"]
        assert measure["macro"]["methods"][method]["value"] == pytest.approx(means[method].mean())
        assert method in printed
    baselines = [m for m in frame.columns if not m.startswith("scorer:") and m != "oracle"]
    assert measure["macro"]["best_baseline"] == means.mean()[baselines].idxmax()
    assert manifest["totals"]["unscored"]["score"] == sum(row["score"] is None for row in rows)
    assert "rouge_l by dataset" in printed and "24 examples of 120 candidates" in printed
    assert (output / "report.html").stat().st_size > 10_000


def test_best_of_n_curves(tmp_path: Path) -> None:
    assert run_over(candidates(), tmp_path / "out") == 0
    content, rows = metrics_of(tmp_path / "out"), rows_of(tmp_path / "out")
    curves, methods = content["curves"], content["measures"]["rouge_l"]["datasets"]["first"]["methods"]
    assert curves["drawn"] == [1, 2, 4]
    own = curves["datasets"]["first"]
    assert set(own) == {"scorer:score", "self-score:sum", "self-score:mean", "oracle", "random"}
    for method, curve in own.items():
        assert curve[-1] == pytest.approx(methods[method]["value"])
    assert own["oracle"][0] == pytest.approx(own["random"][0]) == pytest.approx(own["self-score:sum"][0])
    assert own["random"] == [own["random"][0]] * 3 and own["oracle"][0] < own["oracle"][1] < own["oracle"][2]
    assert sum(row["dataset"] == "first" for row in rows) == methods["oracle"]["count"]
    mean = (np.array(own["oracle"]) + np.array(curves["datasets"]["second"]["oracle"])) / 2
    assert curves["macro"]["oracle"] == pytest.approx(mean.tolist())


def choices(examples: int = 30) -> Rows:
    """Rows of answer choices with lists of scores, of two datasets, the first with two templates."""
    generator = np.random.default_rng(23)
    rows = []
    for number in range(examples):
        for template in ("plain", "polite") if number % 2 else ("plain",):
            texts = [f"{word} {number}" for word in generator.permutation(WORDS)[: 3 + number % 2]]
            if not number % 5:
                texts[1] = texts[0]
            rows.append(
                {
                    "instruction_id": f"{number} {template}",
                    "dataset": "quiz",
                    "split": "odd" if number % 2 else "even",
                    "template_name": template,
                    "example_id": str(number),
                    "instruction": f"{template}: which, {number}?",
                    "choices": texts,
                    "references": [f" {texts[-1]}"],
                    "score": [float(score) for score in generator.integers(0, 5, len(texts))],
                }
            )
    return rows


def long_form(rows: Rows) -> Rows:
    return [
        {**{k: v for k, v in row.items() if k not in ("choices", "references")}, "response": text, "score": score,
         "correct": text == row["choices"][-1]}
        for row in rows for text, score in zip(row["choices"], row["score"], strict=True)
    ]  # fmt: skip


def test_classification(tmp_path: Path) -> None:
    rows = choices()
    flags = ["--task", "classification"]
    assert run_over(rows, tmp_path / "lists", *flags, "--response-column", "choices") == 0
    assert run_over(long_form(rows), tmp_path / "long", *flags, "--label-column", "correct") == 0
    for each in ("lists", "long"):
        check_accounts(tmp_path / each)
    lists, long = metrics_of(tmp_path / "lists"), metrics_of(tmp_path / "long")
    assert lists["measures"] == long["measures"] and lists["templates"] == long["templates"]
    frame = pd.DataFrame(rows)
    # The first of the best, as argmax takes it; an equal text stands for both.
    frame["right"] = [row["choices"][int(np.argmax(row["score"]))] == row["choices"][-1] for row in rows]
    frame["chance"] = [1 / len(set(row["choices"])) for row in rows]
    measure = lists["measures"]["accuracy"]
    assert set(measure["datasets"]) == {"quiz:odd", "quiz:even"}
    for (split, template), part in frame.groupby(["split", "template_name"]):
        found = lists["templates"][f"quiz:{split}"][template]["methods"]
        assert found["scorer:score"]["value"] == pytest.approx(part["right"].mean())
    means = frame.groupby("split")[["right", "chance"]].mean()
    for split in means.index:
        methods = measure["datasets"][f"quiz:{split}"]["methods"]
        assert methods["scorer:score"]["value"] == pytest.approx(means["right"][split])
        assert methods["random"]["value"] == pytest.approx(means["chance"][split])
        assert methods["oracle"]["value"] == 1.0
    assert measure["macro"]["methods"]["scorer:score"]["value"] == pytest.approx(means["right"].mean())


def test_majority_of_a_fixed_set_of_choices(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"{n}", "choices": ["yes", "no"], "references": ["no" if n % 3 else "yes"], "score": [1.0, 0.5]}
        for n in range(12)
    ]
    flags = ["--task", "classification", "--response-column", "choices"]
    assert run_over(rows, tmp_path / "out", *flags) == 0
    methods = metrics_of(tmp_path / "out")["measures"]["accuracy"]["macro"]["methods"]
    assert methods["majority"]["value"] == pytest.approx(8 / 12)
    assert methods["scorer:score"]["value"] == pytest.approx(4 / 12) and methods["random"]["value"] == 0.5


def solutions(problems: int = 40) -> Rows:
    generator = np.random.default_rng(29)
    return [
        {
            "problem": number,
            "instruction": f"Solve {number}",
            "response": f"solution {index}",
            "is_correct": bool(generator.random() < 0.4),
            "score": float(generator.integers(0, 9)) / 4,
            "grade": float(generator.integers(0, 5)) / 4,
        }
        for number in range(problems)
        for index in range(1 + number % 6)
    ]


@pytest.mark.parametrize("label", ["is_correct", "grade"])
def test_ranking(label: str, tmp_path: Path) -> None:
    rows = solutions()
    for row in rows:
        row["score"] += row[label] / 2
    assert (
        run_over(rows, tmp_path / "out", "--task", "ranking", "--label-column", label, "--group-column", "problem") == 0
    )
    check_accounts(tmp_path / "out")
    measures, frame = metrics_of(tmp_path / "out")["measures"], pd.DataFrame(rows)
    frame[label] = frame[label].astype(float)
    value = {name: measure["macro"]["methods"]["scorer:score"]["value"] for name, measure in measures.items()}
    assert value["spearman_over_all"] == pytest.approx(stats.spearmanr(frame["score"], frame[label]).statistic)
    assert value["kendall_over_all"] == pytest.approx(stats.kendalltau(frame["score"], frame[label]).statistic)
    if label == "is_correct":
        assert value["auc_over_all"] == pytest.approx(roc_auc_score(frame[label], frame["score"]))
    else:
        assert "auc_over_all" not in value
    within: dict[str, list[float]] = {"spearman": [], "kendall": [], "pairwise_accuracy": []}
    for _, group in frame.groupby("problem"):
        if group[label].nunique() > 1:
            flat = group["score"].nunique() == 1
            within["spearman"].append(0.0 if flat else stats.spearmanr(group["score"], group[label]).statistic)
            within["kendall"].append(0.0 if flat else stats.kendalltau(group["score"], group[label]).statistic)
            pairs = itertools.combinations(zip(group["score"], group[label], strict=True), 2)
            net = [np.sign(a - c) * np.sign(b - d) for (a, b), (c, d) in pairs if b != d]
            within["pairwise_accuracy"].append((1 + np.mean(net)) / 2)
    for name, values in within.items():
        assert value[name] == pytest.approx(np.mean(values))
        assert measures[name]["macro"]["methods"]["scorer:score"]["count"] == len(values)
        assert measures[name]["macro"]["methods"]["random"]["value"] == (0.5 if name == "pairwise_accuracy" else 0.0)


def test_reliability_counts_every_scored_candidate(tmp_path: Path) -> None:
    rows = solutions()
    assert run_over(rows, tmp_path / "out", "--task", "ranking", "--label-column", "grade") == 0
    bins = metrics_of(tmp_path / "out")["reliability"]["score"]
    assert sum(entry["candidates"] for entry in bins) == len(rows)
    for entry in bins:
        labels = [row["grade"] for row in rows if entry["from"] <= row["score"] < entry["to"]]
        assert entry["worth"] == pytest.approx(np.mean(labels)) and entry["candidates"] == len(labels)


@pytest.mark.parametrize("flags", [TWO_PROCESSES, TWO_THREADS], ids=["processes", "threads"])
def test_same_bytes_whatever_the_workers(flags: list[str], tmp_path: Path) -> None:
    rows = [*candidates(), {**candidates()[0], "instruction": "another"}]
    settings = ["--shards", "3", "--score-column", "score", "--score-column", "adapted", *ALL_MAY_FAIL]
    assert run_over(rows, tmp_path / "one", *settings) == 0
    command = [sys.executable, "-m", "beam_pipelines.jobs.evaluate", "--input", tmp_path / "scored.parquet"]
    subprocess.run([*map(str, [*command, "--output", tmp_path / "other", *settings, *flags])], check=True, timeout=300)
    assert data_bytes(tmp_path / "other") == data_bytes(tmp_path / "one")
    assert (tmp_path / "other" / "metrics.json").read_bytes() == (tmp_path / "one" / "metrics.json").read_bytes()
    one, other = manifest_of(tmp_path / "one"), manifest_of(tmp_path / "other")
    for name in ("totals", "results", "reliability", "rejects", "samples", "files", "fingerprint"):
        assert other[name] == one[name]


def test_the_seed_moves_intervals_and_nothing_else(tmp_path: Path) -> None:
    for seed in (0, 1):
        assert run_over(candidates(), tmp_path / str(seed), "--seed", seed) == 0
    assert data_bytes(tmp_path / "0") == data_bytes(tmp_path / "1")
    macros = [metrics_of(tmp_path / str(seed))["measures"]["rouge_l"]["macro"]["methods"] for seed in (0, 1)]
    assert [entry["value"] for entry in macros[0].values()] == [entry["value"] for entry in macros[1].values()]
    assert [entry["low"] for entry in macros[0].values()] != [entry["low"] for entry in macros[1].values()]


def test_a_finished_run_is_recognised_and_another_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run_over(candidates(), output) == 0
    before = (output / "metrics.parquet").stat().st_mtime_ns
    (output / "metrics.json").unlink()
    assert run_over(candidates(), output) == 0
    assert (output / "metrics.parquet").stat().st_mtime_ns == before and metrics_of(output)["task"] == "generation"
    assert run_over(candidates(), output, "--score-column", "adapted") == 1
    assert "settings.columns.methods.scorer:adapted" in said(capsys)
    assert run_over(candidates(), output, "--score-column", "adapted", "--overwrite") == 0
    assert "scorer:adapted" in metrics_of(output)["measures"]["rouge_l"]["macro"]["methods"]


def test_python_call_report_card_and_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_over(candidates(), tmp_path / "out", "--dry-run") == 0
    assert "examples by 'instruction_id'" in capsys.readouterr().out and not (tmp_path / "out").exists()
    config = evaluate.EvaluateConfig(input=str(tmp_path / "*.parquet"), output=str(tmp_path / "out"))
    manifest = evaluate.run(config, beam_options(["--direct_num_workers=1"], local_mode="multi_processing")).manifest
    assert manifest == manifest_of(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    assert cappy("report", tmp_path / "out") == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == page
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == manifest["totals"]["examples"]


ROW = {"id": 1, "instruction": "i", "references": ["r"], "response": "r", "score": 0.5, "label": 1.0}
RANKING, CLASSIFICATION = ["--task", "ranking"], ["--task", "classification"]
LAUNCH_ERRORS: list[tuple[dict[str, Any], Sequence[str], int, str]] = [
    ({}, ["--reference-column", "gold"], 1, "--reference-column: the input has no column 'gold'; there are id, instr"),
    ({}, ["--score-column", "score,more"], 1, "--score-column: the input has no column 'more'"),
    ({}, ["--score-column", "score,score"], 2, "--score-column 'score' is named twice"),
    ({}, ["--label-column", "label"], 2, "--task generation compares responses with references"),
    ({}, RANKING, 1, "--task ranking compares scores with labels: name their --label-column; there are id"),
    ({}, [*CLASSIFICATION, "--reference-column", "gold"], 1, "no column 'gold' with the right texts, and no --label-c"),
    ({}, [*RANKING, "--label-column", "references"], 1, "the columns of candidates are all lists, or none is"),
    ({"label": "good"}, [*RANKING, "--label-column", "label"], 1, "column 'label' is string and must be numbers"),
    ({"score": [0.5]}, [], 1, "column 'score' is list<item: double> and column 'response' is string"),
    ({"references": {"a": 7}}, [], 1, "column 'references' is struct<a: int64> and must be text, or lists of it"),
    ({"decoding": "d", "generator": {"a": 7}}, [], 1, "column 'generator' is struct<a: int64> and must be text"),
    ({"decoding": {"a": 7}}, [], 1, "decoding: column 'decoding' is struct<a: int64> and must be text"),
    ({}, ["--group-column", "score"], 1, "column 'score' is double and must be text, integers or booleans"),
]


@pytest.mark.parametrize(("change", "flags", "status", "message"), LAUNCH_ERRORS)
def test_what_cannot_serve_stops_the_launch(
    change: dict[str, Any],
    flags: Sequence[str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_over(json_lines({**ROW, **change}), tmp_path / "out", *flags, name="a.jsonl") == status
    assert message in said(capsys)
    assert not (tmp_path / "out").exists()


def test_an_empty_input_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = pq.read_table(io.BytesIO(parquet([ROW]))).slice(0, 0)
    assert run_over(parquet(empty), tmp_path / "out") == 1
    assert "has no rows, so there is nothing to evaluate" in said(capsys)


def test_nan_fails_the_job_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*candidates(), {**candidates()[0], "score": float("nan")}]
    assert run_over(json_lines(*rows), tmp_path / "out", name="a.jsonl") == 1
    assert "score is NaN" in said(capsys)
    assert not (tmp_path / "out" / "manifest.json").exists() and not (tmp_path / "out" / "metrics.json").exists()


def test_what_cannot_be_evaluated_is_counted_and_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [{**ROW, "id": 100 + n, "instruction": f"good {n}"} for n in range(60)]
    bad = [
        {**ROW, "id": None},
        {**ROW, "id": 1, "instruction": None},
        {**ROW, "id": 2, "response": None},
        {**ROW, "id": 3, "references": []},
        {**ROW, "id": 4, "references": None},
        {**ROW, "id": 5, "score": None},
        {**ROW, "id": 6, "instruction": "one"},
        {**ROW, "id": 6, "instruction": "another"},
        {**ROW, "id": 7, "references": ["another"]},
        {**ROW, "id": 7, "response": "again"},
    ]
    output = tmp_path / "out"
    assert run_over([*good, *bad], output, "--group-column", "id") == 1
    assert "14.29% of the candidates were rejected" in said(capsys)
    assert not (output / "metrics.json").exists()
    assert run_over([*good, *bad], output, "--group-column", "id", *ALL_MAY_FAIL) == 0
    manifest = check_accounts(output)
    assert manifest["rejects"]["by_reason"] == {
        "evaluate": {"mixed_instructions": 1, "mixed_references": 1, "unscored": 1},
        "read": {"no_references": 2, "null_group": 1, "null_value": 2},
    }
    (mixed,) = (row for row in rows_of(output / "rejects") if row["reason"] == "mixed_instructions")
    assert mixed["position"] == "#66" and "group '6' of 2: candidates have different instructions" in mixed["detail"]


def test_labels_that_cannot_serve_are_rejects(tmp_path: Path) -> None:
    labels = [0.0, 1.0, 0.5, None, float("inf"), 2.0**21]
    rows = [{**ROW, "id": n % 2, "response": str(n), "label": label} for n, label in enumerate(labels)]
    flags = ["--label-column", "label", "--group-column", "id", *ALL_MAY_FAIL]
    assert run_over(rows, tmp_path / "ranked", *RANKING, *flags) == 0
    assert check_accounts(tmp_path / "ranked")["rejects"]["by_reason"] == {
        "read": {"label_not_usable": 2, "null_value": 1}
    }
    assert run_over(rows, tmp_path / "chosen", *CLASSIFICATION, *flags) == 0
    assert check_accounts(tmp_path / "chosen")["rejects"]["by_reason"] == {
        "read": {"label_not_binary": 3, "null_value": 1}
    }
    rows = [{**ROW, "label": 1.0}, {**ROW, "label": 0.0}]
    assert run_over(rows, tmp_path / "twice", *CLASSIFICATION, *flags) == 0
    manifest = check_accounts(tmp_path / "twice")
    assert manifest["rejects"]["by_reason"] == {"evaluate": {"mixed_labels": 1}}
    assert manifest["results"]["measures"]["accuracy"]["macro"] is None
    assert "No example of 2 candidates could be evaluated" in (tmp_path / "twice" / "report.html").read_text()


def test_a_text_column_that_is_no_decoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**ROW, "instruction": str(n), "decoding": f"anything {n}"} for n in range(65)]
    assert run_over(rows, tmp_path / "out") == 1
    assert "the column 'decoding' has 65 values" in said(capsys)


@pytest.mark.parametrize("listed", [False, True])
def test_first_samples_of_several_language_models(listed: bool, tmp_path: Path) -> None:
    """Where none of the examples has several, a decoding is one method; rows of lists say once whose they are."""

    def of(group: int, model: str, right: bool) -> dict[str, Any]:
        responses, scores, decodings = ["r" if right else "s", "t"], [0.5, 0.1], ["beam4", "topk40"]
        shared = {**ROW, "instruction": f"i{group}", "generator": model}
        if listed:
            return {**shared, "response": responses, "score": scores, "decoding": decodings}
        return {**shared, "response": responses[0], "decoding": "beam4"}

    alone = [of(group, "large" if group % 2 else "small", bool(group % 2)) for group in range(10)]
    both = [of(group, model, model == "large") for group in range(10) for model in ("small", "large")]
    for rows, expected in ((alone, {"beam4": 0.5}), (both, {"small beam4": 0.0, "large beam4": 1.0})):
        output = tmp_path / f"out {len(rows)}"
        assert run_over(rows, output) == 0
        methods = metrics_of(output)["measures"]["rouge_l"]["macro"]["methods"]
        found = {name: entry["value"] for name, entry in methods.items() if name.startswith("first:")}
        assert {f"first:{name}": value for name, value in expected.items()}.items() <= found.items()
        assert len(found) == len(expected) * (1 + listed)


def test_infinite_scores_choose(tmp_path: Path) -> None:
    rows = [{**ROW, "response": text, "score": score} for text, score in
            [("no", float("-inf")), ("r", float("inf")), ("none", 3.0)]]  # fmt: skip
    assert run_over(rows, tmp_path / "out") == 0
    assert metrics_of(tmp_path / "out")["measures"]["rouge_l"]["macro"]["methods"]["scorer:score"]["value"] == 1.0
