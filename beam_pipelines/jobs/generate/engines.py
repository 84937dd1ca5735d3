"""Engines that workers sample responses from: a model of their own, or one behind a web API."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from beam_pipelines.jobs.generate.empty import in_words, is_empty, why_empty
from beam_pipelines.models.spec import ModelSpec
from cappy_model.generate.decodings import Drawing, Drawn, Engine, Sample
from cappy_model.work import ProgressCallback

if TYPE_CHECKING:
    from cappy_model.generate.endpoint.connection import EndpointSettings

_LOG = logging.getLogger("cappy")
_WORTH_WARNING = 16  # empty responses


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
    """An engine shared by the threads of a process. Warns once if all that it generates first is empty."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock, self._reported = engine, threading.Lock(), 0
        self._empty: Counter[str] | None = Counter()  # by reason, until a response has text or the warning is given

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: ProgressCallback | None = None
    ) -> list[Drawn]:
        """Return the result of each prompt, in order. Raises GenerationError if the engine cannot generate at all."""
        drawn = self._engine.draw(prompts, seeds, on_progress=on_progress) if prompts else []
        self._warn_of_empty([sample for each in drawn for sample in each.samples])
        return drawn

    def _warn_of_empty(self, samples: Sequence[Sample]) -> None:
        with self._lock:
            if self._empty is None or not samples:
                return
            if not all(map(is_empty, samples)):
                self._empty = None
                return
            self._empty.update(map(why_empty, samples))
            if self._empty.total() >= _WORTH_WARNING:
                _LOG.warning("the first %d responses are all empty: %s", self._empty.total(), in_words(self._empty))
                self._empty = None

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
