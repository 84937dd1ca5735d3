"""What responses are drawn from, as workers hold it: a model of their own, or one behind a web API."""

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
    """Everything that a worker needs to load a model of its own to draw from."""

    drawing: Drawing


@dataclass(frozen=True)
class EndpointSpec:
    """Everything that a worker needs to draw from a model behind a web API, but for the key, which never travels."""

    settings: "EndpointSettings"
    drawing: Drawing


EngineSpec = GeneratorSpec | EndpointSpec


class SharedEngine:
    """An engine that the threads of a process share."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock, self._told = engine, threading.Lock(), 0

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        """What came of each prompt, in order. Raises GenerationError."""
        return self._engine.draw(prompts, seeds) if prompts else []

    def new_out_of_memory(self) -> int:
        """How often memory has run out since this was last asked, by any thread: each time is told once."""
        with self._lock:
            before, self._told = self._told, self._engine.out_of_memory()
            return self._told - before


@cache
def load_engine(spec: EngineSpec) -> SharedEngine:
    """The engine of `spec`, loaded once in a process."""
    return SharedEngine(open_engine(spec))


def open_engine(spec: EngineSpec) -> Engine:
    """The engine of `spec`. Raises CappyError for a model or a key that is not there."""
    if isinstance(spec, GeneratorSpec):
        from cappy_model.generate.generator import Generator

        return Generator.from_pretrained(spec.model, spec.drawing, **spec.settings)
    from cappy_model.generate.endpoint.engine import Endpoint

    return Endpoint(spec.settings, spec.drawing)
