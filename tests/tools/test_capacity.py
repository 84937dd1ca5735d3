"""`python -m tools.capacity`: its table of the manifests of finished runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.capacity import main

FILES = [{"path": "a", "rows": 1, "bytes": 3_000_000}, {"path": "b", "rows": 1, "bytes": 1_000_000}]


def run(folder: Path, job: str, totals: dict[str, int], **more: Any) -> Path:
    folder.mkdir()
    content = {"job": job, "totals": totals, "seconds": 36.0, "files": FILES, "configuration": {}, **more}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """Run the command; return the rows of its table."""
    assert main(["--cores", "2", "--cluster-cores", "20", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()[2:]


def test_every_stage_and_what_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {"real": 500, "this_launch": 500}
    folders = [
        run(tmp_path / "i", "build-corpus", {"instructions": 2_000_000}, configuration={"instructions_only": True}),
        run(tmp_path / "c", "build-corpus", {"pairs": 100_000}, configuration={"instructions_only": False}),
        run(tmp_path / "g", "generate", {"candidates": 1_000}, tokens=tokens),
        run(tmp_path / "s", "score", {"scored": 10}, tokens=tokens),
        run(tmp_path / "r", "rerank", {"candidates": 100_000}),
    ]
    rows = printed(capsys, "--pairs", 10**6, *folders)
    few = "2,000,000 instructions in 36.0 s | 0.01 | 2.0 MB | 1M instructions | 0.01 | 0.0005 | 2.0 MB | "
    label = "100,000 pairs in 36.0 s | 0.2 | 40.0 MB | 1M pairs | 0.2 | 0.01 | 40.0 MB | "
    generate = "1,000 candidates in 36.0 s | 20 | 4.0 GB | 1M candidates | 20 | 1 | 4.0 GB | not measured"
    score = "10 pairs in 36.0 s | 2,000 | 400.0 GB | 1M pairs | 2,000 | 100 | 400.0 GB | not measured"
    names = ["instructions", "label", "generate", "score", "rerank"]
    cells = [few, label, generate, score, label.replace("pairs", "candidates")]
    assert rows == [f"| {name} | {text} |" for name, text in zip(names, cells, strict=True)]


def test_hours_of_a_gpu_follow_from_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "s", "score", {"scored": 10}, tokens={"real": 3_600, "this_launch": 3_600})
    measured = tmp_path / "gpu.json"
    measured.write_text(json.dumps({"rates": {"Scorer": {"tokens": 20_000, "seconds": [1.0, 2.0, 9.0]}}}))
    for flags in (("--gpu-tokens-per-second", 10_000), ("--gpu", measured)):
        [row] = printed(capsys, "--pairs", 10**6, *flags, folder)
        assert row.endswith("| 10 |")


@pytest.mark.parametrize(
    ("job", "totals", "tokens", "message"),
    [
        ("evaluate", {"rows": 1}, None, "a run of evaluate is not a stage"),
        ("score", {"scored": 5}, {"real": 9, "this_launch": 4}, "was resumed"),
        ("rerank", {"candidates": 0}, None, "has no candidates"),
    ],
)
def test_runs_without_a_rate(
    job: str, totals: dict[str, int], tokens: dict[str, int] | None, message: str, tmp_path: Path, capsys: Any
) -> None:
    folder = run(tmp_path / "run", job, totals, tokens=tokens)
    assert main(["--cores", "2", "--cluster-cores", "20", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_without_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "run", "rerank", {"candidates": 1})
    for content in ("{}", "[", '{"rates": {"Scorer": {"tokens": 1, "seconds": []}}}'):
        (tmp_path / "gpu.json").write_text(content)
        flags = ["--cores", "2", "--cluster-cores", "2", "--gpu", str(tmp_path / "gpu.json")]
        assert main([*flags, str(folder)]) == 2
        assert "has no rate of a GPU" in capsys.readouterr().err
