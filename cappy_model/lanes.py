"""Lanes: the places where batches are computed, several at a time, and what happens when memory runs out on one."""

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

_PER_GPU = 2  # a batch is launched while the results of the other one are awaited
_BATCHES_PER_LANE = 2  # one computed, one at hand
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
    """What came of a batch: its parts that were computed, those that do not fit alone, and how often memory ran out."""

    done: list[tuple[Batch, Result]] = field(default_factory=list)
    unfit: list[Batch] = field(default_factory=list)
    out_of_memory: int = 0


class Lanes:
    """A lane for each core of a CPU, each with one thread of torch's; or two for each GPU, which has its own model.

    One thread for a batch makes a result independent of how many batches are computed beside it, and wastes nothing on
    threads waiting for each other. Safe to use from several threads at once.
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
        """What came of each batch, in order. A few are on their way at any time.

        `compute` holds the lane's lock for as long as it needs the device. Where memory runs out, `halve` makes two of
        the batch, or nothing where it cannot be smaller.
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


def _unless_memory_runs_out(compute: Callable[[Lane, Batch], Result], lane: Lane, batch: Batch) -> Result | None:
    try:
        with torch.inference_mode():
            return compute(lane, batch)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY_ON_CPU not in str(error):
            raise
    if lane.device.type == "cuda":  # not before the error and its frames, which hold tensors, are gone
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
