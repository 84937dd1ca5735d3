"""Engines that workers sample responses from: a model of their own, or one behind a web API."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from beam_pipelines.models.spec import ModelSpec
from cappy_model.generate.decodings import Drawing, Drawn, Engine

if TYPE_CHECKING:
    from cappy_model.generate.endpoint.connection import EndpointSettings


@dataclass(frozen=True)
class GeneratorSpec(ModelSpec):
    """Everything that a worker needs to load a language model."""

    drawing: Drawing


@dataclass(frozen=True)
class EndpointSpec:
    """Everything that a worker needs to call a web API, except the key, which is never sent."""

    settings: "EndpointSettings"
    drawing: Drawing


EngineSpec = GeneratorSpec | EndpointSpec


class SharedEngine:
    """An engine shared by the threads of a process."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock, self._reported = engine, threading.Lock(), 0

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        """Return the result of each prompt, in order. Raises GenerationError if the engine cannot generate at all."""
        return self._engine.draw(prompts, seeds) if prompts else []

    def new_out_of_memory(self) -> int:
        """Return how often memory ran out since the last call by any thread, so that each time is counted once."""
        with self._lock:
            before, self._reported = self._reported, self._engine.out_of_memory()
            return self._reported - before


@cache
def load_engine(spec: EngineSpec) -> SharedEngine:
    """Return the engine of `spec`, loaded once per process."""
    return SharedEngine(open_engine(spec))


def open_engine(spec: EngineSpec) -> Engine:
    """Return the engine of `spec`. Raises CappyError for a model or a key that is missing."""
    if isinstance(spec, GeneratorSpec):
        from cappy_model.generate.generator import Generator

        return Generator.from_pretrained(spec.model, spec.drawing, **spec.settings)
    from cappy_model.generate.endpoint.engine import Endpoint

    return Endpoint(spec.settings, spec.drawing)
