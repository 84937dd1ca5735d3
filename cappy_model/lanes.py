"""Lanes: compute several batches at a time, on all cores or GPUs, and halve a batch that runs out of memory."""

import copy
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from transformers import PreTrainedModel

from cappy_model.devices import cuda_devices
from cappy_model.host import usable_cores

_PER_GPU = 2  # one batch is launched while the results of the other are awaited
_BATCHES_PER_LANE = 2  # one in computation, one waiting
_NO_MEMORY_ON_CPU = "can't allocate memory"

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Lane(NamedTuple):
    """A place where batches are computed: a model on a device, and the lock of that device."""

    model: PreTrainedModel
    device: torch.device
    lock: AbstractContextManager[Any]


@dataclass
class Outcome(Generic[Batch, Result]):
    """The outcome of a batch: its computed parts, the single rows that do not fit, and the out-of-memory errors."""

    done: list[tuple[Batch, Result]] = field(default_factory=list)
    unfit: list[Batch] = field(default_factory=list)
    out_of_memory: int = 0


class Lanes:
    """One lane per CPU core, each with one torch thread; or two lanes per GPU, which share a replica of the model.

    With one thread per batch a result does not depend on the number of lanes, and no thread waits for another one.
    Thread-safe.
    """

    def __init__(self, model: PreTrainedModel, device: str) -> None:
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        lanes = list(_lanes(model, device))
        for lane in lanes:
            self._free.put(lane)
        self.count = len(lanes)
        self._pool = ThreadPoolExecutor(self.count, "lane", initializer=torch.set_num_threads, initargs=(1,))

    def run(
        self,
        batches: Iterable[Batch],
        compute: Callable[[Lane, Batch], Result],
        halve: Callable[[Batch], tuple[Batch, ...]],
    ) -> Iterator[Outcome[Batch, Result]]:
        """Yield the outcome of each batch, in order; a few are in flight at a time.

        `compute` holds the lane's lock while it uses the device. When memory runs out, `halve` splits the batch in two,
        or returns () if it cannot be split.
        """
        waiting: deque[Future[Outcome[Batch, Result]]] = deque()
        for batch in batches:
            waiting.append(self._pool.submit(self._run, batch, compute, halve))
            if len(waiting) > _BATCHES_PER_LANE * self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _run(
        self,
        batch: Batch,
        compute: Callable[[Lane, Batch], Result],
        halve: Callable[[Batch], tuple[Batch, ...]],
    ) -> Outcome[Batch, Result]:
        outcome: Outcome[Batch, Result] = Outcome()
        lane = self._free.get()
        try:
            parts = deque([batch])
            while parts:
                part = parts.popleft()
                result = _unless_memory_runs_out(compute, lane, part)
                if result is not None:
                    outcome.done.append((part, result))
                    continue
                outcome.out_of_memory += 1
                halves = halve(part)
                parts.extendleft(reversed(halves))
                if not halves:
                    outcome.unfit.append(part)
        finally:
            self._free.put(lane)
        return outcome


def out_of_memory(error: Exception) -> bool:
    """Return whether an error of torch is a lack of memory."""
    lacking = isinstance(error, RuntimeError) and _NO_MEMORY_ON_CPU in str(error)
    return lacking or isinstance(error, torch.OutOfMemoryError)


def _unless_memory_runs_out(compute: Callable[[Lane, Batch], Result], lane: Lane, batch: Batch) -> Result | None:
    try:
        with torch.inference_mode():
            return compute(lane, batch)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    if lane.device.type == "cuda":  # only after the error is freed, since its frames hold tensors
        torch.cuda.empty_cache()
    return None


def _lanes(model: PreTrainedModel, device: str) -> Iterator[Lane]:
    if device == "cpu":
        for _ in range(usable_cores()):
            yield Lane(model, torch.device("cpu"), nullcontext())
        return
    for place in cuda_devices(device):
        replica: Any = copy.deepcopy(model)
        replica = replica.to(place)
        lock = threading.Lock()
        for _ in range(_PER_GPU):
            yield Lane(replica, place, lock)
