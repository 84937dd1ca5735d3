"""Messages of a job's stages name flags that the job has, or are said in other words."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import beam_pipelines
from beam_pipelines.cli import build_parser
from beam_pipelines.jobs.adapt.config import AdaptConfig
from beam_pipelines.jobs.adapt.wording import words_of
from beam_pipelines.jobs.demo.job import WORDS as WORDS_OF_DEMO
from beam_pipelines.runs.wording import reword

ROOT = Path(beam_pipelines.__file__).parents[1]
ADAPT = AdaptConfig(train="t/*", validation="v/*", model="m", output="o")
SCORE = ["beam_pipelines/jobs/score", "cappy_model/score", "cappy_model/checkpoints", "beam_pipelines/models"]
SHARED = ["beam_pipelines/runs/growth.py", "beam_pipelines/runs/folder.py", "beam_pipelines/runs/files.py"]
STAGES = [*(f"beam_pipelines/jobs/{job}" for job in ("rerank", "evaluate", "train")), "cappy_model/train"]
CAUSED_BY_DATA = [
    "beam_pipelines/jobs/score/manifest.py",
    "beam_pipelines/jobs/train/manifest.py",
    "beam_pipelines/jobs/train/warnings.py",
    "cappy_model/score/check.py",
    "cappy_model/train/split.py",
    "cappy_model/train/training.py",
]
"""Modules with the messages that remain where inputs and models are a job's own, as the demo's are."""
MODULES = {
    "adapt": [*SCORE, *SHARED, *STAGES, "beam_pipelines/jobs/adapt"],
    "rerank": SCORE + SHARED,
    "demo": [*SHARED, *CAUSED_BY_DATA, "beam_pipelines/jobs/demo"],
}
WORDS: dict[str, Mapping[str, str]] = {"adapt": words_of(ADAPT), "rerank": {}, "demo": WORDS_OF_DEMO}
_NOT_GIVEN = ["--reuse", "--scorers", "--limit", "--per-template", "--accelerator"]
UNREACHABLE = {
    "adapt": {
        "options of the stages that adapt does not set": [*_NOT_GIVEN, "--order-column", "--pairs-seen", "--task"],
        "its pairs have a label in [0, 1]": ["--label-column", "--labels", "--chosen-column", "--rejected-column"],
        "the trained scorer has one logit": ["--head"],
        "of `cappy doctor`": ["--input"],
        "of other programs": ["--exclude", "--runner"],
    },
    "rerank": {
        "options of score that rerank does not set": _NOT_GIVEN,
    },
    "demo": {
        "options of the stages that the demo does not set": ["--reuse", "--limit", "--per-template"],
        "of `cappy doctor`": ["--model"],
    },
}


def messages(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module but docstrings and declarations of flags; a field of an f-string is `X`."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "flag":
            skipped.update(ast.walk(node))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "WORDS" for to in node.targets):
            skipped.update(ast.walk(node))
        if isinstance(node, ast.JoinedStr) and node not in skipped:
            skipped.update(node.values)
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


def messages_of(job: str) -> list[tuple[Path, str]]:
    """Return the messages of a job's stages, each with its module."""
    patterns = [name if name.endswith(".py") else f"{name}/*.py" for name in MODULES[job]]
    paths = [path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)]
    return [(path, text) for path in paths for text in messages(ast.parse((ROOT / path).read_text()))]


@pytest.mark.parametrize("job", MODULES)
def test_no_message_of_a_stage_names_a_flag_that_the_job_lacks(job: str) -> None:
    own = build_parser(job)._subparsers._group_actions[0].choices[job]._option_string_actions  # type: ignore
    allowed = {*own, *(flag for flags in UNREACHABLE[job].values() for flag in flags)}
    foreign = [
        (str(path), flag, text)
        for path, text in messages_of(job)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", reword(text, WORDS[job]))
        if flag not in allowed
    ]
    assert not foreign


@pytest.mark.parametrize("job", MODULES)
def test_every_pattern_matches_a_message(job: str) -> None:
    texts = [text for _, said in messages_of(job) for text in (said, said.replace("X", "--score-column", 1))]
    unmatched = [pattern for pattern in WORDS[job] if not any(re.search(pattern, text) for text in texts)]
    assert unmatched == ([re.escape(f"--held-out {ADAPT.validation}")] if job == "adapt" else [])


def test_texts_of_the_user_stand_as_they_are() -> None:
    config = replace(ADAPT, validation=r"data\dev\1/*.parquet")
    said = reword(f"--held-out {config.validation}: no file matches", words_of(config))
    assert said == f"--validation {config.validation}: no file matches"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("--held-out v/*: no file matches", "--validation v/*: no file matches"),
        ("--held-out other/*: no file matches", "--held-out other/*: no file matches"),
        (
            "column 'score' exists already and would be overwritten; --score-column names another one",
            "column 'score' exists already and would be overwritten; rename it in the files of --validation",
        ),
        (
            "--group-column: column 'instruction_id' is float",
            "column 'instruction_id' is float",
        ),
        (
            "--response-column response: there is no such column; there are a",
            "there is no column 'response'; there are a",
        ),
        ("two columns for --score-column", "two columns for the column of the score"),
        ("train for more steps (--epochs, --max-steps), or", "train for more steps (--max-steps), or"),
    ],
)
def test_words_of_adapt(said: str, expected: str) -> None:
    assert reword(said, words_of(ADAPT)) == expected
