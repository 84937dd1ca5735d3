"""Inputs on which earlier versions went wrong: each with the command that shows it, and what must hold.

The inputs lie beside the repository, in `shared/cases`, and the tests are skipped where they are not.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CASES = Path(__file__).parents[2] / "shared" / "cases"
_CARRIED_BY_SCORE = ("score", "score_error", "num_tokens", "truncated")


@dataclass(frozen=True)
class Shown:
    """A case that was run in a copy of its folder: what it printed, and the statuses that its commands echoed."""

    folder: Path
    text: str

    @property
    def statuses(self) -> list[int]:
        return [int(line[3:]) for line in self.text.splitlines() if line.startswith("rc=") and line[3:].isdecimal()]

    def table(self, pattern: str) -> pa.Table:
        """Return the rows of the Parquet files that match a pattern, in the order of their names."""
        files = sorted(self.folder.glob(pattern))
        assert files, f"{pattern} matches nothing; the command printed:\n{self.text}"
        return pa.concat_tables([pq.ParquetFile(file).read() for file in files])

    def column(self, pattern: str, name: str) -> list[Any]:
        found: list[Any] = self.table(pattern)[name].to_pylist()
        return found

    def says(self, *texts: str) -> None:
        for text in texts:
            assert text in self.text, f"{text!r} is not in:\n{self.text}"


def _texts(shown: Shown) -> list[tuple[str, str]]:
    """Return the instruction and the target of each row of a corpus."""
    rows = shown.table("out/instructions/*.parquet")
    return sorted(zip(rows["instruction"].to_pylist(), (r[0] for r in rows["references"].to_pylist()), strict=True))


def _rejects(shown: Shown, out: str = "out") -> list[str]:
    if not sorted(shown.folder.glob(f"{out}/rejects/*.parquet")):
        return []
    return sorted(shown.column(f"{out}/rejects/*.parquet", "reason"))


def _columns_are_carried(
    given: str,
    written: str,
    shown: Shown,
    ignore: tuple[str, ...] = ("instruction", "response"),
    row: int | None = None,
) -> None:
    """Check that the output has the other columns of the input (of one row of it), equal in type and value."""
    source, found = pq.ParquetFile(shown.folder / given).read(), shown.table(written)
    source = source if row is None else source.slice(row, 1)
    for name in (name for name in source.column_names if name not in ignore):
        assert found.schema.field(name).type.equals(source.schema.field(name).type), name
        assert found[name].combine_chunks().equals(source[name].combine_chunks()), name


def _corpus(expected: list[tuple[str, str]], shown: Shown, rejects: tuple[str, ...] = ()) -> None:
    assert _texts(shown) == sorted(expected)
    assert _rejects(shown) == sorted(rejects)


def _case_05(shown: Shown) -> None:
    _corpus([("Say one", "no"), ("Say two", "yes"), ("Say three", "yes"), ("Say four", "no")], shown)


def _case_07(shown: Shown) -> None:
    rows = shown.table("out/rows/part-*.parquet")
    assert (rows.num_rows, rows.schema.field("at").type) == (2, pa.timestamp("us"))


def _case_10(shown: Shown) -> None:
    assert shown.table("out/rows/part-*.parquet").num_rows == 1
    files = json.loads((shown.folder / "out" / "run.json").read_text())["facts"]["files"]
    assert [file["name"] for file in files] == ["a.parquet"]


def _case_11(shown: Shown) -> None:
    assert (
        shown.table("out/rows/part-*.parquet").num_rows
        == len((shown.folder / "run [v1]/data.jsonl").read_text().split("\n")) - 1
    )


def _case_13(shown: Shown) -> None:
    assert shown.statuses == [0] * 4
    assert not list(shown.folder.glob("file:*"))
    for number in (1, 2, 3, 4):
        assert shown.table(f"out{number}/rows/part-*.parquet").num_rows > 0


def _case_15(shown: Shown) -> None:
    _corpus(
        [("Say one", "no"), ("Say th\0ree", "yes"), ("Say eight", "no")],
        shown,
        ("broken_json", "broken_json", "broken_json", "broken_json", "invalid_utf8", "missing_label"),
    )


def _case_16(shown: Shown) -> None:
    assert shown.statuses == [0, 0]
    _corpus([("Say one", "no"), ("Say two", "yes")], shown)


def _case_20(shown: Shown) -> None:
    rows = shown.table("out/rows/part-*.parquet")
    assert rows["instruction"].to_pylist() == ["a", "a2", "A3", "pair \N{GRINNING FACE}"]
    assert rows["n"].to_pylist() == [1, 2**64 - 1, 3, 5]
    assert _rejects(shown) == ["invalid_utf8"]


def _case_24(shown: Shown) -> None:
    assert shown.statuses == [1, 1]
    shown.says("d.jsonl.gz: is not compressed", "e.jsonl: ", "gzip", "e.jsonl.gz")


def _case_27(shown: Shown) -> None:
    assert shown.statuses == [1, 1]
    assert shown.text.count("--encoding utf-16") >= 2


def _equals_the_plain_forward(shown: Shown) -> None:
    worst = [float(line.split()[1]) for line in shown.text.splitlines() if line.startswith("worst ")]
    assert len(worst) == 1 and worst[0] < 1e-4, shown.text


def _case_39(shown: Shown) -> None:
    _equals_the_plain_forward(shown)
    rows = shown.table("out/rows/part-*.parquet").to_pylist()
    (empty,) = [row for row in rows if row["instruction"] == row["response"] == ""]
    assert empty["score"] is None and "no tokens" in empty["score_error"]


def _responses(expected: str, shown: Shown) -> None:
    assert shown.statuses == [0]
    assert set(shown.column("out/candidates/part-*.parquet", "response")) == {expected}
    assert shown.table("out/candidates/part-*.parquet")["instruction"].value_counts().field(0).to_pylist() == [
        "Say 0",
        "Say 1",
        "Say 2",
    ]


def _case_40(shown: Shown) -> None:
    _responses("An answer", shown)
    assert sum(count or 1 for count in shown.column("out/candidates/part-*.parquet", "count")) == 12


def _case_41(shown: Shown) -> None:
    shown.says("empty", "length", "reasoning")
    assert shown.statuses == [1]


def _case_46(shown: Shown) -> None:
    assert shown.statuses == [0, 0]
    assert shown.column("out1/candidates/part-*.parquet", "response") == shown.column(
        "out2/candidates/part-*.parquet", "response"
    )


def _case_48(shown: Shown) -> None:
    sections = {part.split("\n")[0].strip(): part for part in shown.text.split("## ")[1:]}
    for name in ("sharded", "noarch", "vocabtxt", "fp16"):
        assert "measured by scoring" in sections[name], sections[name]
    refused = {
        "onnx": "only onnx/model.onnx",
        "three": "3",
        "notok": "tokenizer",
        "nohead": "head",
        "foreign": "tokenizer",
        "peft": "base_model",
    }
    for name, word in refused.items():
        assert "measured by scoring" not in sections[name] and word in sections[name], sections[name]


def _case_52(shown: Shown) -> None:
    shown.says("--rouge unicode")
    metrics = json.loads((shown.folder / "out" / "metrics.json").read_text())
    assert "unicode" in json.dumps(metrics) or "oracle" in json.dumps(metrics)


def _case_56(shown: Shown) -> None:
    assert len(_rejects(shown)) == 1
    selected = shown.table("out/selections/shard-*.parquet")
    assert selected.schema.field("seen_at").type == pa.timestamp("ns")
    assert selected.num_rows == 1


def _case_57(shown: Shown) -> None:
    at = "on 2024-01-02 at 2023-11-14 22:13:20"
    _corpus([(f"a {at}.123456789", "12.50"), (f"b {at}", "12.50")], shown)


def _case_58(shown: Shown) -> None:
    texts = str(_texts(shown))
    assert "built-in" not in texts and "b'" not in texts and 'b"' not in texts
    assert "caf\N{LATIN SMALL LETTER E WITH ACUTE}" in texts
    total = shown.table("out/instructions/*.parquet").num_rows + len(_rejects(shown))
    assert total == pq.read_metadata(shown.folder / "d.parquet").num_rows


def _case_59(shown: Shown) -> None:
    _corpus([("good", "5 stars"), ("bad", "1 stars"), ("well", "4.5 stars")], shown)


def _case_62(shown: Shown) -> None:
    assert shown.text.count("selection") >= 3
    for number in (1, 2, 3):
        assert shown.table(f"out{number}/selections/shard-*.parquet").num_rows > 0


def _case_64(shown: Shown) -> None:
    assert shown.statuses[0] != 0 and shown.statuses[1:3] == [0, 0]
    shown.says("memory://best")
    run = (shown.folder / "out2" / "run.json").read_text()
    assert "token=abc" not in run and "d.jsonl" in run


def _case_67(shown: Shown) -> None:
    assert shown.column("out/rows/part-*.parquet", "response") == ["42", "7", "3.50"]
    assert shown.column("out2/rows/part-*.parquet", "response") == ["42"]
    assert json.loads((shown.folder / "out3" / "manifest.json").read_text())["totals"]["candidates"] == 2


def _case_71(shown: Shown) -> None:
    _corpus(
        [
            ("pen costs 3.50, version 1.10, code 1e3.", "true"),
            ("book costs 42, version 1.2, code 2e5.", "false"),
        ],
        shown,
    )


def _case_72(shown: Shown) -> None:
    assert shown.statuses == [0, 0]
    _corpus([("R C N L", "x")], shown)


def _case_77(shown: Shown) -> None:
    assert "Error" not in shown.text and "no file matches" not in shown.text
    totals = json.loads((shown.folder / "out3" / "manifest.json").read_text())["totals"]
    assert totals["candidates"] == 5
    assert json.loads((shown.folder / "out4" / "manifest.json").read_text())["totals"]["candidates"] == 1


def _case_80(shown: Shown) -> None:
    uuid = "30313233-3435-3637-3839-616263646566"
    texts = _texts(shown)
    assert [target for _, target in texts] == ['{"k": 1}', '{"k": 2}']
    assert all(uuid in instruction for instruction, _ in texts)


def _case_81(shown: Shown) -> None:
    assert "selection" in shown.text.splitlines()[-2]  # of the second run
    manifest = json.loads((shown.folder / "data" / "out" / "manifest.json").read_text())
    assert [file["name"] for file in manifest["inputs"]] == ["a.parquet"]


def _case_84(shown: Shown) -> None:
    shown.says("--input", "train.jsonl", "test.jsonl", "already finished")
    rows = sum(len((shown.folder / name).read_text().split("\n")) for name in ("train.jsonl", "test.jsonl"))
    totals = json.loads((shown.folder / "out" / "manifest.json").read_text())["totals"]
    assert 0 < totals["candidates"] <= rows


def _case_85(shown: Shown) -> None:
    assert shown.statuses == [0]
    rows = shown.table("out/rows/part-*.parquet")
    assert rows["score_error"].to_pylist() == [None, "null instruction", "null response", None]
    assert (shown.folder / "out" / "report.html").exists()


def _case_86(shown: Shown) -> None:
    _corpus(
        [
            ("The post code of Bern (within 5 km)?", "3000"),
            ("The post code of Basel (within 5 km)?", "4000"),
        ],
        shown,
    )


_SCORE = "cappy score --model ../models/roberta --output out --direct_num_workers=1 "

MUST_HOLD: dict[str, tuple[Callable[[Shown], None], str | None]] = {
    "02_nanosecond_timestamp": (partial(_columns_are_carried, "data.parquet", "out/rows/part-*.parquet"), None),
    "04_duckdb_types": (partial(_columns_are_carried, "data.parquet", "out/rows/part-*.parquet"), None),
    "05_int32_beside_int64": (_case_05, None),
    "07_timestamp_units_across_files": (_case_07, None),
    "10_hidden_and_underscore_files": (_case_10, None),
    "11_brackets_in_folder_name": (_case_11, None),
    "13_file_urls_and_tilde": (_case_13, None),
    "15_jsonl_bom_crlf_nul": (_case_15, None),
    "16_unused_mixed_column": (_case_16, None),
    "20_big_ints_dup_keys_surrogates": (_case_20, _SCORE + "--input d.jsonl --max-reject-rate 1"),
    "21_int_beyond_64_bit": (lambda shown: shown.says("'n'", "1234567890123456789012345", "--text-columns n"), None),
    "23_gz_with_trailing_zeros": (lambda shown: _has_rows(shown, 1), None),
    "24_gz_name_lies": (_case_24, None),
    "27_csv_utf16": (_case_27, None),
    "29_csv_float_label": (
        lambda shown: _corpus([("Say one", "no"), ("Say two", "yes")], shown, ("missing_label",)),
        None,
    ),
    "35_model_bart": (_equals_the_plain_forward, None),
    "36_model_t5": (_equals_the_plain_forward, None),
    "37_model_xlnet": (_equals_the_plain_forward, None),
    "39_model_qwen-reward": (
        _case_39,
        "cappy score --input d.jsonl --model ../models/qwen-reward --template none --output out --device cpu "
        "--dtype float32 --max-reject-rate 1 --direct_num_workers=1; "
        "python compare.py ../models/qwen-reward out 2>/dev/null",
    ),
    "40_api_refuses_n": (_case_40, None),
    "41_api_reasoning_only": (_case_41, None),
    "42_api_lone_surrogate": (partial(_responses, "bad \N{REPLACEMENT CHARACTER} char \0"), None),
    "44_api_usage_null": (partial(_responses, "An answer"), None),
    "45_api_content_parts": (partial(_responses, "An answer"), None),
    "46_chat_template_url": (_case_46, None),
    "48_model_folders": (_case_48, None),
    "52_evaluate_chinese": (_case_52, None),
    "56_ns_timestamp_in_reject": (_case_56, None),
    "57_dates_in_templates": (_case_57, None),
    "58_methods_and_bytes": (_case_58, None),
    "59_one_fraction_changes_all": (_case_59, None),
    "62_empty_files": (_case_62, None),
    "64_memory_output": (_case_64, None),
    "67_numeric_answers": (
        _case_67,
        f"{_SCORE} --input d.csv; {_SCORE.replace('out ', 'out2 ')} --input d.jsonl; "
        "cappy evaluate --input e.csv --task generation --output out3 --direct_num_workers=1",
    ),
    "71_csv_numbers_change": (_case_71, None),
    "72_reserved_names": (_case_72, None),
    "74_image_and_binary_columns": (
        partial(
            _columns_are_carried,
            "d.parquet",
            "out/selections/shard-*.parquet",
            ignore=("instruction", "response", "score"),
            row=1,
        ),
        None,
    ),
    "77_odd_file_names": (_case_77, None),
    "80_extension_in_template": (_case_80, None),
    "81_output_below_file_pattern": (_case_81, None),
    "84_braces_commas": (_case_84, None),
    "85_null_texts_in_score": (_case_85, None),
    "86_column_named_zip": (_case_86, None),
}
"""Case -> what must hold, and the command if it is not that of its `cmd.sh`."""


def _has_rows(shown: Shown, least: int) -> None:
    assert shown.table("out/rows/part-*.parquet").num_rows >= least


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not beside the repository")
def test_every_case_is_judged() -> None:
    assert sorted(MUST_HOLD) == sorted(path.name for path in CASES.iterdir() if (path / "cmd.sh").exists())


@pytest.mark.parametrize("name", MUST_HOLD)
def test_case(name: str, tmp_path: Path) -> None:
    if not (CASES / name).exists():
        pytest.skip("the case is not beside the repository")
    judge, command = MUST_HOLD[name]
    shutil.copytree(CASES / name, tmp_path / name)
    (tmp_path / "models").symlink_to(CASES / "models")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", command] if command else ["bash", "cmd.sh"],
        cwd=tmp_path / name,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        timeout=600,
        check=False,
    )
    judge(Shown(tmp_path / name, ran.stdout))
