"""The parsers of the program and of a command, and messages about misspelt words."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

WRONG_USAGE = 2
"""The exit status of a wrong command line."""

_FLAG_WORD = re.compile(r"--?[A-Za-z][\w-]*(=|$)")


class ProgramParser(argparse.ArgumentParser):
    """A parser of commands that suggests the nearest one for a misspelt one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(action.choices)
            near = nearest(value, known)
            hint = f"did you mean {near}?" if near else f"the commands are {', '.join(known)}"
            self.exit(WRONG_USAGE, f"{self.prog}: unknown command {value}; {hint}\n")


class CommandParser(argparse.ArgumentParser):
    """A parser that reports a misspelt flag before a missing one."""

    other_flags: Callable[[], Sequence[str]] = staticmethod(tuple)
    """Returns the flags that the command passes on, which are known, too."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        own = list(self._option_string_actions)
        unknown = [flag for flag in flags_in(self._words) if flag not in own]
        others = self.other_flags() if unknown else ()
        unknown = [flag for flag in unknown if flag not in others]
        if unknown:
            self.exit(WRONG_USAGE, f"{self.prog}: {describe_unknown(unknown, [*own, *others])}\n")
        super().error(message)


def describe_unknown(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Return the message about flags that are not `known`, each with the nearest one that is."""
    hints = [(flag, nearest(flag, known)) for flag in dict.fromkeys(unknown)]
    if len(hints) == 1:
        (flag, near), *_ = hints
        return f"unknown flag {flag}" + (f"; did you mean {near}?" if near else "")
    described = [flag + (f" (did you mean {near}?)" if near else "") for flag, near in hints]
    return f"unknown flags {', '.join(described)}"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that is most like another, or ends like it; None if none is."""
    ending = [name for name in known if name.endswith(f"_{word.lstrip('-')}")]
    return next(iter(difflib.get_close_matches(word, ending or known, 1)), None)


def flags_in(words: Sequence[str]) -> list[str]:
    """Return the words that can only be flags, without their values."""
    return [word.partition("=")[0] for word in words if _FLAG_WORD.match(word)]
