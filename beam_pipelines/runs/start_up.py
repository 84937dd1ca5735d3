"""The start-up of a dry run: the seconds from the start of the program to the first row that it measures."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import psutil


@dataclass
class _StartUp:
    """Seconds since the epoch."""

    began: float
    ended: float | None = None


_START_UP: ContextVar[_StartUp | None] = ContextVar("start_up", default=None)


@contextmanager
def counting_start_up(*, of_program: bool = False) -> Iterator[None]:
    """Count the start-up of the block, from the start of this process if it is `of_program`, else from now on.

    Inside a block that counts already, it does nothing.
    """
    if _START_UP.get() is not None:
        yield
        return
    began = psutil.Process(os.getpid()).create_time() if of_program else time.time()
    token = _START_UP.set(_StartUp(began))
    try:
        yield
    finally:
        _START_UP.reset(token)


def end_start_up() -> None:
    """Note that the first row is about to be measured; later calls change nothing."""
    start_up = _START_UP.get()
    if start_up is not None and start_up.ended is None:
        start_up.ended = time.time()


def describe_start_up() -> str:
    """Return ", after about 12 s of start-up"; nothing if no start-up was counted."""
    start_up = _START_UP.get()
    if start_up is None or start_up.ended is None:
        return ""
    return f", after about {max(1, round(start_up.ended - start_up.began)):,} s of start-up"
