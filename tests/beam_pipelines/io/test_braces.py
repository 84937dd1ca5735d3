"""Braces and commas in patterns."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.io.braces import expand_braces, top_level
from schemas.errors import CappyError


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("{train,test}.jsonl", ["train.jsonl", "test.jsonl"]),
        ("{a,b}/{1,2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("x{a,b{1,2}}y", ["xay", "xb1y", "xb2y"]),
        ("a{,.bak}", ["a", "a.bak"]),
        ("{a}{b,c}", ["{a}b", "{a}c"]),
        ("{a{b,c}}", ["{ab}", "{ac}"]),
        ("{a,b", ["{a,b"]),
        ("a}b,c{", ["a}b,c{"]),
        ("{}", ["{}"]),
        ("{[,],b}", ["[,]", "b"]),
        ("[{]a,b[}]", ["[{]a,b[}]"]),
        ("{1..3}", ["1", "2", "3"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{-01..1}", ["-01", "000", "001"]),
        ("{a..c}", ["a", "b", "c"]),
        ("{1..b}", ["{1..b}"]),
    ],
)
def test_braces(text: str, expanded: list[str]) -> None:
    assert expand_braces(text) == expanded


def test_too_many_alternatives() -> None:
    for text in ("{1..100000}", "{1..999}{1..999}"):
        with pytest.raises(CappyError, match="stands for more than 10,000 names; use wildcards"):
            expand_braces(text)


def test_commas_between_patterns() -> None:
    assert [place for place, character in top_level("a,{b,c},[d,],e") if character == ","] == [1, 7, 12]
    assert list(top_level("[],a],{x")) == [(5, ",")]
    assert list(top_level("[!],a]")) == []
    assert list(top_level("[a,b")) == [(2, ",")]


@pytest.mark.skipif(shutil.which("bash") is None, reason="compares with bash")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab{},.1", max_size=12), min_size=30, max_size=30))
def test_expansion_is_that_of_bash(texts: list[str]) -> None:
    """Where the braces of a text are balanced; bash has rules of its own for others."""
    texts = [text for text in texts if balanced(text) and "}}" not in text]
    script = "set -f; " + "\n".join(f"printf '%s\\n' _{text}_; echo" for text in texts)
    output = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert [block.split("\n") for block in output.split("\n\n")[:-1]] == [expand_braces(f"_{text}_") for text in texts]


def balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


LEAVES = st.text("abc*", min_size=1, max_size=3)


def join(choices: list[list[str]]) -> list[str]:
    names = [""]
    for options in choices:
        names = [name + option for name in names for option in options]
    return names


@given(st.lists(st.lists(LEAVES, min_size=2, max_size=3), max_size=3))
def test_every_combination_once_in_order(choices: list[list[str]]) -> None:
    assert expand_braces("".join(f"{{{','.join(options)}}}" for options in choices)) == join(choices)
