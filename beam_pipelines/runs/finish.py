"""The last step of a pipeline: add the statistics up, and write the manifest and the dataset card."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import apache_beam as beam

from beam_pipelines.io.output import OutputDir
from beam_pipelines.io.storage import join
from beam_pipelines.report.text import shorten
from beam_pipelines.runs.card import Card, draw_card
from cappy_model.paths import shareable
from schemas.errors import CappyError
from schemas.manifest import CARD, FAILURE, MANIFEST, to_json
from schemas.stats import Stats

_DETAIL = 300  # characters of the detail in a message


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


class FailedRun(CappyError):
    """The run ended, and its result cannot be used, such as an empty corpus."""


@dataclass
class FinishRun(beam.PTransform):
    """Merge the statistics of a run and write `README.md`, then `manifest.json`, whose presence means done.

    Above the reject rate, write `failure.json` instead and raise TooManyRejects; where the manifest says why the run
    is a `failure`, raise FailedRun.

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
        if manifest["rejects"]["rate"] > self.max_reject_rate:
            self._fail(manifest, TooManyRejects(self._too_many(manifest)))
        if manifest.get("failure"):
            self._fail(manifest, FailedRun(manifest["failure"]))
        self.output.write(CARD, draw_card(self.card, manifest).encode())
        self.output.write(MANIFEST, to_json(manifest))

    def _fail(self, manifest: Mapping[str, Any], error: CappyError) -> NoReturn:
        self.output.write(FAILURE, to_json({"reason": shareable(str(error)), **manifest}))
        raise error

    def _too_many(self, manifest: Mapping[str, Any]) -> str:
        rate, of = manifest["rejects"]["rate"], manifest["rejects"]["of"]
        return (
            f"{rate:.2%} of the {of} were rejected, more than --max-reject-rate {self.max_reject_rate:.2%}. "
            f"{_what_was_lost(manifest, self.output.url)}; fix the input, or raise the rate."
        )


def _what_was_lost(manifest: Mapping[str, Any], output: str) -> str:
    """Return the counts of rejects and of errors by reason, each with an example of the most frequent one."""
    sampled, rejects, found = manifest.get("samples", {}), Counter[str](), []
    for by_reason in manifest["rejects"]["by_reason"].values():
        rejects.update(by_reason)
    if manifest["rejects"]["rows"]:
        rows = [(row["reason"], row["source"], row["position"], row["detail"]) for row in sampled.get("rejects", ())]
        counts = f"{_counts(rejects)}.{_example(rejects, rows)}"
        found.append(f"Reject rows by reason: {counts} See {join(output, 'rejects')}")
    errors = manifest.get("errors")  # of pairs that have no score, whose rows are kept
    if errors:
        texts = [(row["error"], row["position"]) for row in sampled.get("any", ()) if row["error"]]
        rows = [(error.split(":")[0].replace(" ", "_"), place, "", error) for error, place in texts]
        found.append(f"Pairs without a score by reason: {_counts(errors)}.{_example(errors, rows)}")
    return " ".join(found).rstrip(".") or f"{join(output, FAILURE)} counts the reasons"


def _counts(by_reason: Mapping[str, int]) -> str:
    ordered = sorted(((count, reason) for reason, count in by_reason.items()), reverse=True)
    return ", ".join(f"{count:,} {reason}" for count, reason in ordered)


def _example(by_reason: Mapping[str, int], rows: Iterable[tuple[str, str, str, str]]) -> str:
    """Return a sentence about the first of the sampled `rows` (reason, source, position, detail), if there are any.

    The most frequent of their reasons comes first. The samples are the same in every run, and so is the example.
    """
    rows = sorted(rows, key=lambda row: (-by_reason.get(row[0], 0), row[0], row[1], len(row[2]), row[2], row[3]))
    if not rows:
        return ""
    _, source, position, detail = rows[0]
    return f" For example {source}{position}: {shorten(detail, _DETAIL).rstrip('.')}."
