"""Read inputs as units, on workers that run the submitter's code."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_pipelines.io.formats.base import ReadSpec
from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.units import list_reads, read_units
from beam_pipelines.runs.release import check_release, this_release


class _OnCheckedWorkers(beam.DoFn):
    """Apply `function` to elements, on workers that run the submitter's code and can write to the output folder."""

    def __init__(self, function: Callable[[Any], Iterable[Any]], output: OutputDir) -> None:
        self._function, self._output, self._release, self._checked = function, output, this_release(), False

    def start_bundle(self) -> None:
        """Check once. (An error in `setup` of a new worker is lost, and Flink waits three minutes for that worker.)"""
        if not self._checked:
            check_release(self._release)
            self._output.check_usable()
            self._checked = True

    def process(self, element: Any) -> Iterable[Any]:
        return self._function(element)


@dataclass
class ReadInputs(beam.PTransform):
    """Read input files: InputFile -> Unit.

    Raises OtherRelease on a worker that runs other code than the submitter, and OutputError on one that cannot see or
    write `output`.

    Args:
      specs: how to read the files of each group.
      output: output folder of the run.
    """

    specs: Sequence[ReadSpec]
    output: OutputDir

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        specs, output = self.specs, self.output
        return (
            files
            | "ListReads" >> beam.ParDo(_OnCheckedWorkers(lambda file: list_reads(file, specs[file.group]), output))
            | "Spread" >> beam.Reshuffle()
            | "ReadUnits"
            >> beam.ParDo(_OnCheckedWorkers(lambda read: read_units(read, specs[read.file.group]), output))
        )
