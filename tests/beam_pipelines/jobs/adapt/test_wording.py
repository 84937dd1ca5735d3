"""Messages of a job's stages name flags that the job has, or are said in other words."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import beam_pipelines
from beam_pipelines.cli import build_parser
from beam_pipelines.jobs.adapt.config import AdaptConfig
from beam_pipelines.jobs.adapt.wording import words_of
from beam_pipelines.jobs.rerank.job import _WORDS as WORDS_OF_RERANK
from beam_pipelines.runs.wording import reword

ROOT = Path(beam_pipelines.__file__).parents[1]
ADAPT = AdaptConfig(train="t/*", validation="v/*", model="m", output="o")
SCORE = ["beam_pipelines/jobs/score", "cappy_model/score", "cappy_model/checkpoints", "beam_pipelines/models"]
SHARED = ["beam_pipelines/runs/growth.py", "beam_pipelines/runs/folder.py", "beam_pipelines/runs/files.py"]
STAGES = ["beam_pipelines/jobs/rerank", "beam_pipelines/jobs/evaluate", "beam_pipelines/jobs/train"]
MODULES = {
    "adapt": [*SCORE, *SHARED, *STAGES, "beam_pipelines/jobs/adapt", "cappy_model/train"],
    "rerank": SCORE + SHARED,
}
WORDS: dict[str, Mapping[str, str]] = {"adapt": words_of(ADAPT), "rerank": WORDS_OF_RERANK}
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
}


def messages(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module but docstrings and declarations of flags; a field of an f-string is `X`."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "flag":
            skipped.update(ast.walk(node))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "_WORDS" for to in node.targets):
            skipped.update(ast.walk(node))
        if isinstance(node, ast.JoinedStr) and node not in skipped:
            skipped.update(node.values)
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


@pytest.mark.parametrize("job", MODULES)
def test_no_message_of_a_stage_names_a_flag_that_the_job_lacks(job: str) -> None:
    own = build_parser(job)._subparsers._group_actions[0].choices[job]._option_string_actions  # type: ignore
    allowed = {*own, *(flag for flags in UNREACHABLE[job].values() for flag in flags)}
    patterns = [name if name.endswith(".py") else f"{name}/*.py" for name in MODULES[job]]
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    foreign = [
        (str(path.relative_to(ROOT)), flag, text)
        for path in paths
        for text in messages(ast.parse(path.read_text()))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", reword(text, WORDS[job]))
        if flag not in allowed
    ]
    assert not foreign


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
        ("Give another folder, with --reuse o/scored to take its scores over.", "Give another folder."),
    ],
)
def test_words_of_adapt(said: str, expected: str) -> None:
    assert reword(said, words_of(ADAPT)) == expected
