"""`cappy` from its first moment: importing Beam takes seconds, and Ctrl-C within them is no traceback either."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

INTERRUPTED = 130
_BY_SIGNAL = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program (see `beam_pipelines.cli.main`); its exit status."""
    try:
        from beam_pipelines import cli

        return cli.main(argv)
    except KeyboardInterrupt:
        return interrupted()


def interrupted() -> int:
    """Says so, and gives the exit status."""
    print("\ncappy: interrupted; give the same command again to finish", file=sys.stderr)
    return INTERRUPTED


def command() -> NoReturn:
    """The command `cappy`: a process of its own, which a signal ends at once."""
    try:
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    if status > _BY_SIGNAL:
        # Threads that still compute would be waited for, and complain of the end of the interpreter.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    command()
