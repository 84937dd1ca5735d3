"""Flags made from the fields of a configuration, and the parsers of their values."""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from beam_pipelines.cli import build_parser
from beam_pipelines.runs.config import JobConfig
from beam_pipelines.runs.flags import (
    add_flags,
    check_words,
    config_from,
    flag,
    flag_name,
    json_object,
    names,
    positive,
    rate,
    seconds,
    share,
    whole,
)
from beam_pipelines.runs.job import JOBS
from schemas.errors import UsageError
from tests.conftest import cappy

API = "with an API"


@dataclass(frozen=True, kw_only=True)
class Base:
    """Options that others inherit."""

    top_k: int = flag(1, metavar="K", help="number of candidates")
    output: str = flag(metavar="DIR", help="output folder")


@dataclass(frozen=True, kw_only=True)
class Own(Base):
    """A configuration with a flag of each kind."""

    top_k: int = 5
    limit: int | None = flag(None, metavar="N", help="maximum rows")
    kind: str = flag("a", choices=("a", "b"), help="kind of row")
    paths: tuple[str, ...] = flag((), action="append", help="input; may be repeated")
    files: str | None = flag(None, metavar="PATTERN", help="files")
    columns: tuple[str, ...] = flag(("x", "y"), parse=names, help="columns")
    likelihoods: bool = flag(True, group=API, help="do not ask for likelihoods")
    verbose: bool = flag(False, help="print more")
    storage: dict[str, Any] = flag(default_factory=dict, name="storage-options", parse=json_object, help="options")
    internal: str = "no flag"


def parser_of(config: type[Any] = Own) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, config)
    return parser


def parsed(*arguments: str) -> Any:
    return config_from(Own, parser_of().parse_args(["--output", "o", *arguments]))


def test_defaults_are_those_of_the_fields() -> None:
    found = parsed()
    assert (found.top_k, found.limit, found.kind, found.columns, found.storage) == (5, None, "a", ("x", "y"), {})
    assert found.likelihoods and not found.verbose and list(found.paths) == [] and found.internal == "no flag"


def test_every_flag_sets_its_field() -> None:
    found = parsed(
        *("--top-k", "2", "--limit", "7", "--kind", "b", "--paths", "p", "--paths", "q", "--columns", "u, v"),
        *("--no-likelihoods", "--verbose", "--storage-options", '{"a": 1}'),
    )
    assert found == Own(
        output="o",
        top_k=2,
        limit=7,
        kind="b",
        paths=["p", "q"],  # type: ignore[arg-type] # argparse appends to a list
        columns=("u", "v"),
        likelihoods=False,
        verbose=True,
        storage={"a": 1},
    )


def test_own_flags_come_first_and_groups_have_headings() -> None:
    shown = parser_of().format_help()
    own, rest = shown.index("  --limit"), shown.index("  --output")
    assert own < rest < shown.index(f"{API}:") < shown.index("  --no-likelihoods")
    assert "number of candidates (default: 5)" in shown and "columns (default: x,y)" in shown
    assert "--internal" not in shown


def test_a_field_without_a_default_is_a_required_flag() -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser_of().parse_args([])


@pytest.mark.parametrize("arguments", [("--limit", "0"), ("--kind", "c"), ("--columns", "a,,b"), ("--top-k", "x")])
def test_wrong_values_are_errors(arguments: tuple[str, str]) -> None:
    with pytest.raises(argparse.ArgumentError, match=arguments[0]):
        parsed(*arguments)


def test_names_of_flags() -> None:
    assert flag_name(Own, "top_k") == "--top-k"
    assert flag_name(Own, "likelihoods") == "--no-likelihoods"
    assert flag_name(Own, "storage") == "--storage-options"
    assert flag_name(JobConfig, "max_reject_rate") == "--max-reject-rate"


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (positive, "1", 1),
        (whole, "0", 0),
        (share, "0", 0.0),
        (share, "1", 1.0),
        (rate, "1e-5", 1e-5),
        (seconds, "1.5", 1.5),
        (names, "a , b", ("a", "b")),
        (json_object, '{"a": [1]}', {"a": [1]}),
    ],
)
def test_values(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((positive, text) for text in ("0", "-1", "1.5", "x", "", str(sys.maxsize + 1))),
        *((whole, text) for text in ("-1", "1.5", "x")),
        *((share, text) for text in ("-0.1", "1.1", "nan", "x")),
        *((rate, text) for text in ("0", str(math.inf), "nan", "x")),
        *((seconds, text) for text in ("0", "inf", "nan", "x")),
        *((names, text) for text in ("", "a,", ",")),
        *((json_object, text) for text in ("no json", "[1]", "1")),
    ],
)
def test_values_that_make_no_sense(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse(text)


COMMON = ("--output", "o", "--storage-options", "{}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kind", "a", "--kind", "b"), r"--kind takes one value and is given twice: 'a' and 'b'; leave one"),
        (("--limit=1", "--limit", "1"), r"--limit takes one value and is given twice: '1' and '1'"),
        (("--limit", "1", "--limit=2"), r"--limit takes .*'1' and '2'"),
        (("--columns", "a", "--columns", "b"), r"--columns takes .*'a' and 'b'"),
        (("--files", "a*", "--files=b*"), r"'a\*' and 'b\*'; give one pattern for both: --files 'a\*,b\*'$"),
        (("--files", "a", "b", "c"), r"unexpected argument 'b' after --files a; quote a pattern, such as --files '"),
        (("--files=a", "b", "--limit", "1"), r"unexpected argument 'b' after --files a; quote"),
        (("--output=memory://x",), r"--output memory://x: is in the memory of this process, and would be gone"),
        (("--output", "simplecache::memory://x"), r"--output simplecache::memory://x: is in the memory"),
    ],
)
def test_slips_of_a_command_line_are_errors(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_words(parser_of(), words)


@pytest.mark.parametrize(
    "words",
    [
        COMMON,
        ("--paths", "a", "--paths", "b", "--paths=a"),
        ("--verbose", "--verbose", "--no-likelihoods", "--no-likelihoods"),
        ("--files", "a", "--limit", "1", "stray", "--theirs", "x", "--theirs", "y"),
        ("--kind", "memory://", "--output", "my-memory://x", "--files", "memory://x"),
    ],
)
def test_what_may_be_repeated_and_what_is_not_ours_passes(words: tuple[str, ...]) -> None:
    check_words(parser_of(), words)


def test_the_values_of_options_with_passwords_are_not_shown() -> None:
    with pytest.raises(UsageError, match="--storage-options takes one value and is given twice; leave") as refused:
        check_words(parser_of(), ["--storage-options", '{"key": "hidden"}', "--storage-options={}"])
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("command", [*JOBS, "doctor", "verify"])
def test_every_flag_of_a_command_that_takes_one_value_is_refused_twice(command: str) -> None:
    parser = build_parser(command)._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr, index]
    single = [
        name
        for name, action in parser._option_string_actions.items()
        if action.nargs != 0 and isinstance(action, argparse._StoreAction)
    ]
    assert "--storage-options" in single or command == "demo"
    for name in single:
        with pytest.raises(UsageError, match=f"^{name} takes one value and is given twice"):
            check_words(parser, [name, "a", "--debug", f"{name}=b"])


def test_the_command_refuses_a_flag_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert cappy("rerank", "--input", "a", "--input", "b", "--output", "o") == 2
    assert capsys.readouterr().err == (
        "cappy rerank: --input takes one value and is given twice: 'a' and 'b'; give one pattern for both: "
        "--input 'a,b'\n"
    )
    assert cappy("verify", "o", "--storage-options={}", "--storage-options={}") == 2
    assert "given twice" in capsys.readouterr().err
