"""Differences between runs, in words."""

from typing import Any

import pytest

from beam_pipelines.runs.changes import describe_changes, describe_other_run


def file(name: str, size: int = 1000, ends: str = "e", rows: int = 5) -> dict[str, Any]:
    return {"name": name, "size": size, "ends": f"{ends}{name}", "rows": rows}


def template(name: str, texts: str = "t") -> dict[str, str]:
    return {"name": name, "id": f"id of {name}", "texts": texts}


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ([file("a")], [file("a")], ""),
        ([file("a")], [file("a", 12345, "f", 7)], "input a has another size (1,000 -> 12,345 bytes)"),
        ([file("a")], [file("a", ends="f")], "input a has the same size and other content"),
        ([file("a")], [file("a", rows=3)], "input a has another number of rows to read (5 -> 3)"),
        ([file("a"), file("b")], [file("b")], "input a is missing"),
        ([file("a")], [file("a"), file("b")], "input b is new"),
        ([file("[1].x")], [], "input [1].x is missing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["files", "inputs", "held_out"])
def test_files(before: Any, now: Any, words: str, key: str) -> None:
    assert describe_changes({key: before}, {key: now}) == words


def test_new_files_of_a_growing_run_are_no_difference() -> None:
    before, now = {"files": [file("a")]}, {"files": [file("a"), file("b")]}
    assert describe_other_run(before, now, growing=True) == ""
    went = describe_other_run(before, {"files": [file("b", 2000)]}, growing=True)
    assert went == "its input has changed: a is missing"
    other = describe_other_run({**before, "seed": 0}, {"files": [], "seed": 1}, growing=True)
    assert other == "holds another run: input a is missing; seed: 0 -> 1"


def test_a_file_under_another_name_is_told() -> None:
    moved = {**file("a"), "name": "may/a"}
    words = describe_other_run({"files": [file("a")]}, {"files": [moved, file("b")]}, growing=True)
    assert words == (
        "its input has changed: a is missing (may/a has the same content: names are relative to the fixed part of the "
        "pattern; keep that part, and add files below it)"
    )


def test_templates_are_named() -> None:
    before = {"datasets": [{"name": "things:train", "templates": [template("colour"), template("old")], "files": []}]}
    now = {
        "datasets": [
            {"name": "things:train", "templates": [template("colour", "u"), template("new")], "files": [file("a")]}
        ]
    }
    assert describe_changes(before, now).split("; ") == [
        "template 'old' of things:train was removed",
        "template 'new' of things:train was added",
        "template 'colour' of things:train has changed",
        "input a of things:train is new",
    ]
    others = {"datasets": [{"name": "quiz", "templates": [], "files": []}]}
    assert describe_changes(before, others) == "dataset things:train was removed; dataset quiz was added"
    chat = {"model": {"template": "chat", "template_hash": "1"}}
    assert (
        describe_changes({"model": {}}, chat)
        == "the template (--template, or the one in the model's files) has changed"
    )
    prompt = {"settings": {"prompt_template": {"before": "Q: ", "after": ""}}}
    assert describe_changes({"settings": {"prompt_template": None}}, prompt) == (
        "the prompt template (--prompt-template) has changed"
    )


def test_the_rest_is_told_by_its_path_and_many_are_counted() -> None:
    assert describe_changes({"seed": 0}, {"seed": 1}) == "seed: 0 -> 1"
    before, now = ({"settings": dict.fromkeys("abcdefg", value)} for value in (0, 1))
    words = describe_changes(before, now)
    assert words.startswith("settings.a: 0 -> 1; settings.b") and words.endswith("settings.e: 0 -> 1 and 2 more")
