"""The units of a map job, one output file each: those whose file stands are skipped, what came of others is written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import ReadInputs, Unit, ReadSpec
from beam_pipelines.transforms.rejects import write_rejects
from schemas.stats import REAL_TOKENS, Stats

FINISHED = "finished"


class UnitResult(NamedTuple):
    """What came of a unit: its name, its rows of `schema` in order, REJECT rows, and counts."""

    name: str
    rows: Sequence[pa.RecordBatch]
    schema: pa.Schema
    rejects: Sequence[dict[str, Any]]
    stats: Stats


@dataclass
class SkipFinished(beam.PTransform):
    """Units -> (units without a file; what the finished ones had counted). A rerun does only what is missing."""

    folder: OutputDir

    def expand(self, units: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        return units | "Look" >> beam.FlatMap(self._look).with_outputs(FINISHED, main="missing")

    def _look(self, unit: Unit) -> Iterator[Any]:
        found = self.folder.existing(unit_path(unit.name))
        if found is None:
            yield unit
        else:
            entry, stats = found
            yield TaggedOutput(FINISHED, Stats(files={entry}).add(stats))


def write_output(output: UnitResult, folder: OutputDir) -> Stats:
    """Writes what came of a unit, rejects first; its stats, and what this launch alone has done."""
    stats = output.stats.add(write_rejects(folder, f"part-{output.name}", output.rejects))
    now = stats.counts[REAL_TOKENS]
    stats = folder.write_unit(unit_path(output.name), output.rows, output.schema, stats)
    stats.counts["launch", "tokens"] += now  # of this launch alone, so not in the file
    return stats


@dataclass
class WriteUnits(beam.PTransform):
    """What came of units -> `part-FFFFF-RRRRR-UUUUU.parquet`, rejects before it, and the stats of each unit."""

    folder: OutputDir

    def expand(self, outputs: beam.PCollection) -> beam.PCollection:
        return outputs | "Write" >> beam.Map(write_output, self.folder)


@dataclass
class DoMissing(beam.PTransform):
    """Units -> all_stats: `work` is done on those without an output file and written, the rest only count.

    A hint belongs on all of it and not on `work` alone: a runner that gives some steps machines of their own redoes
    what one of these machines had begun, and here that is only what has no file yet.
    """

    folder: OutputDir
    work: beam.PTransform

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        missing, finished = units | "SkipFinished" >> SkipFinished(self.folder)
        written = missing | "Work" >> self.work | "WriteUnits" >> WriteUnits(self.folder)
        return (finished, written) | "AllStats" >> beam.Flatten()


@dataclass
class MapUnits(beam.PTransform):
    """Files -> all_stats, the whole of a map job.

    `work` is a transform from units to what came of them (`UnitResult`). `accelerator` is what the machines that do it
    must have, in the words of Beam's hint (`type:T;count:N;...`).
    """

    wanted: ReadSpec
    folder: OutputDir
    work: beam.PTransform
    accelerator: str | None

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        missing = DoMissing(self.folder, self.work)
        if self.accelerator is not None:
            missing.with_resource_hints(accelerator=self.accelerator)
        return files | "ReadInputs" >> ReadInputs([self.wanted], self.folder) | "DoMissing" >> missing


def unit_path(name: str) -> str:
    """The file of a unit in the output folder of a map job."""
    return f"part-{name}.parquet"
