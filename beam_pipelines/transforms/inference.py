"""The scorer as Beam's RunInference sees it.

A module of its own: importing `apache_beam.ml` takes seconds, which jobs without a model do not pay.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_pipelines.reads import Unit
from beam_pipelines.transforms.scoring import ScoreColumns, ScoredUnit, ScorerSpec, load_scorer, score_unit
from cappy_model.scorer import Scorer


class ScorerHandler(ModelHandler[Unit, ScoredUnit, Scorer]):
    """Scores units one by one: the scorer makes batches of its own inside of each, so Beam makes none.

    Threads of a process share one model. A row that cannot be scored is an error of that row and never of a batch.
    """

    def __init__(self, spec: ScorerSpec, columns: ScoreColumns) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._spec, self._columns = spec, columns

    def load_model(self) -> Scorer:
        """The scorer, shared by all threads of a process."""
        return load_scorer(self._spec)

    def run_inference(
        self, batch: Sequence[Unit], model: Scorer, inference_args: Mapping[str, Any] | None = None
    ) -> Iterator[ScoredUnit]:
        """Scores each unit. Raises BrokenModel."""
        for unit in batch:
            yield score_unit(unit, model, self._columns)

    def get_metrics_namespace(self) -> str:
        """Where Beam's own metrics of the step are found."""
        return "cappy_score"


@dataclass
class ScoreUnits(beam.PTransform):
    """Units -> what came of them."""

    spec: ScorerSpec
    columns: ScoreColumns

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        return units | "RunInference" >> RunInference(ScorerHandler(self.spec, self.columns))
