"""`cappy build-corpus`: what templates print is what the files say, and templates that make nothing are told."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import build, cappy, edit_mixture, manifest_of, rows_of, template
from tests.end_to_end.inputs import json_lines, mixture_of, parquet, said

CSV = (
    b"item,price,version,year,answer,label,zip\n"
    b"pen,3.50,1.10,1e3,true,0.0,007\n"
    b"book,42,2,900,false,1.0,8000\n"
    b"hat,1,1,1,TRUE,,1\n"
)
LINES = b'\xef\xbb\xbf{"item": "a", "stars": 5, "more": [3.50, 7, null]}\r\n{"item": "b", "stars": 4.5, "more": []}\n'
PRINTS = [
    template("p", "prints", "{{ item }}: {{ price }}, {{ version }}, {{ year }}, {{ zip }} ||| {{ answer }}"),
    template("l", "label", "{{ item }} at {{ price * 2 }} ||| {{ answer_choices[label] }}", "no ||| yes"),
]
STARS = [template("s", "stars", "{{ item }}, {{ more }} ||| {{ stars }} stars")]
DATES = [template("d", "dates", "{{ at }}, {{ ats }} and {{ raw }} ||| {{ price }}")]


def test_templates_print_what_the_files_say(tmp_path: Path) -> None:
    at = pa.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pa.timestamp("ns"))
    table = pa.table({"at": at, "raw": [b"caf\xc3\xa9", b"\xff"], "price": pa.array([1, 2]).cast(pa.decimal128(21, 2))})
    table = table.append_column("ats", pa.ListArray.from_arrays([0, 1, 2], at))
    datasets = {
        "c": ({"a.csv": CSV}, PRINTS),
        "j": ({"a.jsonl": LINES}, STARS),
        "p": ({"a.parquet": parquet(table)}, DATES),
    }
    assert build(mixture_of(tmp_path, datasets), tmp_path / "out", "--max-reject-rate=1") == 0
    instructions = rows_of(tmp_path / "out" / "instructions")
    assert {(row["instruction"], row["references"][0]) for row in instructions} == {
        ("pen: 3.50, 1.10, 1e3, 007", "true"),
        ("book: 42, 2, 900, 8000", "false"),
        ("pen at 7.0", "no"),
        ("book at 84", "yes"),
        ("a, [3.50, 7, None]", "5 stars"),
        ("b, []", "4.5 stars"),
        ("2023-11-14 22:13:20.123456789, ['2023-11-14 22:13:20.123456789'] and café", "1.00"),
    }
    rejects = {(row["position"], row["reason"]): row for row in rows_of(tmp_path / "out" / "rejects")}
    assert sorted(rejects) == [("#1", "unusable_value"), ("#2", "missing_label")]
    assert json.loads(rejects["#1", "unusable_value"]["excerpt"])["raw"] == "ff"


def test_a_label_that_is_missing_rejects_its_row_alone(tmp_path: Path) -> None:
    lines = b'{"t": "a", "label": 0}\n{"t": "b", "label": NaN}\n{"t": "c", "label": 1}\n{"t": "d", "label": null}\n'
    choices = template("t", "t", "{{ t }} ||| {{ answer_choices[label] }}", "no ||| yes")
    floats = parquet(pa.table({"t": ["a", "b", "c", "d"], "label": [0.0, float("nan"), 1.0, None]}))
    for name, content in (("a.jsonl", lines), ("a.parquet", floats)):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        assert (
            build(mixture_of(folder, {"d": ({name: content}, [choices])}), folder / "out", "--max-reject-rate=1") == 0
        )
        found = [(row["instruction"], row["references"]) for row in rows_of(folder / "out" / "instructions")]
        assert found == [("a", ["no"]), ("c", ["yes"])]
        assert [row["reason"] for row in rows_of(folder / "out" / "rejects")] == ["missing_label"] * 2


GOOD = template("g", "good", "{{ item }} ||| {{ stars }}")
NEVER = template("n", "never", "{% if item == 'x' %}{{ item }} ||| {{ stars }}{% endif %}")


def test_a_template_without_an_instruction_is_told_before_and_after_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": LINES}, [GOOD, NEVER])})
    before = "dataset d: template 'never' renders none of its 2 rows: 2 rows not applicable"
    assert cappy("build-corpus", "--mixture", mixture, "--output", tmp_path / "out", "--dry-run") == 0
    assert f"warning: {before}" in capsys.readouterr().out
    assert build(mixture, tmp_path / "out") == 0
    after = "d: template 'never' made no instruction of 2 rows: 2 not applicable"
    out, log = capsys.readouterr()
    assert f"warning: {after}" in out
    assert before in log
    assert after in log
    manifest = manifest_of(tmp_path / "out")
    assert manifest["warnings"] == [after]
    templates = manifest["datasets"]["d"]["templates"]
    assert templates["d n"]["example"] is None
    assert templates["d g"]["example"] == {
        "example_id": "a.jsonl@0",
        "instruction": "a",
        "target": "5",
        "choices": None,
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "One example of each template" in page
    assert "made no instruction of 2 rows" in page


def test_an_empty_corpus_fails_whatever_the_reject_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": LINES}, [NEVER])})
    assert build(mixture, tmp_path / "out", "--max-reject-rate=1") == 1
    assert "the corpus would be empty: no template renders any row" in said(capsys)
    assert not (tmp_path / "out").exists()
    # So many rows that the sample is not all of them; and rows of which the cap leaves none.
    (tmp_path / "data" / "d" / "a.jsonl").write_bytes(json_lines({"item": "a", "stars": 1}) * 1_001)
    assert build(mixture, tmp_path / "out", "--max-reject-rate=1") == 1
    assert "the corpus is empty: no template made an instruction (1,001 not applicable)" in said(capsys)
    failure = json.loads((tmp_path / "out" / "failure.json").read_bytes())
    assert failure["reason"].startswith("the corpus is empty")
    assert not (tmp_path / "out" / "manifest.json").exists()
    (tmp_path / "capped").mkdir()
    capped = mixture_of(tmp_path / "capped", {"d": ({"a.jsonl": LINES}, [GOOD, NEVER])})
    edit_mixture(capped, lambda m: m["datasets"][0].update(max_examples=1))
    assert build(capped, tmp_path / "other", "--max-reject-rate=1") == 1
    assert "the corpus is empty: no template made an instruction (4 sampled out)" in said(capsys)


def test_examples_are_shown_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": LINES}, [GOOD, NEVER])})
    assert cappy("build-corpus", "--mixture", mixture, "--output", tmp_path / "out", "--show", "1") == 0
    assert capsys.readouterr().out == (
        "d: template 'good'\n\n  a.jsonl@0\n  instruction  a\n  target       5\n\n"
        "d: template 'never'\n\n  0 examples in 2 rows: 2 rows not applicable\n"
    )
    assert not (tmp_path / "out").exists()
