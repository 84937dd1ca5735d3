import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from beam_pipelines.io.inputs import NOTHING_KNOWN, Known
from beam_pipelines.jobs.score import ScoreConfig
from beam_pipelines.runs.config import InputConfig
from beam_pipelines.runs.flags import character, codec
from beam_pipelines.runs.folder import describe_run, open_run
from beam_pipelines.runs.inputs import known_files, open_inputs, reading_inputs, rows_to_come
from schemas.errors import CappyError, UsageError


@dataclass(frozen=True, kw_only=True)
class Reading(InputConfig):
    limit: int | None = None


def config(folder: Path, **options: object) -> Reading:
    return Reading(output=str(folder / "out"), **options)  # type: ignore[arg-type]


def test_inputs_are_read_as_the_options_say(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("name;n\ncaf\xe9;1\nx;2\n".encode("cp1252"))
    options = config(tmp_path, csv_delimiter=";", encoding="cp1252", text_columns=("n",), limit=1)
    source = open_inputs(options, str(tmp_path / "*.csv"))
    assert source.schema == pa.schema([("name", pa.string()), ("n", pa.string())])
    assert source.rows == 1
    assert open_inputs(replace(options, limit=None), str(tmp_path / "*.csv")).rows == 2


def test_files_below_the_output_are_no_input(tmp_path: Path) -> None:
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text('{"a": 1}\n')
    found = open_inputs(config(tmp_path), str(tmp_path / "**" / "*.jsonl"))
    assert [file.name for file in found.files] == ["in/a.jsonl"]


def test_an_unknown_text_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(CappyError, match="--text-columns b: there is no such column; there are a"):
        open_inputs(config(tmp_path, text_columns=("b",)), str(tmp_path / "a.jsonl"))


def test_options_from_python_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\tb\n1\t2\n")
    assert open_inputs(config(tmp_path, csv_delimiter="tab"), str(tmp_path / "a.csv")).schema.names == ["a", "b"]
    with pytest.raises(UsageError, match="'base64' is not an encoding"):
        open_inputs(config(tmp_path, encoding="base64"), str(tmp_path / "a.csv"))


def test_only_what_differs_from_the_defaults_is_in_the_fingerprint(tmp_path: Path) -> None:
    assert reading_inputs(config(tmp_path)) == {}
    assert reading_inputs(config(tmp_path, encoding="UTF8")) == {}
    given = config(tmp_path, text_columns=("b", "a"), csv_delimiter="tab")
    assert reading_inputs(given) == {"reading": {"text_columns": ["a", "b"], "csv_delimiter": "\t"}}


def test_delimiters_and_encodings_are_parsed() -> None:
    assert [character(text) for text in (";", "tab", "\\t", "|")] == [";", "\t", "\t", "|"]
    assert [codec(name) for name in ("cp1252", "UTF-16", "utf8", "utf-8-sig")] == ["cp1252", "utf-16", None, None]
    for parse, wrong in ((character, ""), (character, ";;"), (character, '"'), (codec, "base64"), (codec, "utf-99")):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
            parse(wrong)


def test_rows_to_come_are_those_of_new_files(tmp_path: Path) -> None:
    options = ScoreConfig(input=f"{tmp_path}/*.csv", output=str(tmp_path / "out"), model="m")
    for number, name in enumerate(("b", "c"), 1):
        (tmp_path / f"{name}.csv").write_text("x\n" + "1\n" * number)
    source = open_inputs(options, options.input)
    assert rows_to_come(options, "score", source) == 3
    files = [file.fingerprint_inputs() for file in source.files]
    run = describe_run({"job": "score", "settings": {}, "files": files}, options, grows=True)
    open_run(options.output, run, overwrite=False, storage={})
    assert known_files(options, "score") == Known(("b.csv", "c.csv"), 2)
    assert known_files(options, "generate") == known_files(replace(options, overwrite=True), "score") == NOTHING_KNOWN
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 7)
    source = open_inputs(options, options.input, known=known_files(options, "score"))
    assert rows_to_come(options, "score", source) == 10
    (tmp_path / "out" / "manifest.json").write_text("{}")
    assert rows_to_come(options, "score", source) == 7


def test_the_table_of_an_unfinished_run_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scored" / "rows").mkdir(parents=True)
    (tmp_path / "scored" / "rows" / "a.jsonl").write_text('{"instruction": "a"}\n')
    for name, warned in ((None, False), ("run.json", True), ("manifest.json", False)):
        if name is not None:
            (tmp_path / "scored" / name).write_text("{}")
        caplog.clear()
        assert open_inputs(config(tmp_path), str(tmp_path / "scored/rows/*.jsonl")).rows == 1
        assert (f"{tmp_path}/scored: holds an unfinished run" in caplog.text) is warned
