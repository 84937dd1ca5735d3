"""Files as the world writes them, through the jobs without a model: read as they are, or refused by a sentence."""

import csv
import io
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import build, cappy, manifest_of, rows_of, template
from tests.end_to_end.inputs import ALL_MAY_FAIL, ONE_PROCESS, json_lines, mixture_of, parquet, said

CANDIDATES = [
    {"instruction": "Sum?", "response": "42", "references": ["42"], "score": 0.5},
    {"instruction": "Sum?", "response": "41", "references": ["42"], "score": 0.25},
]


def rerank(source: object, output: object, *flags: object) -> int:
    return cappy("rerank", "--input", source, "--output", output, *ONE_PROCESS, *flags)


def evaluate(source: object, output: object, *flags: object) -> int:
    return cappy("evaluate", "--input", source, "--task", "generation", "--output", output, *ONE_PROCESS, *flags)


def selections(output: Path) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(path).read() for path in sorted(output.glob("selections/shard-*.parquet"))])


def carried() -> dict[str, pa.Array]:
    """Columns that Python cannot hold, or that it would change."""
    uuid = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"] * 2, pa.binary(16)))
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))
    )
    return {
        "ns": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "far": pa.array([-2_200_000, 72_000_000], pa.date32()),
        "zoned": pa.array([0, -(2**62)], pa.timestamp("us", "Europe/Zurich")),
        "uuid": uuid,
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None])),
        "tensor": tensor,
        "large": pa.array(["a", "b"], pa.large_string()),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "bytes": pa.array([b"\xff\xfe", None], pa.large_binary()),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        "half": pa.array([[np.float16(0.5)], []], pa.list_(pa.float16())),
        "money": pa.array([Decimal("1.50"), Decimal("2.25")], pa.decimal128(10, 2)),
        "nested": pa.array([{"at": 5, "deep": [{"d": date(2020, 1, 1)}]}] * 2),
    }


def plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def test_columns_that_are_carried_are_carried(tmp_path: Path) -> None:
    scored = {"instruction": ["a", "b"], "response": ["x", "y"], "references": [["x"], ["x"]], "score": [1.0, 2.0]}
    table = pa.table({**scored, **carried()})
    rejected = table.slice(1).set_column(1, "response", pa.nulls(1, pa.string()))
    pq.write_table(pa.concat_tables([table, rejected]), tmp_path / "rows.parquet")
    source = pq.ParquetFile(tmp_path / "rows.parquet").read().slice(0, 2)
    assert rerank(tmp_path / "rows.parquet", tmp_path / "best", *ALL_MAY_FAIL) == 0
    best = selections(tmp_path / "best")
    best = best.take(pa.compute.sort_indices(best["instruction"]))
    for name in carried():
        assert best[name].type.equals(source[name].type), name
        found, given = (plain(table[name].combine_chunks()) for table in (best, source))
        assert found.equals(given), name
    assert [row["reason"] for row in rows_of(tmp_path / "best" / "rejects")] == ["null_value"]
    assert evaluate(tmp_path / "rows.parquet", tmp_path / "evaluation", *ALL_MAY_FAIL) == 0


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "NDJSON", "CSV"])
def test_answers_may_be_numbers(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"answers.{ending}"
    if "json" in ending.lower():
        path.write_bytes(
            b'{"instruction": 7, "response": 3.50, "references": [3.50, 4], "score": 1}\n'
            b'{"instruction": 7, "response": true, "references": [3.50, 4], "score": 0.5}\n'
        )
    else:
        separator = "\t" if ending == "tsv" else ","
        lines = ["instruction,response,references,score", "7,3.50,3.50,1", "7,true,3.50,0.5"]
        path.write_text("\n".join(lines).replace(",", separator) + "\n")
    assert rerank(path, tmp_path / "best", "--top-k", 2) == 0
    best = selections(tmp_path / "best")
    assert (best["instruction"].to_pylist(), best["response"].to_pylist()) == (["7", "7"], ["3.50", "true"])
    assert evaluate(path, tmp_path / "evaluation") == 0
    assert manifest_of(tmp_path / "evaluation")["totals"]["candidates"] == 2


def test_one_odd_row_is_one_reject(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "response": "b", "score": 1, "n": n} for n in (1, 2, 10**24, 3)]
    rows += [{"instruction": "a", "response": "b", "score": "high", "n": 4}]
    (tmp_path / "rows.jsonl").write_bytes(json_lines(*rows))
    assert rerank(tmp_path / "rows.jsonl", tmp_path / "best", *ALL_MAY_FAIL) == 0
    rejects = rows_of(tmp_path / "best" / "rejects")
    assert [row["reason"] for row in rejects] == ["does_not_fit", "does_not_fit"]
    assert "column 'n'" in rejects[0]["detail"] and "--text-columns n" in rejects[0]["detail"]
    assert "column 'score'" in rejects[1]["detail"]
    assert selections(tmp_path / "best").schema.field("n").type == pa.int64()
    assert rerank(tmp_path / "rows.jsonl", tmp_path / "text", "--text-columns", "n", "--top-k", 9, *ALL_MAY_FAIL) == 0
    assert selections(tmp_path / "text")["n"].to_pylist() == ["1", "2", str(10**24), "3"]


def test_a_column_of_several_kinds_is_carried_as_text_and_stops_nobody(tmp_path: Path) -> None:
    rows = [{**row, "id": value, "meta": {}} for row, value in zip(CANDIDATES, (1, "a2"), strict=True)]
    (tmp_path / "rows.jsonl").write_bytes(json_lines(*rows))
    assert rerank(tmp_path / "rows.jsonl", tmp_path / "best", "--top-k", 2) == 0
    best = selections(tmp_path / "best")
    assert best["id"].to_pylist() == ["1", "a2"] and best["meta"].to_pylist() == ["{}", "{}"]
    assert evaluate(tmp_path / "rows.jsonl", tmp_path / "evaluation") == 0
    data = {"d": ({"rows.jsonl": json_lines(*rows)}, [template("t", "t", "{{ instruction }}|||{{ response }}")])}
    assert build(mixture_of(tmp_path, data), tmp_path / "corpus") == 0
    assert manifest_of(tmp_path / "corpus")["totals"]["instructions"] == 2


def test_types_of_two_files_widen(tmp_path: Path) -> None:
    kinds: list[tuple[str, list[Any], pa.DataType, pa.DataType, pa.DataType]] = [
        ("i", [1], pa.int32(), pa.int64(), pa.int64()),
        ("f", [1], pa.int32(), pa.float32(), pa.float64()),
        ("t", [1_000_000], pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("us")),
        ("m", [Decimal("1.5")], pa.decimal128(10, 2), pa.decimal128(12, 1), pa.decimal128(13, 2)),
        ("l", [[1]], pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        ("b", [b"x"], pa.binary(), pa.large_binary(), pa.large_binary()),
    ]
    for file, which in (("one", 2), ("two", 3)):
        columns = {kind[0]: pa.array(kind[1], kind[which]) for kind in kinds}
        row = {"instruction": [file], "response": ["x"], "score": [1.0]}
        pq.write_table(pa.table({**row, **columns}), tmp_path / f"{file}.parquet")
    assert rerank(tmp_path / "*.parquet", tmp_path / "best") == 0
    best = selections(tmp_path / "best")
    for name, *_, kind in kinds:
        assert best.schema.field(name).type == kind, name
        assert best[name].null_count == 0


TYPED = template("t", "typed", "{{ item }}: {{ price }} {{ 'much' if price > 40 else 'little' }}|||{{ sold }}")
TYPED_CSV = b"item,price,sold\npen,3.50,true\nbook,42,false\nink,1e1,true\n"
TYPED_JSON = (
    b'{"item": "pen", "price": 3.50, "sold": "true"}\n'
    b'{"item": "book", "price": 42, "sold": "false"}\n'
    b'{"item": "ink", "price": 1e1, "sold": "true"}\n'
)


@pytest.mark.parametrize("file", ["f.csv", "f.tsv", "f.jsonl"])
def test_templates_print_what_the_file_has(file: str, tmp_path: Path) -> None:
    content = TYPED_JSON if "json" in file else TYPED_CSV.replace(b",", b"\t" if file == "f.tsv" else b",")
    assert build(mixture_of(tmp_path, {"d": ({file: content}, [TYPED])}), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out" / "instructions")
    assert [row["instruction"] for row in rows] == ["pen: 3.50 little", "book: 42 much", "ink: 1e1 little"]
    assert [row["references"] for row in rows] == [["true"], ["false"], ["true"]]


def test_whole_floats_index_choices_and_missing_labels_are_rejects(tmp_path: Path) -> None:
    choices = template("c", "c", "{{ text }}|||{{ answer_choices[label] }}", "no ||| yes")
    content = {"f.csv": b"text,label\none,0.0\ntwo,1.0\nthree,\n"}
    assert build(mixture_of(tmp_path, {"d": (content, [choices])}), tmp_path / "out", *ALL_MAY_FAIL) == 0
    assert [row["references"] for row in rows_of(tmp_path / "out" / "instructions")] == [["no"], ["yes"]]
    assert [row["reason"] for row in rows_of(tmp_path / "out" / "rejects")] == ["missing_label"]


def test_another_delimiter_and_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerows([["instruction", "response", "score"], ["caf\xe9", "a;b", "1"], ["x", 'say "y"\nz', "2"]])
    path = tmp_path / "rows.csv"
    path.write_bytes(text.getvalue().encode("cp1252"))
    assert rerank(path, tmp_path / "best", "--encoding", "cp1252") == 1
    assert "--csv-delimiter ';'" in said(capsys)
    assert rerank(path, tmp_path / "best", "--encoding", "cp1252", "--csv-delimiter", ";") == 0
    best = {row["instruction"]: row["response"] for row in selections(tmp_path / "best").to_pylist()}
    assert best == {"caf\xe9": "a;b", "x": 'say "y"\nz'}


def test_the_output_may_lie_below_the_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.parquet").write_bytes(parquet(CANDIDATES))
    for _ in range(2):
        assert rerank(tmp_path / "data" / "**" / "*.parquet", tmp_path / "data" / "best") == 0
    assert "already finished" in said(capsys)


def test_a_finished_folder_with_a_missing_file_is_completed(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(parquet(CANDIDATES))
    assert rerank(tmp_path / "rows.parquet", tmp_path / "best") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").glob("selections/shard-*.parquet")}
    for name in before:
        (tmp_path / "best" / "selections" / name).unlink()
    assert rerank(tmp_path / "rows.parquet", tmp_path / "best") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").glob("selections/shard-*.parquet")} == before


def test_names_that_people_have(tmp_path: Path) -> None:
    names = ["2024-01-01T10:00:00.jsonl", "a#b.jsonl", "run::1.jsonl", "100%.jsonl", "[v1] {x,y}.jsonl", "\udce9.jsonl"]
    for name in names:
        (tmp_path / name).write_bytes(json_lines(*CANDIDATES))
        assert rerank(tmp_path / name, tmp_path / "one", "--overwrite") == 0, name
    for skipped in (".hidden.jsonl", "_SUCCESS.jsonl", "._a.jsonl"):
        (tmp_path / skipped).write_bytes(b"no json")
    assert rerank(tmp_path / "*.jsonl", tmp_path / "all") == 0
    assert manifest_of(tmp_path / "all")["totals"]["candidates"] == 2 * len(names)
    assert rerank(f"{tmp_path}/{{a#b,100%}}.jsonl", tmp_path / "two") == 0
    assert manifest_of(tmp_path / "two")["totals"]["candidates"] == 4
    assert rerank(f"file://{tmp_path}/100%25.jsonl", f"file://{tmp_path}/three") == 0
    assert (tmp_path / "three" / "manifest.json").exists()


def test_what_would_be_lost_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_bytes(json_lines(*CANDIDATES))
    assert rerank(tmp_path / "rows.jsonl", "memory://best") != 0
    assert "memory://" in said(capsys)
    assert rerank(tmp_path / "rows.jsonl", tmp_path / "best", "--input", tmp_path / "rows.jsonl") != 0
    assert "--input" in capsys.readouterr().err
    (tmp_path / "array.json").write_text(json.dumps(CANDIDATES))
    assert rerank(tmp_path / "array.json", tmp_path / "best") == 1
    assert "JSON array" in said(capsys)
    assert not (tmp_path / "best").exists()


def test_a_corpus_that_would_be_empty_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    never = template("n", "never", "{% if text == 'x' %}{{ text }}|||y{% endif %}")
    plain = template("p", "plain", "{{ text }}|||{{ text }}")
    rows = {"f.jsonl": json_lines({"text": "a"}, {"text": "b"})}
    mixture = mixture_of(tmp_path, {"d": (rows, [never, plain])})
    assert build(mixture, tmp_path / "out", "--dry-run") == 0
    captured = capsys.readouterr()
    assert "'never'" in captured.out + captured.err
    assert build(mixture, tmp_path / "out") == 0
    assert any("never" in warning for warning in manifest_of(tmp_path / "out").get("warnings", []))
    assert build(mixture_of(tmp_path / "2", {"d": (rows, [never])}), tmp_path / "empty") == 1
    assert "'never'" in said(capsys)
    assert build(mixture, tmp_path / "shown", "--show", 1) == 0
    assert "a" in capsys.readouterr().out and not (tmp_path / "shown").exists()
