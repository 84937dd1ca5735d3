"""Beam's RunInference over units.

A module of its own: importing `apache_beam.ml` takes seconds, which jobs without a model do not pay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_pipelines.io.units import Unit
from beam_pipelines.runs.under_way import begin_unit
from beam_pipelines.transforms.results import Result


class UnitHandler(ModelHandler[Unit, Result, Callable[[], Any]]):
    """Gives units to a model one by one. The model batches within a unit, so Beam makes no batches.

    `load` returns the model, which it keeps for the threads of a process; `compute(unit, model, on_progress=...)`
    returns the result of a unit. A row that fails is an error of that row, never of a batch.
    """

    def __init__(self, job: str, load: Callable[[], Any], compute: Callable[..., Result], output: str) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._job, self._load, self._compute, self._output = job, load, compute, output

    def load_model(self) -> Callable[[], Any]:
        """Load the model; return `load`, since Beam keeps what it gets beyond the end of a pipeline."""
        self._load()
        return self._load

    def run_inference(
        self, batch: Sequence[Unit], model: Callable[[], Any], inference_args: Mapping[str, Any] | None = None
    ) -> Iterator[Result]:
        """Yield the result of each unit. Raises what `compute` raises."""
        for unit in batch:
            on_progress = begin_unit(self._output, f"part-{unit.name}", len(unit.positions) + len(unit.bad))
            yield self._compute(unit, model(), on_progress=on_progress)

    def get_metrics_namespace(self) -> str:
        """Return the namespace of Beam's own metrics of the step."""
        return f"cappy_{self._job}"


@dataclass
class InferUnits(beam.PTransform):
    """Units -> their results, computed by a model for a run in the folder `output` (see `UnitHandler`)."""

    job: str
    load: Callable[[], Any]
    compute: Callable[..., Result]
    output: str

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        return units | "RunInference" >> RunInference(UnitHandler(self.job, self.load, self.compute, self.output))
