"""The parser of a command, and messages about misspelt flags."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

WRONG_USAGE = 2
"""The exit status of a wrong command line."""

_FLAG_WORD = re.compile(r"--?[A-Za-z][\w-]*(=|$)")


class CommandParser(argparse.ArgumentParser):
    """A parser that tells of a misspelt flag before it asks for the flag that was meant."""

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


def nearest(flag: str, known: Sequence[str]) -> str | None:
    """Return the known flag that is most like another, or ends like it; None if none is."""
    ending = [name for name in known if name.endswith(f"_{flag.lstrip('-')}")]
    return next(iter(difflib.get_close_matches(flag, ending or known, 1)), None)


def flags_in(words: Sequence[str]) -> list[str]:
    """Return the words that can only be flags, without their values."""
    return [word.partition("=")[0] for word in words if _FLAG_WORD.match(word)]
