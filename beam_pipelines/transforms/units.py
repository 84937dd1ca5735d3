"""The units of a map job, one output file each: those whose file stands are skipped, what came of others is written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from beam_pipelines.reads import ReadInputs, Unit, Wanted
from beam_pipelines.rejects import write_rejects
from beam_pipelines.sinks import Folder
from schemas.tally import REAL_TOKENS, Tally

FINISHED = "finished"


class UnitOutput(NamedTuple):
    """What came of a unit: its name, its rows of `schema` in order, REJECT rows, and counts."""

    name: str
    rows: Sequence[pa.RecordBatch]
    schema: pa.Schema
    rejects: Sequence[dict[str, Any]]
    tally: Tally


@dataclass
class SkipFinished(beam.PTransform):
    """Units -> (units without a file; what the finished ones had counted). A rerun does only what is missing."""

    folder: Folder

    def expand(self, units: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        return units | "Look" >> beam.FlatMap(self._look).with_outputs(FINISHED, main="missing")

    def _look(self, unit: Unit) -> Iterator[Any]:
        found = self.folder.existing(unit_path(unit.name))
        if found is None:
            yield unit
        else:
            entry, tally = found
            yield TaggedOutput(FINISHED, Tally(files={entry}).add(tally))


def write_output(output: UnitOutput, folder: Folder) -> Tally:
    """Writes what came of a unit, rejects first; its tally, and what this launch alone has done."""
    tally = output.tally.add(write_rejects(folder, f"part-{output.name}", output.rejects))
    now = tally.counts[REAL_TOKENS]
    tally = folder.write_unit(unit_path(output.name), output.rows, output.schema, tally)
    tally.counts["launch", "tokens"] += now  # of this launch alone, so not in the file
    return tally


@dataclass
class WriteUnits(beam.PTransform):
    """What came of units -> `part-FFFFF-RRRRR-UUUUU.parquet`, rejects before it, and the tally of each unit."""

    folder: Folder

    def expand(self, outputs: beam.PCollection) -> beam.PCollection:
        return outputs | "Write" >> beam.Map(write_output, self.folder)


@dataclass
class DoMissing(beam.PTransform):
    """Units -> tallies: `work` is done on those without an output file and written, the rest only count.

    A hint belongs on all of it and not on `work` alone: a runner that gives some steps machines of their own redoes
    what one of these machines had begun, and here that is only what has no file yet.
    """

    folder: Folder
    work: beam.PTransform

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        missing, finished = units | "SkipFinished" >> SkipFinished(self.folder)
        written = missing | "Work" >> self.work | "WriteUnits" >> WriteUnits(self.folder)
        return (finished, written) | "Tallies" >> beam.Flatten()


@dataclass
class MapUnits(beam.PTransform):
    """Files -> tallies, the whole of a map job.

    `work` is a transform from units to what came of them (`UnitOutput`). `accelerator` is what the machines that do it
    must have, in the words of Beam's hint (`type:T;count:N;...`).
    """

    wanted: Wanted
    folder: Folder
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
