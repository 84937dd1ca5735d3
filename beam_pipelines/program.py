"""`cappy` from its first moment: importing Beam takes seconds, and Ctrl-C within them is no traceback either."""

import sys
from collections.abc import Sequence

INTERRUPTED = 130


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


if __name__ == "__main__":
    sys.exit(main())
