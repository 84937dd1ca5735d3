"""`cappy build-corpus` over bad data and templates: an error or a reject row, never a traceback or a lost row."""

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import build, cappy, edit_mixture, manifest_of, rows_of, template
from tests.end_to_end.inputs import (
    ALL_MAY_FAIL,
    HUGE,
    PLAIN,
    check_accounts,
    damaged,
    good,
    json_lines,
    mixture_of,
    parquet,
    rejects_of,
    said,
)

WHOLE = parquet(good(20))
UNREADABLE = {
    "truncated.parquet": (WHOLE[:-20], "is not a whole Parquet file"),
    "empty.parquet": (b"", "is not a whole Parquet file"),
    "foreign.parquet": (b"hello" * 100, "is not a whole Parquet file"),
    "no_footer.parquet": (b"PAR1\0\0\0\0PAR1", "is not a whole Parquet file"),
    "prose.jsonl": (b"once upon\na time\n", "holds no row"),
    "foreign.jsonl.gz": (b"not compressed at all", "gzip"),
    "repeated.csv": (b"text,text\na,b\n", "has 2 columns named 'text'; rename all but one"),
    "latin.csv": (b"text,answer,caf\xe9\na,b,c\n", "latin.csv"),
    "utf16.csv": ("text,answer\na,b\n".encode("utf-16"), "utf16.csv"),
    "page.html": (b"<html>", "unknown input format"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = UNREADABLE[name]
    mixture = mixture_of(tmp_path, {"d": ({"good.parquet": WHOLE, name: content}, PLAIN)})
    assert build(mixture, tmp_path / "out") == 1
    error = said(capsys)
    assert name in error and message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv", "blank.json", "header.tsv"])
def test_empty_files_are_files_without_rows(name: str, tmp_path: Path) -> None:
    content = {"blank.json": b"\n \n", "header.tsv": b"text\tanswer\n"}.get(name, b"")
    mixture = mixture_of(tmp_path, {"d": ({"good.parquet": WHOLE, name: content}, PLAIN)})
    assert build(mixture, tmp_path / "out") == 0
    assert manifest_of(tmp_path / "out")["totals"]["instructions"] == 20


def test_texts_and_numbers_in_one_column_are_texts(tmp_path: Path) -> None:
    rows = json_lines({"text": "a", "answer": "b"}, {"text": 1, "answer": 2.50})
    assert build(mixture_of(tmp_path, {"d": ({"mixed.jsonl": rows}, PLAIN)}), tmp_path / "out") == 0
    found = [(row["instruction"], row["references"]) for row in rows_of(tmp_path / "out" / "instructions")]
    assert found == [("a", ["b"]), ("1", ["2.5"])]


DISAGREEING = {
    "text and number": {"b.parquet": parquet([{"text": 1, "answer": "x"}])},
    "formats": {"b.jsonl": json_lines({"text": 1, "answer": "x"})},
}


@pytest.mark.parametrize("case", DISAGREEING)
def test_disagreeing_schemas_name_column_and_files(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"a.parquet": WHOLE, **DISAGREEING[case]}
    assert build(mixture_of(tmp_path, {"d": (files, PLAIN)}), tmp_path / "out") == 1
    error = said(capsys)
    assert all(word in error for word in ("'text'", "int64", "string", *files))


def test_missing_column_names_template_and_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": json_lines({"text": "a", "other": 1})}, PLAIN)})
    assert build(mixture, tmp_path / "out") == 1
    error = said(capsys)
    assert "'plain' uses 'answer'" in error and "text, other" in error and "`rename`" in error
    edit_mixture(mixture, lambda m: m["datasets"][0].update(rename={"nothing": "answer"}))
    assert build(mixture, tmp_path / "out") == 1
    assert "`rename` names 'nothing'" in said(capsys)


BAD_LINES: list[tuple[bytes, str | None]] = [
    (b'{"text": "a", ', "broken_json"),
    (b"[1, 2]", "broken_json"),
    (b"[" * 100_000, "broken_json"),
    (b'{"text": "a", "answer": ' + b"9" * 5_000 + b"}", "broken_json"),
    (b'\xff\xfe{"text": "a"}', "invalid_utf8"),
    (b'{"text": "a", "answer": "\xff"}', "invalid_utf8"),
    (b'{"text": "a", "answer": "\\ud800"}', "invalid_utf8"),
    (b'{"text": "a", "answer": "b", "\\udfff": 1}', "invalid_utf8"),
    (b'{"text": null, "answer": "b"}', "null_value"),
    (b'{"answer": "b"}', "null_value"),
    (b'{"text": " ", "answer": "b"}', "empty_instruction"),
    (b'{"text": "a", "answer": ""}', "empty_target"),
    (b'{"text": "a \xef\xb7\x90 b", "answer": "c"}', "reserved_character"),
    (b'{"text": "' + HUGE.encode() + b'", "answer": "b"}', "row_too_large"),
    (b'{"text": "nul \\u0000", "answer": "\\u0000 is kept"}', None),
    (b'{"text": "odd number", "answer": "x", "n": NaN}', None),
]


def test_bad_json_lines_become_rejects(tmp_path: Path) -> None:
    """Each is rejected at its byte offset, in plain and compressed files; the good lines around it are kept."""
    content, expected = b"", []
    for index, (line, reason) in enumerate(BAD_LINES):
        content += json_lines(*good(1, index)) + b"\n"
        if reason:
            expected.append((f"@{len(content)}", reason))
        content += line + b"\n"
    files = {"plain": {"a.jsonl": content}, "packed": {"a.jsonl.gz": gzip.compress(content, 1)}}
    mixture = mixture_of(tmp_path, {name: (file, PLAIN) for name, file in files.items()})
    assert build(mixture, tmp_path / "out", *ALL_MAY_FAIL) == 0
    manifest = check_accounts(tmp_path / "out")
    for name in files:
        assert rejects_of(tmp_path / "out", name) == sorted(expected)
        assert manifest["datasets"][name]["rows"] == 2 * len(BAD_LINES)
    assert max(len(row["excerpt"] or "") for row in rows_of(tmp_path / "out" / "rejects")) <= 500


def test_rows_of_another_type_after_the_first_ones_become_rejects(tmp_path: Path) -> None:
    late: list[dict[str, Any]] = [
        {"text": 1, "answer": "a"},
        {"text": "q", "answer": ["a"]},
        {"text": "q", "answer": {"a": 1}},
    ]
    content = json_lines(*good(10_000), *late, *good(5, 10_000))
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": content}, PLAIN)})
    assert build(mixture, tmp_path / "out", *ALL_MAY_FAIL) == 0
    manifest = check_accounts(tmp_path / "out")
    assert manifest["rejects"]["by_reason"] == {"read": {"does_not_fit": 2}}
    assert manifest["totals"]["instructions"] == 10_006  # a number is text where text is wanted


def test_bad_csv_rows_become_rejects(tmp_path: Path) -> None:
    rows = {
        b'"two\nlines","a ""quoted"" word, and a comma"': None,
        b"too few": "broken_csv",
        b"too,many,fields": "broken_csv",
        b"q,a\xff": "invalid_utf8",
        b"q,": "empty_target",
        HUGE.encode() + b",b": "row_too_large",
        b'"' + (b"y" * 999_999 + b"\n") * 20 + b'",b': "row_too_large",
        b'"' + b"z" * 9_000_000 + b'",' + b"z" * 9_000_000: "row_too_large",
        b"q2,a2": None,
        b'q3,"never closed': "broken_csv",
    }
    content = b"text,answer\n" + b"\n".join(rows)
    files = {"a.csv": content, "b.csv.gz": gzip.compress(content, 1), "only_header.csv": b"text,answer\n"}
    assert build(mixture_of(tmp_path, {"d": (files, PLAIN)}), tmp_path / "out", *ALL_MAY_FAIL) == 0
    manifest = check_accounts(tmp_path / "out")
    expected = [(f"#{index}", reason) for index, reason in enumerate(rows.values()) if reason]
    assert rejects_of(tmp_path / "out", "d") == sorted(2 * expected)
    assert manifest["totals"]["rows"] == 2 * len(rows)
    assert {row["instruction"] for row in rows_of(tmp_path / "out" / "instructions")} == {"two\nlines", "q2"}


def test_bad_parquet_rows_become_rejects(tmp_path: Path) -> None:
    texts = [b"fine", b"\xff\xfe", None, b"", "x\ufdd0y".encode(), HUGE.encode(), b"also fine"]
    reasons = ["invalid_utf8", "null_value", "empty_instruction", "reserved_character", "row_too_large"]
    table = pa.table({"text": pa.array(texts, pa.binary()).view(pa.string()), "answer": [f"a {i}" for i in range(7)]})
    nulls = pa.table({"text": pa.nulls(2), "answer": ["a", "b"]})
    groups = damaged(parquet(good(300), row_group_size=100, compression="zstd"), 1)
    contents = {
        "rows": {"a.parquet": parquet(table)},
        "nulls": {"a.parquet": parquet(good(2)), "b.parquet": parquet(nulls)},
        "groups": {"a.parquet": groups, "b.parquet": parquet(pa.Table.from_pylist(good(3)).slice(0, 0))},
    }
    mixture = mixture_of(tmp_path, {name: (files, PLAIN) for name, files in contents.items()})
    assert build(mixture, tmp_path / "out", *ALL_MAY_FAIL) == 0
    manifest = check_accounts(tmp_path / "out")
    assert rejects_of(tmp_path / "out", "rows") == [(f"#{i}", reason) for i, reason in enumerate(reasons, 1)]
    assert rejects_of(tmp_path / "out", "nulls") == [("#0", "null_value"), ("#1", "null_value")]
    assert rejects_of(tmp_path / "out", "groups") == sorted((f"#{i}", "unreadable") for i in range(100, 200))
    assert manifest["datasets"]["groups"]["rows"] == 300


def test_truncated_stream_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of rows lost is unknown, so they cannot be counted as rejects."""
    packed = gzip.compress(json_lines(*good(5_000)))
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl.gz": packed[: len(packed) // 2]}, PLAIN)})
    assert build(mixture, tmp_path / "out") == 1
    assert "a.jsonl.gz" in said(capsys)


LABELS = [0, 1, -1, None, 2, 99, -7]
CHOSEN = template("l-0", "chosen", "{{ text }}|||{{ answer_choices[label] }}", "no ||| yes")
TESTED = template("l-1", "tested", "Is it, {{ text }}?|||{{ 'yes' if label == 1 else 'no' }}", "no ||| yes")


def test_rows_without_a_usable_label_become_rejects(tmp_path: Path) -> None:
    whole = [{"text": f"q{i}", "label": label} for i, label in enumerate(LABELS)]
    real = pa.table({"text": [f"q{i}" for i in range(4)], "label": [1.0, -1.0, float("nan"), None]})
    text = b"text,label\nq0,1\nq1,-1\nq2,\nq3,0\n"
    mixture = mixture_of(
        tmp_path,
        {
            "whole": ({"a.parquet": parquet(whole)}, [CHOSEN]),
            "real": ({"a.parquet": parquet(real)}, [TESTED]),
            "text": ({"a.csv": text}, [TESTED]),
        },
    )
    assert build(mixture, tmp_path / "out", *ALL_MAY_FAIL) == 0
    check_accounts(tmp_path / "out")
    without, outside = "missing_label", "empty_target"
    assert rejects_of(tmp_path / "out", "whole") == [
        ("#2", without), ("#3", without), ("#4", outside), ("#5", outside), ("#6", without)
    ]  # fmt: skip
    assert rejects_of(tmp_path / "out", "real") == [(f"#{i}", without) for i in (1, 2, 3)]
    assert rejects_of(tmp_path / "out", "text") == [("#1", without), ("#2", without)]


def test_target_outside_of_the_choices_is_counted_and_kept(tmp_path: Path) -> None:
    options = [["a", "b"], ["a", "a", ""], [], ["b", "c"], ["a", None], None]
    rows = [{"text": f"q{i}", "answer": "a", "options": choices} for i, choices in enumerate(options)]
    pick = template("c-0", "pick", "{{ text }}|||{{ answer }}", "{{ options | join('|||') }}")
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": json_lines(*rows)}, [pick])})
    assert build(mixture, tmp_path / "out", *ALL_MAY_FAIL) == 0
    manifest = check_accounts(tmp_path / "out")
    assert manifest["notes"]["target_not_in_choices"] == 2
    assert manifest["totals"]["rejected"] == 2
    pairs = Counter((row["instruction"], row["response"], row["label"]) for row in rows_of(tmp_path / "out" / "pairs"))
    assert set(pairs) == {
        ("q0", "a", 1.0), ("q0", "b", 0.0), ("q1", "a", 1.0), ("q2", "a", 1.0),
        ("q3", "a", 1.0), ("q3", "b", 0.0), ("q3", "c", 0.0),
    }  # fmt: skip


REFUSED = {
    "syntax": ("{{ text |||{{", None),
    "unknown filter": ("{{ text | tojson }}|||x", None),
    "internals": ("{{ text.__class__.__mro__ }}|||x", None),
    "import": ("{% import 'os' as os %}{{ text }}|||x", None),
    "nested": (f"{{{{ {'(' * 500}text{')' * 500} }}}}|||x", None),
    "choices": ("{{ text }}|||x", "{{ 1 / 0 }}"),
    "endless choices": ("{{ text }}|||x", "{% for i in range(10 ** 9) %}x|||{% endfor %}"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_template_is_named(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jinja, choices = REFUSED[case]
    mixture = mixture_of(tmp_path, {"d": ({"a.parquet": WHOLE}, [template("r-0", "at fault", jinja, choices)])})
    assert build(mixture, tmp_path / "out") in (1, 2)
    error = said(capsys)
    assert "'at fault'" in error and "templates.yaml" in error and "\ufdd0" not in error and "\\ufdd0" not in error


HOSTILE = {
    "undefined": "{{ text.nothing.more }}|||x",
    "unsafe": "{{ text }}{{ text['__class__'] }}|||x",
    "too_many_iterations": "{{ text }}{% for i in range(1000000000) %}x{% endfor %}|||x",
    "output_too_large": "{{ text }}{{ 'x' * 10000000000 }}|||x",
    "too_many_parts": "{{ text }}|||x|||y",
    "template_error": "{{ text }}{{ text + 1 }}|||x",
}
MORE_HOSTILE = [
    "{{ text }}{% for i in range(40000) %}{% for j in range(40000) %}x{% endfor %}{% endfor %}|||x",
    "{% set ns = namespace(s=text) %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}|||x",
    "{{ text }}{{ '%10000000000d' % 1 }}|||x",
    "{{ text }}{{ 10 ** 1000000000 }}|||x",
    "{{ text }}{{ '{:10000000000}'.format(1) }}|||x",
]
# VmHWM rather than ru_maxrss, which starts at the size of the parent process: that of the tests.
RUN_AND_REPORT_MEMORY = (
    "import re, sys; from beam_pipelines.cli import main; status = main(sys.argv[1:]); "
    "print('kilobytes', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(status)"
)


def test_hostile_templates_end_within_limits_of_time_and_memory(tmp_path: Path) -> None:
    templates = [template(f"h-{reason}", reason, jinja) for reason, jinja in HOSTILE.items()]
    templates += [template(f"m-{i}", f"more {i}", jinja) for i, jinja in enumerate(MORE_HOSTILE)]
    mixture = mixture_of(tmp_path, {"d": ({"a.parquet": WHOLE}, [*PLAIN, *templates])})
    command = [sys.executable, "-c", RUN_AND_REPORT_MEMORY, "build-corpus", "--mixture", str(mixture)]
    command += ["--output", str(tmp_path / "out"), "--direct_num_workers=1", *ALL_MAY_FAIL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert int(done.stdout.split()[-1]) < 1_000_000
    manifest = check_accounts(tmp_path / "out")
    assert manifest["totals"]["instructions"] == 20
    found = Counter(row["reason"] for row in rows_of(tmp_path / "out" / "rejects"))
    assert found.total() == 20 * len(templates) and set(found) == set(HOSTILE)
    for reason in HOSTILE:
        rows = [r for r in rows_of(tmp_path / "out" / "rejects") if r["detail"].startswith(f"template {reason!r}:")]
        assert {row["reason"] for row in rows} == {reason}


def test_template_without_variables_loses_no_row(tmp_path: Path) -> None:
    constant = [template("k-0", "constant", "Say yes.|||yes")]
    files = {"parquet": {"a.parquet": WHOLE}, "lines": {"a.jsonl": json_lines(*good(20))}}
    files["csv"] = {"a.csv": b"text\n" + b"a\n" * 20}
    mixture = mixture_of(tmp_path, {name: (contents, constant) for name, contents in files.items()})
    assert build(mixture, tmp_path / "out") == 0
    assert check_accounts(tmp_path / "out")["totals"]["instructions"] == 60


def test_data_is_never_parsed_as_a_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["{{ 7 * 7 }} {% for x in y %}", "a ||| b", "x| |y", "{# no #}", "3ed2dface8203c4c9dfb1a5dc58e41e0"]
    rows = [{"text": text, "answer": f"{text} </script><script>alert({i})</script>"} for i, text in enumerate(texts)]
    mixture = mixture_of(tmp_path, {"d": ({"a.jsonl": json_lines(*rows)}, PLAIN)})
    assert build(mixture, tmp_path / "out") == 0
    instructions = rows_of(tmp_path / "out" / "instructions")
    found = [(row["instruction"], row["references"]) for row in instructions]
    assert found == [(row["text"], [row["answer"]]) for row in rows]
    assert "<script>alert(" not in (tmp_path / "out" / "report.html").read_text()
    said(capsys)


def test_nothing_applicable_no_partner_no_rows_or_only_bad_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = [template("n-0", "never", "{% if text == 'never' %}{{ text }}|||{{ answer }}{% endif %}")]
    contents: dict[str, tuple[dict[str, bytes], list[dict[str, Any]]]] = {
        "never": ({"a.parquet": WHOLE}, never),
        "alone": ({f"{i}.jsonl": json_lines(*good(1, i)) for i in range(3)}, PLAIN),
        "no_rows": ({"a.parquet": parquet(pa.Table.from_pylist(good(1)).slice(0, 0))}, PLAIN),
        "bad": ({"a.jsonl": json_lines({"text": None, "answer": "a"}, b"{", b"{")}, PLAIN),
    }
    empty = {
        "never": "20 rows not applicable",
        "no_rows": "input files have no rows",
        "bad": "2 rows rejected, broken_json",
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        mixture = mixture_of(tmp_path / name, {name: content})
        assert build(mixture, tmp_path / name / "out", *ALL_MAY_FAIL) == int(name in empty)
        assert empty.get(name, "") in said(capsys)
    output = tmp_path / "alone" / "out"
    check_accounts(output)
    assert cappy("verify", output) == cappy("report", output) == 0
    assert manifest_of(output)["totals"]["pairs"] == manifest_of(output)["notes"]["mismatch_skipped"] == 3
