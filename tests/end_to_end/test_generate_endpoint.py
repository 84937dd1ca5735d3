"""`cappy generate --engine openai`, by its command, against a server process on the loopback."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipelines.jobs.generate import engines
from tests.conftest import cappy, data_bytes, manifest_of, rows_of
from tests.end_to_end.inputs import ALL_MAY_FAIL, json_lines, said

KEY = "sk-of-no-use"
SERVER = Path(__file__).parents[1] / "cappy_model" / "generate" / "endpoint" / "endpoint_server.py"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/session/v1"
        server.terminate()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    engines.load_engine.cache_clear()
    yield
    engines.load_engine.cache_clear()


def generate(source: Path, output: Path, url: str, *more: str) -> int:
    flags = ("--engine", "openai", "--base-url", url, "--model", "tiny", "--decodings", "sampling,topp0.95")
    return cappy("generate", "--input", source, "--output", output, *flags, *more)


def prompts(folder: Path, texts: list[str]) -> Path:
    path = folder / "in.jsonl"
    path.write_bytes(json_lines(*({"instruction": text} for text in texts)))
    return path


def everything(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_candidates_of_a_server_and_refused_prompts(tmp_path: Path, url: str, chat: list[str]) -> None:
    source = prompts(tmp_path, ["one", "!400 two", "!500-twice three"])
    assert generate(source, tmp_path / "out", url, *chat, *ALL_MAY_FAIL) == 0
    rows = rows_of(tmp_path / "out")
    assert [row["instruction"] for row in rows] == ["one"] * 8 + ["!500-twice three"] * 8
    assert {(row["generator"], row["finish_reason"]) for row in rows} == {("tiny", "stop")}
    assert all(row["log_likelihood_sum"] < 0 for row in rows)
    (rejected,) = rows_of(tmp_path / "out" / "rejects")
    assert (rejected["stage"], rejected["reason"], rejected["excerpt"]) == ("generate", "refused", "!400 two")
    assert manifest_of(tmp_path / "out")["totals"]["generated"] == 2
    assert KEY not in everything(tmp_path / "out")


def test_a_server_of_one_choice_is_asked_one_by_one(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = prompts(tmp_path, ["!no:400,n one", "!no:400,n two"])
    assert generate(source, tmp_path / "out", url, "--chat", "--max-retries", "0") == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 16 == len({row["response"] for row in rows})
    manifest = manifest_of(tmp_path / "out")
    assert (manifest["concessions"], manifest["warnings"], manifest["empty"]) == ({"n": 2}, [], {})
    assert said(capsys).count("gives one choice per request") == 1
    assert "The server gives one choice per request" in (tmp_path / "out" / "report.html").read_text()


def test_empty_responses_are_told_and_nothing_else_is_a_failure(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "because all tokens went into reasoning, with finish_reason length (raise --max-new-tokens"
    assert generate(prompts(tmp_path, ["!reasoning a", "b"]), tmp_path / "some", url, "--chat") == 0
    output, log = capsys.readouterr()
    assert f"8 empty responses: 8 {why}" in output and f"8 of 16 responses (50.0%) are empty: 8 {why}" in log
    assert why in manifest_of(tmp_path / "some")["warnings"][0]
    assert manifest_of(tmp_path / "some")["empty"] == {"reasoning_cut": 8}
    engines.load_engine.cache_clear()
    for _ in range(2):
        assert generate(prompts(tmp_path, ["!reasoning a", "!reasoning b"]), tmp_path / "all", url, "--chat") == 1
        assert f"All 16 responses are empty: 16 {why}" in said(capsys)
    assert not (tmp_path / "all" / "manifest.json").exists()


def test_a_spent_budget_stops_and_more_of_it_goes_on(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = prompts(tmp_path, [f"number {i}" for i in range(12)])
    assert generate(source, tmp_path / "whole", url, "--unit-rows", "4") == 0
    assert generate(source, tmp_path / "out", url, "--unit-rows", "4", "--max-requests", "12") == 1
    assert "the budget is used up: 12 requests" in said(capsys)
    made = set((tmp_path / "out").glob("candidates/part-*.parquet"))
    engines.load_engine.cache_clear()
    assert generate(source, tmp_path / "out", url, "--unit-rows", "4", "--max-requests", "24") == 0
    assert made < set((tmp_path / "out").glob("candidates/part-*.parquet"))
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["!401 a"], "refused the key in OPENAI_API_KEY"), (["!404 a"], "does not serve model 'tiny'")],
)
def test_an_endpoint_that_does_not_know_us(
    tmp_path: Path, url: str, texts: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(prompts(tmp_path, texts), tmp_path / "out", url) == 1
    errors = said(capsys)
    assert message in errors
    assert KEY not in errors + everything(tmp_path / "out")
