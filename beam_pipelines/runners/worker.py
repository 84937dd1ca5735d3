"""A worker process of the local runner: Beam's own, quiet, and ignoring SIGINT, which the launcher handles.

`python -m beam_pipelines.runners.worker [--loud]`; the runner passes the addresses in environment variables.
"""

import logging
import os
import signal
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Run Beam's worker. Its messages reach the launcher through the runner; unless loud, it prints nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())
    if "--loud" not in arguments:
        # Beam prints the traceback of each error that it also reports.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


if __name__ == "__main__":
    main(sys.argv)
