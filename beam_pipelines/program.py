"""Entry point of `cappy`. Importing Beam takes seconds, and Ctrl-C during them must not print a traceback either."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

INTERRUPTED = 130
_BY_SIGNAL = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program (see `beam_pipelines.cli.main`); return its exit status."""
    try:
        from beam_pipelines import cli

        return cli.main(argv)
    except KeyboardInterrupt:
        return interrupted()


def interrupted() -> int:
    """Print that the program was interrupted; return the exit status."""
    print("\ncappy: interrupted; run the same command again to finish", file=sys.stderr)
    return INTERRUPTED


def command(*job: str) -> NoReturn:
    """Run `cappy`, or one `job` of it, in a process of its own, which a signal ends at once."""
    try:
        status = main([*job, *sys.argv[1:]])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    if status > _BY_SIGNAL:
        # Python would wait for threads that still compute, and they would fail while the interpreter ends.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    command()
