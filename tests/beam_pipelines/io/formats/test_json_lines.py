"""JSON Lines: each line is read once, whatever the spans; any value is a row or a reject; bad rows fail alone."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats import json_lines
from beam_pipelines.io.formats.base import Dialect
from beam_pipelines.io.inputs import open_input
from beam_pipelines.io.resolve import Roles
from schemas import chunks
from schemas.errors import CappyError
from tests.beam_pipelines.io.reading import bad, good, units

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


LINES = ['{"a": 1}', '{"a": 22, "b": "é\\u00e9"}', "{broken", "", "  ", "[1]", '{"a": "x"}']


@anywhere
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=40),
    span=st.integers(1, 60),
    unit_rows=st.integers(1, 9),
    newline=st.sampled_from(["\n", "\r\n"]),
    ends=st.booleans(),
)  # fmt: skip
def test_json_lines_are_read_once_whatever_the_spans(
    tmp_path: Path, lines: list[str], span: int, unit_rows: int, newline: str, ends: bool
) -> None:
    lines = ['{"a": 0, "b": "first"}', *lines]
    data = (newline.join(lines) + newline * ends).encode()
    path = tmp_path / "f.jsonl"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "SPAN_BYTES", span)
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        found = list(units(path, unit_rows))
    kept = [line for line in lines if line.strip()]
    reasons = {"{broken": "broken_json", "[1]": "broken_json", '{"a": "x"}': "does_not_fit"}
    assert [row["a"] for row in good(found)] == [json.loads(line)["a"] for line in kept if line not in reasons]
    assert [reason for _, reason in bad(found)].count("broken_json") == sum(
        reasons.get(k) == "broken_json" for k in kept
    )
    assert len(bad(found)) == sum(line in reasons for line in kept)
    for unit in found:
        for position, row in zip(unit.positions.tolist(), unit.rows.to_pylist(), strict=True):
            assert json.loads(data[position:].split(b"\n")[0])["a"] == row["a"], "the position is the byte of the line"


def test_json_rows_fail_alone(tmp_path: Path) -> None:
    huge = json.dumps({"a": "x" * (chunks.CHUNK_BYTES + 10), "n": 0}).encode()
    lines = [
        b'{"a": "one", "n": 1}',
        b'{"a": "two"',
        b"\xff\xfe",
        huge,
        b'{"a": ["three"], "n": 3}',
        b'{"a": "f", "n": 2.5}',
    ]
    lines += [
        b'{"a": "\\ud800", "n": 4}',
        b'{"n": 99999999999999999999}',
        b'{"a": null, "n": null}',
        b'{"a": "z", "c": 1}',
    ]
    lines += [b"[" * 100_000, b'{"a": "last", "n": 7}']
    (tmp_path / "f.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        found = list(units(tmp_path / "f.jsonl", exact=True))
    assert [row["a"] for row in good(found)] == ["one", None, "last"]
    reasons = [reason for _, reason in bad(found)]
    assert reasons[:5] == ["broken_json", "invalid_utf8", "row_too_large", "does_not_fit", "does_not_fit"]
    assert reasons[5:] == ["invalid_utf8", "does_not_fit", "does_not_fit", "broken_json"]
    assert all(len(b.detail) < 2000 for unit in found for b in unit.bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        projected = list(units(tmp_path / "f.jsonl", exact=False))
    assert [row["a"] for row in good(projected)] == ["one", None, "z", "last"]


def test_values_that_arrow_would_truncate_do_not_fit(tmp_path: Path) -> None:
    """Values that Arrow cuts: a float to an integer, a text to its characters, a struct to the fields known."""
    first = {"n": 1, "l": ["a"], "s": {"k": 1}}
    others = [{"n": 1.5, "l": [], "s": None}, {"n": 1, "l": "ab", "s": None}, {"n": 1, "l": [], "s": {"k": 1, "z": 2}}]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, [first, *others])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 1)
        found = list(units(tmp_path / "f.jsonl"))
    assert good(found) == [first]
    assert [reason for _, reason in bad(found)] == ["does_not_fit"] * 3


def test_remote_json_lines(remote: dict[str, bytes]) -> None:
    remote["/d/a.jsonl"] = b"".join(b'{"a": %d}\n' % i for i in range(300))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "SPAN_BYTES", 1000)
        found = list(units("remote://host:1/d/*.jsonl"))
    assert [row["a"] for row in good(found)] == list(range(300))
    assert {(unit.file.url, unit.file.name) for unit in found} == {("remote://host:1/d/a.jsonl", "a.jsonl")}
    with pytest.raises(CappyError, match="remote://locked/a.jsonl: cannot be listed: NoCredentials"):
        open_input(["remote://locked/a.jsonl"], {})


TEXTS = st.text(st.characters(), max_size=5)  # with halves of surrogate pairs
NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([10**4000, -(10**4400), 2**63])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; NaN equals itself, and fields that are null may be absent."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same(one.get(name), other.get(name)) for name in one.keys() | other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other or (
        isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    )


def _holds(read: Any, value: Any) -> bool:
    """Return whether what was read of a value is the value, or its text in JSON; lists item by item."""
    if isinstance(read, list) and isinstance(value, list):
        return len(read) == len(value) and all(map(_holds, read, value))
    return _same(read, value) or (isinstance(read, str) and _same(json.loads(read), value))


@anywhere
@given(data=st.data(), templates=st.booleans(), head=st.integers(1, 4))
def test_any_value_of_json_is_a_row_or_a_reject(
    tmp_path: Path, data: st.DataObject, templates: bool, head: int
) -> None:
    sys.set_int_max_str_digits(0)
    try:
        rows = data.draw(st.lists(st.fixed_dictionaries({"a": VALUES}, optional={"b": VALUES}), min_size=1, max_size=8))
        texts = [json.dumps(row, ensure_ascii=data.draw(st.booleans())) for row in rows]
    finally:
        sys.set_int_max_str_digits(4300)
    rows.insert(0, {"a": None})
    lines = [text.encode("utf-8", "surrogatepass") for text in ['{"a": null}', *texts]]
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", head)
        found = list(units(tmp_path / "f.jsonl", 3, roles=Roles(templates=templates)))
    starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    positions = [position for unit in found for position in unit.positions.tolist()]
    rejected = [row.position for unit in found for row in unit.bad]
    assert sorted(positions + rejected) == starts, "each line is a row or a reject, with its place"
    for position, row in zip(positions, good(found), strict=True):
        written = rows[starts.index(position)]
        for name, read in row.items():
            assert _holds(read, written.get(name)), name
    for unit in found:
        for bad_row in unit.bad:
            assert bad_row.reason != "does_not_fit" or bad_row.detail.startswith("column ")


def test_odd_values_change_no_type(tmp_path: Path) -> None:
    rows = ["1", "2", "NaN", "12345678901234567890123", "1e400", "2.5", "true", '"x"', "[1]", "null"]
    (tmp_path / "f.jsonl").write_text("".join(f'{{"n": {value}}}\n' for value in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "HEAD_ROWS", 5)
        found = list(units(tmp_path / "f.jsonl", 100))
    assert found[0].rows.schema.field("n").type == pa.int64()
    assert [row["n"] for row in good(found)] == [1, 2, None]
    details = [row.detail for row in found[0].bad]
    assert details == [
        f"column 'n': {value} does not fit its type, int64; if the job only carries it, "
        "--text-columns n keeps the text of the file"
        for value in rows[2:9]
    ]
    assert found[0].bad[2].excerpt == '{"n": 1e400}'
    found = list(units(tmp_path / "f.jsonl", 100, roles=Roles(text_columns=["n"])))
    assert [row["n"] for row in good(found)] == [*rows[:7], "x", "[1]", None]


def test_infinity_is_a_value_and_an_overflow_is_none(tmp_path: Path) -> None:
    values = ["0.5", "Infinity", "1e400", "-Infinity", "-1e999", "NaN"]
    lines = [f'{{"n": {value}, "l": [0.5], "s": {{"x": [0.5]}}}}' for value in values]
    lines += ['{"l": [1e400]}', '{"l": [Infinity]}', '{"s": {"x": [1e400]}}', '{"s": {"x": [-Infinity]}}']
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    found = list(units(tmp_path / "f.jsonl", 100))
    assert [str(row["n"]) for row in good(found)] == ["0.5", "inf", "-inf", "nan", "None", "None"]
    assert [row.detail.split(":")[0] for row in found[0].bad] == [
        "column 'n'",
        "column 'n'",
        "column 'l'",
        "column 's'",
    ]


def test_numbers_keep_their_digits_where_text_is_wanted(tmp_path: Path) -> None:
    numbers = ["3.50", "1e400", "-0", "1234567890123456789012345", "42", "NaN", "true", '"x"', "null"]
    (tmp_path / "f.jsonl").write_text("".join(f'{{"a": {value}, "l": [{value}, "y"]}}\n' for value in numbers))
    found = list(units(tmp_path / "f.jsonl", roles=Roles(text=["a", "l"])))
    texts = [*numbers[:7], "x", None]
    assert [row["a"] for row in good(found)] == texts
    assert [row["l"] for row in good(found)] == [[text, "y"] for text in texts]
    (tmp_path / "f.jsonl").write_text('{"a": "x"}\n{"a": [1.0]}\n{"a": {"k": 2}}\n')
    found = list(units(tmp_path / "f.jsonl", roles=Roles(text=["a"])))
    assert [row["a"] for row in good(found)] == ["x"]
    assert [row.detail.split(" does")[0] for row in found[0].bad] == ["column 'a': [1.0]", "column 'a': {\"k\": 2}"]


def test_templates_see_values_as_written(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(
        '{"t": "é", "s": 5, "m": {"a": 3.50}, "d": "x"}\n'
        '{"t": "b", "s": 4.50, "m": [ 1, -0 ], "d": 1, "d": "\\u00e9\\""}\n'
        '{"t": "c", "s": -0, "m": null, "d": false}\n'
    )
    found = list(units(tmp_path / "f.jsonl", roles=Roles(templates=True)))
    assert good(found) == [
        {"t": "é", "s": "5", "m": '{"a": 3.50}', "d": '"x"'},
        {"t": "b", "s": "4.50", "m": "[ 1, -0 ]", "d": '"é\\""'},
        {"t": "c", "s": "-0", "m": None, "d": "false"},
    ]


def test_columns_of_several_types_are_carried_as_text(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"id": 1, "m": {}, "t": "x"}\n{"id": "a2", "m": {}, "t": "y"}\n')
    source = open_input([str(tmp_path / "f.jsonl")], {})
    assert (source.schema.names, source.unusable) == (["id", "m", "t"], {})
    assert good(list(units(tmp_path / "f.jsonl"))) == [
        {"id": "1", "m": "{}", "t": "x"},
        {"id": "a2", "m": "{}", "t": "y"},
    ]


def test_the_last_of_equal_keys_wins(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(
        '{"a": 1, "a": "x"}\n{"a": "\\ud800", "a": "y"}\n{"a": {"k": 1, "k": 2}, "a": 3.0}\n'
    )
    assert [row["a"] for row in good(list(units(tmp_path / "f.jsonl")))] == ["x", "y", "3.0"]


def test_lines_that_are_no_rows_have_a_place_and_a_reason(tmp_path: Path) -> None:
    lines = [
        (b'{"t": "one"}\r', None),
        (b"\r", None),
        (b'{"t": "t\x00wo"}\r', "broken_json"),
        (b'\xef\xbb\xbf{"t": "th\\u0000ree"}', None),
        (b'{"t": "four",}', "broken_json"),
        (b'\x00\x00{"t": "five"}', "broken_json"),
        (b"[1,2]", "broken_json"),
        (b"null", "broken_json"),
        (b'{"t": "\xff"}', "invalid_utf8"),
        (b'{"t": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"t": "\\uD83D"}', "invalid_utf8"),
        (b'{"u": [{"\\ud83d": 1}]}', "invalid_utf8"),
        (b'{"t": "\\ud83d\\ude00", "\\\\ud83d": 1}', None),
        (b'{"t": ' + b"1" * 4301 + b"}", "broken_json"),
        (b'{"t": ' + b"[" * 201 + b"]" * 201 + b"}", "broken_json"),
        (b'{"t": ' + b"[" * 100_000, "broken_json"),
        (b'{"t": "end"}', None),
    ]
    data = b"\xef\xbb\xbf" + b"\n".join(line for line, _ in lines)
    (tmp_path / "f.jsonl").write_bytes(data)
    found = list(units(tmp_path / "f.jsonl", 100))
    assert [row["t"] for row in good(found)] == ["one", "th\0ree", "😀", "end"]
    start, expected = 3, []
    for line, reason in lines:
        if reason:
            expected.append((f"f.jsonl@{start}", reason))
        start += len(line) + 1
    assert bad(found) == expected
    assert "nested more than 200 levels deep" in found[0].bad[-1].detail
    assert found[0].bad[7].detail == "\\ud83d is half of a surrogate pair, not a character"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1},\n{"a": 2}]\n', r"is a JSON array, not JSON Lines; `jq -c '\.\[\]' FILE`"),
        (b'[\n{"a": 1},\n{"a": 2}\n]\n', "is a JSON array"),
        (b'[{"a": 1}]', "is a JSON array"),
        (b'{\n  "a": 1\n}\n', "JSON objects over several lines"),
        (b'{\n "a": [\n{"b": 1}\n]\n}\n', "JSON objects over several lines"),
        (b'{"a": 1}\r{"a": 2}\r{"a": 3}\r', "lines end in CR alone"),
        (b"<!DOCTYPE html>\n<html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PAR1\x15\x04\x15\x00", r"is a Parquet file; let its name end in \.parquet"),
        (b"PK\x03\x04\x14\x00", "is a zip file"),
        ('{"a": 1}\n'.encode("utf-16"), "is UTF-16 text; give --encoding utf-16"),
        ('{"a": 1}\n'.encode("utf-16-be"), "looks like UTF-16 text; give --encoding utf-16-be"),
        (b"some text\n", "none of its first 1 lines is a JSON object"),
    ],
)
def test_files_that_are_no_json_lines_are_told_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(CappyError, match=rf"f\.json: .*{message}"):
        open_input([str(tmp_path / "f.json")], {})


def test_an_empty_file_beside_others(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text("")
    (tmp_path / "2.jsonl").write_text(" \n\n")
    (tmp_path / "3.jsonl").write_text('{"a": 1}\n')
    assert good(list(units(f"{tmp_path}/*.jsonl"))) == [{"a": 1}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
def test_positions_in_another_encoding_are_those_in_utf8(tmp_path: Path, encoding: str) -> None:
    lines = ['{"a": "é"}', "", '{"a": 1.5', '{"a": "ü"}']
    (tmp_path / "f.jsonl").write_bytes("\n".join(lines).encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "SPAN_BYTES", 5)
        found = list(units(tmp_path / "f.jsonl", 100, dialect=Dialect(encoding=encoding)))
    assert [row["a"] for row in good(found)] == ["é", "ü"]
    assert found[0].positions.tolist() == [0, len("\n".join(lines[:3]).encode()) + 1]
    assert bad(found) == [(f"f.jsonl@{len(lines[0].encode()) + 2}", "broken_json")]


def test_rows_that_another_encoding_cannot_decode(tmp_path: Path) -> None:
    for encoding, line in (
        ("gb18030", b'{"a": "\xff"}\n'),
        ("shift_jis", b'{"a": "\x85\xff"}\n'),
        ("utf-16-le", b'{\x00"\x00\x00\xd8\n\x00'),
    ):
        good_line = '{"a": "テ"}\n'.encode(encoding)
        (tmp_path / "f.jsonl").write_bytes(good_line + line + good_line)
        found = list(units(tmp_path / "f.jsonl", 100, dialect=Dialect(encoding=encoding)))
        assert [row["a"] for row in good(found)] == ["テ", "テ"]
        assert [(row.reason, row.detail) for row in found[0].bad] == [
            ("invalid_encoding", f"holds bytes that are not {encoding}")
        ]
