"""JSON Lines: each line is read once, whatever the spans; bad rows fail alone."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.io.formats import json_lines
from beam_pipelines.io.inputs import open_input
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
