"""Pool of Python workers for all TaskManagers of one machine: `python -m tools.worker_pool PORT [BOOT]`.

Beam's own pool (`apache_beam.runners.worker.worker_pool_main`) identifies workers by an id that every TaskManager
counts from 1: if two TaskManagers share it, one ends the workers of the other. Here a worker ends when its TaskManager
closes the connection.

Workers run in this environment. With BOOT, the entry point of Beam's containers, each worker has an environment of its
own, in which the files staged by the job (`--setup_file`) are installed.
"""

import signal
import sys

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class SharedPool(BeamFnExternalWorkerPoolServicer):
    """Beam's pool, except that workers end by themselves when their connection is closed."""

    def StopWorker(self, request: object, context: object) -> beam_fn_api_pb2.StopWorkerResponse:
        """Do nothing, as the id does not identify the worker's TaskManager."""
        return beam_fn_api_pb2.StopWorkerResponse()


if __name__ == "__main__":
    port, *boot = sys.argv[1:]
    address, server = SharedPool.start(use_process=True, port=int(port), container_executable=next(iter(boot), None))
    signal.pause()  # an unreferenced server is closed
