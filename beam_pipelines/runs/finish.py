"""The last step of a pipeline: add the statistics up, and write the manifest and the dataset card."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import join
from beam_pipelines.runs.card import Card, draw_card
from schemas.errors import CappyError
from schemas.manifest import CARD, FAILURE, MANIFEST, to_json
from schemas.stats import Stats


class MergeStats(beam.CombineFn):
    """Merge the statistics of units and shards into those of the run."""

    def create_accumulator(self) -> Stats:
        return Stats()

    def add_input(self, total: Stats, stats: Stats) -> Stats:
        return total.add(stats)

    def merge_accumulators(self, totals: Iterable[Stats]) -> Stats:
        merged = Stats()
        for total in totals:
            merged.add(total)
        return merged

    def extract_output(self, total: Stats) -> Stats:
        return total


class TooManyRejects(CappyError):
    """More rows were rejected than --max-reject-rate allows."""


@dataclass
class FinishRun(beam.PTransform):
    """Merge the statistics of a run and write `README.md`, then `manifest.json`, whose presence means done.

    Above the reject rate, write `failure.json` instead and raise TooManyRejects.

    Args:
      output: output folder of the run.
      make_manifest: turns the statistics into the manifest. Its `rejects` has the keys `rate` (a share in [0, 1]), `of`
        (what the rate is a share of), `rows` and `by_reason`.
      card: the dataset card.
      max_reject_rate: largest share of rejects, in [0, 1].
    """

    output: OutputDir
    make_manifest: Callable[[Stats], dict[str, Any]]
    card: Card
    max_reject_rate: float

    def expand(self, all_stats: beam.PCollection) -> beam.PCollection:
        return all_stats | "AddUp" >> beam.CombineGlobally(MergeStats()) | "Finish" >> beam.Map(self._finish)

    def _finish(self, stats: Stats) -> None:
        manifest = self.make_manifest(stats)
        rejects = manifest["rejects"]
        if rejects["rate"] > self.max_reject_rate:
            where = f"{join(self.output.url, FAILURE)} counts the reasons"
            if rejects["rows"]:
                counts = _describe_reasons(rejects["by_reason"])
                where = f"Reject rows by reason: {counts}. See {join(self.output.url, 'rejects')}"
            reason = (
                f"{rejects['rate']:.2%} of the {rejects['of']} were rejected, more than --max-reject-rate "
                f"{self.max_reject_rate:.2%}. {where}; fix the input, or raise the rate."
            )
            self.output.write(FAILURE, to_json({"reason": reason, **manifest}))
            raise TooManyRejects(reason)
        self.output.write(CARD, draw_card(self.card, manifest).encode())
        self.output.write(MANIFEST, to_json(manifest))


def _describe_reasons(by_reason: Mapping[str, Mapping[str, int]]) -> str:
    counts = [(count, reason) for reasons in by_reason.values() for reason, count in reasons.items()]
    return ", ".join(f"{count:,} {reason}" for count, reason in sorted(counts, reverse=True))
