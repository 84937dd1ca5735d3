"""Map jobs: each unit of the input becomes one output file; units whose file exists are skipped."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import join
from beam_pipelines.io.units import Unit
from beam_pipelines.transforms.read import ReadInputs
from beam_pipelines.transforms.results import write_unit
from schemas.stats import Stats

FINISHED = "finished"


@dataclass
class SkipFinished(beam.PTransform):
    """Split units into those without an output file in `folder`, and the statistics of the finished ones."""

    output: OutputDir
    folder: str

    def expand(self, units: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        return units | "Look" >> beam.FlatMap(self._look).with_outputs(FINISHED, main="missing")

    def _look(self, unit: Unit) -> Iterator[Any]:
        existing = self.output.existing(join(self.folder, f"part-{unit.name}.parquet"))
        if existing is None:
            yield unit
        else:
            entry, stats = existing
            yield TaggedOutput(FINISHED, Stats(files={entry}).add(stats))


@dataclass
class ComputeMissing(beam.PTransform):
    """Apply `compute` to the units without an output file and write its results; return the statistics of all units.

    A resource hint belongs on all of it and not on `compute` alone: a runner that gives some steps machines of their
    own repeats what such a machine had begun, and here that is only units that have no file yet.
    """

    output: OutputDir
    folder: str
    compute: beam.PTransform

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        missing, finished = units | "SkipFinished" >> SkipFinished(self.output, self.folder)
        written = missing | "Compute" >> self.compute | "WriteUnits" >> beam.Map(write_unit, self.output, self.folder)
        return (finished, written) | "AllStats" >> beam.Flatten()


@dataclass
class MapUnits(beam.PTransform):
    """The whole of a map job: files -> statistics.

    The rows are written to `folder` below `output`. `compute` is a transform from units to their results (`Result`).
    `accelerator` is Beam's resource hint for the machines that run it (`type:T;count:N;...`).
    """

    spec: ReadSpec
    output: OutputDir
    folder: str
    compute: beam.PTransform
    accelerator: str | None

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        missing = ComputeMissing(self.output, self.folder, self.compute)
        if self.accelerator is not None:
            missing.with_resource_hints(accelerator=self.accelerator)
        return files | "ReadInputs" >> ReadInputs([self.spec], self.output) | "ComputeMissing" >> missing
