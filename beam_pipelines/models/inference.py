"""Models as Beam's RunInference sees them.

A module of its own: importing `apache_beam.ml` takes seconds, which jobs without a model do not pay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.generation import Task, generate_unit
from beam_pipelines.jobs.score.scoring import ScoreColumns, ScorerSpec, load_scorer, score_unit
from beam_pipelines.models.engines import EngineSpec, load_engine
from beam_pipelines.transforms.map_units import UnitResult


class UnitHandler(ModelHandler[Unit, UnitResult, Any]):
    """Gives units to a model one by one: it makes batches of its own inside of each, so Beam makes none.

    `load` gives the model, the same one to all threads of a process; `work` says what comes of a unit with it. A row
    that fails is a fault of that row and never of a batch.
    """

    def __init__(self, job: str, load: Callable[[], Any], work: Callable[[Unit, Any], UnitResult]) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._job, self._load, self._work = job, load, work

    def load_model(self) -> Any:
        """The model."""
        return self._load()

    def run_inference(
        self, batch: Sequence[Unit], model: Any, inference_args: Mapping[str, Any] | None = None
    ) -> Iterator[UnitResult]:
        """What comes of each unit. Raises what `work` raises."""
        for unit in batch:
            yield self._work(unit, model)

    def get_metrics_namespace(self) -> str:
        """Where Beam's own metrics of the step are found."""
        return f"cappy_{self._job}"


@dataclass
class ScoreUnits(beam.PTransform):
    """Units -> what came of them: the same rows with scores."""

    spec: ScorerSpec
    columns: ScoreColumns

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        work = partial(score_unit, columns=self.columns)
        return units | "RunInference" >> RunInference(UnitHandler("score", partial(load_scorer, self.spec), work))


@dataclass
class GenerateUnits(beam.PTransform):
    """Units -> what came of them: candidates for their instructions."""

    spec: EngineSpec
    task: Task

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        work = partial(generate_unit, task=self.task)
        return units | "RunInference" >> RunInference(UnitHandler("generate", partial(load_engine, self.spec), work))
