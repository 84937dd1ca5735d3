"""Names and places of files, by the commands: what is read, where it is written, and what is written about it."""

import functools
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import cappy, manifest_of, rows_of, write_templates
from tests.conftest import template as one_template

ONE = "--direct_num_workers=1"


def write(path: Path | str, response: str = "r") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    row = {"instruction_id": response, "instruction": "i", "response": response, "score": 1.0}
    Path(path).write_text(json.dumps(row) + "\n")


def responses(output: Path) -> list[str]:
    return sorted(row["response"] for row in rows_of(output))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_urls_and_the_home_folder(here: Path) -> None:
    write("home/my data/d.jsonl")
    for number, (pattern, output) in enumerate(
        [
            (f"file://{here}/home/my%20data/d.jsonl", f"file://{here}/out%200"),
            (f"file://{here}/home/my data/d.jsonl", f"file:{here}/out 1"),
            ("~/my data/*.jsonl", "~/../out 2"),
        ]
    ):
        assert cappy("rerank", "--input", pattern, "--output", output, ONE) == 0
        assert responses(here / f"out {number}") == ["r"]
    assert cappy("verify", f"file://{here}/out%200") == cappy("report", "~/../out 1") == 0
    assert sorted(path.name for path in here.iterdir()) == ["home", "out 0", "out 1", "out 2"]


@pytest.mark.parametrize("flag", ["--input", "--output"])
def test_a_file_url_without_an_absolute_path(here: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    write("d.jsonl")
    given = {"--input": "d.jsonl", "--output": "out", flag: "file://data/d"}
    assert cappy("rerank", *(word for pair in given.items() for word in pair), ONE) == 2
    assert "file://data/d: names the machine 'data'" in capsys.readouterr().err
    assert [path.name for path in here.iterdir() if path.is_dir()] == ["home"]


@pytest.mark.parametrize("name", [b"caf\xe9", b"run::1", b"a{b,c} [v1]", b"100%"])
def test_folders_of_any_name(here: Path, name: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """In worker processes, too, which get the names from the launcher."""
    folder = here / os.fsdecode(name)
    write(folder / "d.jsonl", "a")
    write(folder / f"{os.fsdecode(name)}.jsonl", "b")
    (folder / "bad.jsonl").write_text(
        '{"instruction_id": "c", "instruction": "i", "response": "c", "score": 2.0}\nbad\n'
    )
    output = folder / "out"
    words = ("rerank", "--input", folder / "*.jsonl", "--output", output, "--max-reject-rate=1")
    assert cappy(*words, "--direct_num_workers=2", "--direct_running_mode=multi_processing") == 0
    assert cappy(*words, ONE) == cappy("verify", output) == 0
    assert "already finished" in capsys.readouterr().err
    folder.rename(here / "plain")  # pyarrow opens no path that is not UTF-8
    output = here / "plain" / "out"
    assert responses(output) == ["a", "b", "c"]
    shown = {b"caf\xe9": "caf\\xe9.jsonl"}.get(name, f"{os.fsdecode(name)}.jsonl")
    assert sorted(file["name"] for file in manifest_of(output)["inputs"]) == sorted(["bad.jsonl", "d.jsonl", shown])
    assert [row["source"] for row in rows_of(output / "rejects")] == ["bad.jsonl"]


def test_a_mixture_with_lists_and_odd_folders(here: Path) -> None:
    for name in ("x,y/d.jsonl", "x,y/e.jsonl", "f [1].jsonl", "_hidden.jsonl"):
        write(here / "m" / name, name)
    write_templates(
        here / "home" / "templates", "toy", [one_template("t-0", "say", "{{ instruction }} {{ response }}|||ok")]
    )
    (here / "m" / "mixture.yaml").write_text(
        "templates: ~/templates\ndatasets:\n"
        "  - {name: toy, split: a, paths: 'x,y/{d,e}.jsonl,f [1].jsonl'}\n"
        "  - {name: toy, split: b, paths: ['~/../m/*.jsonl']}\n"
    )
    assert cappy("build-corpus", "--mixture", "m/mixture.yaml", "--output", "out", "--instructions-only", ONE) == 0
    written = sorted(row["instruction"] for row in rows_of(here / "out" / "instructions"))
    assert written == ["i f [1].jsonl", "i f [1].jsonl", "i x,y/d.jsonl", "i x,y/e.jsonl"]
    assert [file["name"] for file in manifest_of(here / "out")["inputs"]] == [
        *("f [1].jsonl", "x,y/d.jsonl", "x,y/e.jsonl", "f [1].jsonl")
    ]


def test_an_output_below_its_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("data/d.jsonl")
    (here / "link").symlink_to("data")
    for _ in range(2):
        assert cappy("rerank", "--input", "data/**", "--output", "link/out", ONE) == 0
    assert "already finished" in capsys.readouterr().err
    write("data/e.jsonl", "e")
    assert cappy("rerank", "--input", "data/**", "--output", "data/out", ONE) == 1
    assert "its input has changed: e.jsonl is new" in capsys.readouterr().err


@pytest.fixture
def server(here: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(here))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_tokens_are_not_written(here: Path, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("d.jsonl")
    (here / "broken.jsonl.gz").write_bytes(b"\x1f\x8b\x08 broken")
    told = f"{server}/d.jsonl?token=abcdef"
    assert cappy("rerank", "--input", told, "--output", "out", "--debug", ONE) == 0
    assert [file["name"] for file in manifest_of(here / "out")["inputs"]] == ["d.jsonl"]
    assert json.loads((here / "out" / "run.json").read_bytes())["configuration"]["input"] == f"{server}/d.jsonl?***"
    written = b"".join(path.read_bytes() for path in (here / "out").rglob("*") if path.is_file())
    assert b"abcdef" not in written
    for name in ("broken.jsonl.gz", "none.jsonl", "d.txt"):
        assert cappy("rerank", "--input", f"{server}/{name}?token=abcdef", "--output", "other", ONE) == 1
    printed = capsys.readouterr()
    assert "abcdef" not in printed.out + printed.err
    assert f"{server}/none.jsonl?***: no file matches" in printed.err
