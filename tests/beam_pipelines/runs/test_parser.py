import pytest

from beam_pipelines.cli import build_parser
from beam_pipelines.runs.job import JOBS
from beam_pipelines.runs.parser import describe_unknown, flags_in
from tests.conftest import cappy

SLIPS = [
    ("score --inptu X --model M --output D", "unknown flag --inptu; did you mean --input?"),
    ("score -inptu=X --model M --output D", "unknown flag -inptu; did you mean --input?"),
    ("score --inptu X --modle M", "unknown flags --inptu (did you mean --input?), --modle (did you mean --model?)"),
    ("score --runnr direct --output D", "unknown flag --runnr; did you mean --runner?"),
    ("score --input X --model M --output D --limti 3 --zzzz", "unknown flags --limti (did you mean --limit?), --zzzz"),
    ("score --input --modle M", "unknown flag --modle; did you mean --model?"),
    ("score --input X --modle M --output D", "unknown flag --modle; did you mean --model?"),
    ("demo --outptu D", "unknown flag --outptu; did you mean --output?"),
    ("train --corpus X --model M --output D --maxpairs 3", "unknown flag --maxpairs; did you mean --max-pairs?"),
    ("verify D --storage X", "unknown flag --storage; did you mean --storage-options?"),
    ("export D --overwrit", "unknown flag --overwrit; did you mean --overwrite?"),
    ("scoer --input x --output y", "unknown command scoer; did you mean score?"),
    ("verfy out --debug", "unknown command verfy; did you mean verify?"),
    ("--debug wibble", "unknown command wibble; the commands are build-corpus, "),
    ("doctor --modle M", "unknown flag --modle; did you mean --model?"),
    ("doctor --model M --pair 3", "--pair does not go with --model, which is checked on this machine; did you mean "),
]


def status_and_message(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        status: object = cappy(*words.split())
    except SystemExit as end:
        status = end.code
    assert isinstance(status, int)
    return status, capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), SLIPS)
def test_misspelt_flags_are_named_with_those_that_were_meant(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = status_and_message(words, capsys)
    program = "cappy" if "unknown command" in message else f"cappy {words.split()[0]}"
    assert status == 2 and said.startswith(f"{program}: {message}") and "usage" not in said


def test_flags_follow_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    message = "cappy verify: --debug stands before the command; flags follow it\n"
    assert status_and_message("--debug verify D", capsys) == (2, message)


def test_flags_of_beam_are_known_where_ours_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = status_and_message("score --runner direct --model M --output D", capsys)
    assert status == 2 and "the following arguments are required: --input" in said and "unknown" not in said


@pytest.mark.parametrize("job", JOBS)
def test_every_required_flag_is_suggested(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = build_parser(job)._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    required = [action.option_strings[0] for action in commands[job]._actions if action.required]  # type: ignore[index]
    for flag in required:
        status, said = status_and_message(f"{job} {flag[:-2]}{flag[-1]}{flag[-2]} x", capsys)
        assert status == 2 and said.endswith(f"; did you mean {flag}?\n")


def test_words_that_can_only_be_flags() -> None:
    assert flags_in(["--a", "x", "-b=-3", "-3", "-", "--", "--c d", "--e=f\ng"]) == ["--a", "-b", "--e"]
    assert describe_unknown(["--x", "--x"], []) == "unknown flag --x"
