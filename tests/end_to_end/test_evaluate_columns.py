"""Columns of `cappy evaluate` as people's files have them, and Rouge-L in any script."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import cappy, data_bytes, manifest_of, metrics_of, rows_of
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, json_lines, said

CHINESE = [
    {"instruction": "问", "response": "我喜欢猫", "references": ["我喜欢猫"], "score": 1.0},
    {"instruction": "问", "response": "他讨厌猫", "references": ["我喜欢猫"], "score": 0.0},
    {"instruction": "再问", "response": "是", "references": ["是"], "score": 0.3},
    {"instruction": "再问", "response": "不", "references": ["是"], "score": 0.6},
]


def evaluate(rows: list[dict[str, Any]] | pa.Table, output: Path, *flags: object) -> int:
    """Run `cappy evaluate` over one file, written beside the output folder; return the exit status."""
    path = output.parent / ("rows.parquet" if isinstance(rows, pa.Table) else "rows.jsonl")
    if isinstance(rows, pa.Table):
        pq.write_table(rows, path)
    else:
        path.write_bytes(json_lines(*rows))
    return cappy("evaluate", "--input", path, "--output", output, *ONE_PROCESS, *flags)


def value_of(output: Path, method: str = "scorer:score") -> float:
    """Return the macro average of a method by the first measure."""
    measures: Mapping[str, Any] = metrics_of(output)["measures"]
    return float(next(iter(measures.values()))["macro"]["methods"][method]["value"])


def test_rouge_in_chinese(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(CHINESE, tmp_path / "parity") == 0
    warning = (
        "4 of 4 responses (100%) are worth 0, since they or their references have no token for Rouge-L, whose default "
        "tokenizer reads the letters a to z and digits; --rouge unicode reads all of them"
    )
    assert warning in said(capsys) and value_of(tmp_path / "parity", "oracle") == 0
    manifest = manifest_of(tmp_path / "parity")
    assert manifest["warnings"] == [warning] and manifest["totals"]["no_rouge_tokens"] == 4
    assert "rouge" not in manifest["configuration"] and "rouge" not in metrics_of(tmp_path / "parity")
    assert f"Warning: {warning}." in (tmp_path / "parity" / "report.html").read_text().replace("&#39;", "'")
    assert evaluate(CHINESE, tmp_path / "unicode", "--rouge", "unicode") == 0
    assert "warning" not in said(capsys).lower()
    assert value_of(tmp_path / "unicode", "oracle") == 1 and value_of(tmp_path / "unicode") == 0.5
    assert value_of(tmp_path / "unicode", "random") == pytest.approx(((1 + 0.25) / 2 + 0.5) / 2)
    assert metrics_of(tmp_path / "unicode")["rouge"] == "unicode"
    assert evaluate(CHINESE, tmp_path / "parity", "--rouge", "unicode") == 1
    assert 'settings.rouge: null -> "unicode"' in said(capsys)


def test_symbols_have_no_token_in_any_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": "a", "response": text, "references": ["+"], "score": 1.0} for text in ("+", "😀", "plus")]
    for mode in ("parity", "unicode"):
        assert evaluate(rows, tmp_path / mode, "--rouge", mode) == 0
        told = said(capsys)
        assert "3 of 3 responses (100%) are worth 0" in told and "neither letters nor digits" in told
        assert "--rouge" not in told


def test_few_texts_without_a_token_are_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": "a", "response": f"r {i}", "references": ["r"], "score": float(i)} for i in range(99)]
    rows += [{"instruction": "b", "response": "猫", "references": ["猫"], "score": 0.0}]
    assert evaluate(rows, tmp_path / "out") == 0
    assert manifest_of(tmp_path / "out")["warnings"] == [] and "token" not in said(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rouge", "both"], "invalid choice: 'both'"),
        (["--rouge", "unicode", "--task", "classification"], "--task classification computes no Rouge-L"),
        (["--rouge", "unicode", "--task", "ranking", "--label-column", "score"], "--task ranking computes no Rouge-L"),
    ],
)
def test_rouge_is_refused(tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(CHINESE, tmp_path / "out", *flags) == 2
    assert message in said(capsys)


PLAIN: dict[str, list[Any]] = {
    "instruction": ["q", "q", "r", "r"],
    "response": ["a b", "a", "c", "d"],
    "references": [["a b"], ["a b"], ["c"], ["c"]],
    "score": [0.5, 0.25, 0.5, 1.0],
    "dataset": ["1", "1", "2", "2"],
    "example_id": ["7", "7", "8", "8"],
    "decoding": ["0", "1", "0", "1"],
    "sample_index": [0, 1, 0, 1],
}
TYPES: dict[str, tuple[str, pa.Array]] = {
    "references are texts": ("references", pa.array(["a b", "a b", "c", "c"])),
    "large texts": ("response", pa.array(PLAIN["response"], pa.large_string())),
    "dictionary": ("dataset", pa.array(PLAIN["dataset"]).dictionary_encode()),
    "integers": ("dataset", pa.array([1, 1, 2, 2])),
    "integers for examples": ("example_id", pa.array([7, 7, 8, 8], pa.uint8())),
    "integers for decodings": ("decoding", pa.array([0, 1, 0, 1])),
    "floats of pandas": ("sample_index", pa.array([0.0, 1.0, 0.0, 1.0])),
    "decimals": ("score", pa.array([0.5, 0.25, 0.5, 1.0]).cast(pa.decimal128(6, 3))),
    "half precision": ("score", pa.array([0.5, 0.25, 0.5, 1.0], pa.float32())),
    "bytes": ("response", pa.array([text.encode() for text in PLAIN["response"]])),
}


@pytest.mark.parametrize("name", TYPES)
def test_other_types_of_the_same_values_give_the_same_results(name: str, tmp_path: Path) -> None:
    plain, (column, values) = pa.table(PLAIN), TYPES[name]
    assert evaluate(plain, tmp_path / "plain") == 0
    other = plain.set_column(plain.schema.get_field_index(column), column, values)
    assert evaluate(other, tmp_path / "other") == 0
    assert data_bytes(tmp_path / "other") == data_bytes(tmp_path / "plain")


NAMED = {
    "dates": pa.array([0, 0, 19_000, None], pa.date32()),
    "times": pa.array([0, 0, 2**62, None], pa.timestamp("ns", "Europe/Berlin")),
    "bytes": pa.array([b"\xff", b"\xff", b"a", None]),
    "decimals": pa.array([1, 1, 2, None]).cast(pa.decimal256(40, 2)),
    "booleans": pa.array([True, True, False, None]),
}


@pytest.mark.parametrize("name", NAMED)
def test_names_of_any_type(name: str, tmp_path: Path) -> None:
    names = dict.fromkeys(("dataset", "split", "example_id", "template_name"), NAMED[name])
    table = pa.table({**PLAIN, **names})
    for task in ("generation", "classification"):
        status = evaluate(table, tmp_path / task, "--task", task, *ALL_MAY_FAIL)
        assert status == 0
        assert manifest_of(tmp_path / task)["totals"]["candidates"] == 4
        assert len(metrics_of(tmp_path / task)["measures"].popitem()[1]["datasets"]) > 0


@pytest.mark.parametrize("value", [1.5, 1e300, float("inf")])
def test_a_fraction_is_no_sample_index(value: float, tmp_path: Path) -> None:
    table = pa.table({**PLAIN, "sample_index": [0.0, value, None, float("nan")]})
    assert evaluate(table, tmp_path / "out", *ALL_MAY_FAIL) == 0
    (reject,) = rows_of(tmp_path / "out" / "rejects")
    assert (reject["reason"], reject["position"]) == ("does_not_fit", "#1")
    assert reject["detail"].startswith("sample_index is") and json.loads(reject["excerpt"])["response"] == "a"


def test_a_column_that_names_things_by_fractions_is_refused_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.table({**PLAIN, "example_id": [7.0, 7.0, None, 8.5]})
    assert evaluate(table, tmp_path / "out") == 1
    assert "'example_id' is double and must be text, integers or booleans; --text-columns example_id" in said(capsys)
    assert evaluate(table, tmp_path / "out", "--text-columns", "example_id") == 0
    assert "7.0" in {row["example"] for row in rows_of(tmp_path / "out")}


@pytest.mark.parametrize("labels", [[True, False, True, False], [1, 0, 1, 0], ["true", "false", "true", "false"]])
def test_labels_of_a_csv_file(labels: list[object], tmp_path: Path) -> None:
    lines = ["instruction,response,score,right", *(f"i{n // 2},r{n},0.{n},{label}" for n, label in enumerate(labels))]
    (tmp_path / "rows.csv").write_text("\n".join(lines).replace("True", "true").replace("False", "false"))
    flags = ["--task", "classification", "--label-column", "right", *ONE_PROCESS]
    assert cappy("evaluate", "--input", tmp_path / "rows.csv", "--output", tmp_path / "out", *flags) == 0
    assert value_of(tmp_path / "out") == 0.0 and value_of(tmp_path / "out", "oracle") == 1.0


def test_an_odd_label_or_score_is_one_reject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": f"i{n // 2}", "response": f"r{n}", "score": n / 10, "label": n % 2} for n in range(20)
    ]
    rows[3]["label"], rows[7]["score"] = "good", "n/a"
    flags = ["--task", "ranking", "--label-column", "label"]
    assert evaluate(rows, tmp_path / "few", *flags) == 1
    told = said(capsys)
    assert "For example rows.jsonl@" in told and "--max-reject-rate" in told
    assert evaluate(rows, tmp_path / "out", *flags, *ALL_MAY_FAIL) == 0
    assert len(rows_of(tmp_path / "out" / "rejects")) == 2
    assert manifest_of(tmp_path / "out")["totals"]["evaluated"] == 18
