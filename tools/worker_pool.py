"""Python workers for all TaskManagers of one machine: `python -m tools.worker_pool PORT [BOOT]`.

Beam's own pool (`apache_beam.runners.worker.worker_pool_main`) knows workers by an id that every TaskManager counts
from 1, and ends the one of another when two TaskManagers share it. Here a worker ends when its TaskManager lets it go.

Workers run in this environment as it is. BOOT, the program that starts Beam's containers, gives each worker one of its
own, with what the job has staged (`--setup_file`) installed.
"""

import signal
import sys

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class SharedPool(BeamFnExternalWorkerPoolServicer):
    """Beam's pool, but for ending workers: one whose connection is closed ends by itself."""

    def StopWorker(self, request: object, context: object) -> beam_fn_api_pb2.StopWorkerResponse:
        """Nothing: the id does not say whose worker it is."""
        return beam_fn_api_pb2.StopWorkerResponse()


if __name__ == "__main__":
    port, *boot = sys.argv[1:]
    address, server = SharedPool.start(use_process=True, port=int(port), container_executable=next(iter(boot), None))
    signal.pause()  # a server that nothing refers to is closed
