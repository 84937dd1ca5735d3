"""Beam's RunInference over units.

A module of its own: importing `apache_beam.ml` takes seconds, which jobs without a model do not pay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.results import Result


class UnitHandler(ModelHandler[Unit, Result, Any]):
    """Gives units to a model one by one. The model batches within a unit, so Beam makes no batches.

    `load` returns the model, shared by the threads of a process; `compute` returns the result of a unit. A row that
    fails is an error of that row, never of a batch.
    """

    def __init__(self, job: str, load: Callable[[], Any], compute: Callable[[Unit, Any], Result]) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._job, self._load, self._compute = job, load, compute

    def load_model(self) -> Any:
        """Load the model."""
        return self._load()

    def run_inference(
        self, batch: Sequence[Unit], model: Any, inference_args: Mapping[str, Any] | None = None
    ) -> Iterator[Result]:
        """Yield the result of each unit. Raises what `compute` raises."""
        for unit in batch:
            yield self._compute(unit, model)

    def get_metrics_namespace(self) -> str:
        """Return the namespace of Beam's own metrics of the step."""
        return f"cappy_{self._job}"


@dataclass
class InferUnits(beam.PTransform):
    """Units -> their results, computed by a model (see `UnitHandler`)."""

    job: str
    load: Callable[[], Any]
    compute: Callable[[Unit, Any], Result]

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        return units | "RunInference" >> RunInference(UnitHandler(self.job, self.load, self.compute))
