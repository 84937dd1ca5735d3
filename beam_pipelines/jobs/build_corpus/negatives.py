"""Wrong responses: the other answer choices of an instruction, or for one without choices a response of another row."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from beam_pipelines.jobs.build_corpus.render import RenderedUnit
from beam_pipelines.templates.mixture import Negatives
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import group_rows
from schemas.ids import seed_for
from schemas.records import INSTRUCTION
from schemas.stats import Stats

REDRAWS = 5
COUNTED = "counted"

_SHUFFLED = ("instruction_id", "dataset", "subset", "split", "template_id", "instruction", "references")
LABELLED_INSTRUCTION = pa.schema(
    [
        *(INSTRUCTION.field(name) for name in _SHUFFLED),
        pa.field("wrong", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
        pa.field("has_choices", pa.bool_(), nullable=False),
    ]
)
"""What the shuffle carries of an instruction: its correct and its wrong responses side by side, so that its text
travels once and not once per pair. `wrong` are answer choices where `has_choices`, else responses of other rows."""


def wrong_choices(
    choices: Sequence[str], references: Sequence[str], limit: int, seed: int, instruction_id: str
) -> list[str]:
    """The distinct choices that differ, stripped, from every reference; of more than `limit`, those of smallest hash.

    Compared by text and never by index: some templates list a choice twice, or have a target outside of their choices.
    """
    correct = {reference.strip() for reference in references}
    wrong = [choice for choice in dict.fromkeys(map(str.strip, choices)) if choice and choice not in correct]
    if len(wrong) > limit:
        wrong = sorted(wrong, key=lambda choice: (seed_for(seed, instruction_id, choice), choice))[:limit]
    return wrong


class Mismatcher:
    """Draws, for the rows of one chunk, responses of other rows that are not right by accident.

    `references` are those of each row of the chunk. Their tokens are kept, since a text is drawn as often as not.
    `overlap_limit`, in (0, 1], is the Rouge-L with a reference from which on a response may be right.
    """

    def __init__(self, references: Sequence[Sequence[str]], rouge: RougeL, *, overlap_limit: float, seed: int) -> None:
        self._references = references
        self._tokens = functools.cache(rouge.tokens)
        self._overlap_limit = overlap_limit
        self._seed = seed

    def draw(self, row: int, members: Sequence[int], *, instruction_id: str, count: int) -> list[str]:
        """Up to `count` distinct responses for row `row`, from the first references of the rows `members`.

        A draw is repeated up to five times while it hits the row itself, equals one of its references, or has a Rouge-L
        with one at or above the limit; fewer responses come back where that is not enough.
        """
        drawn: list[str] = []
        for attempt in range(count + REDRAWS):
            if len(drawn) == count:
                break
            other = members[seed_for(self._seed, instruction_id, "mismatch", str(attempt)) % len(members)]
            response = self._references[other][0]
            if (
                other != row
                and response not in drawn
                and not any(self._is_alike(reference, response) for reference in self._references[row])
            ):
                drawn.append(response)
        return drawn

    def _is_alike(self, reference: str, response: str) -> bool:
        if reference == response:
            return True
        tokens, others = self._tokens(reference), self._tokens(response)
        # Of texts without a token (Chinese, say, under the parity tokenizer) equal tokens say nothing.
        alike = bool(tokens) and tokens == others
        return alike or RougeL.f_measure(tokens, others) >= self._overlap_limit


def add_wrong_responses(
    chunk: pa.RecordBatch, rouge: RougeL, negatives: Negatives, seed: int, stats: Stats
) -> pa.RecordBatch:
    """INSTRUCTION rows -> LABELLED_INSTRUCTION rows: each with its wrong responses.

    Counts instructions whose choices do not hold their reference, and those left without a mismatched response; and by
    template those without any wrong response, though one was asked for.
    """
    ids, references, choices = (chunk[name].to_pylist() for name in ("instruction_id", "references", "choices"))
    wrong: list[list[str]] = [[] for _ in ids]
    without = []
    for row, options in enumerate(choices):
        if options is None:
            without.append(row)
            continue
        wrong[row] = wrong_choices(options, references[row], negatives.wrong_choices, seed, ids[row])
        if not {option.strip() for option in options}.issuperset(references[row]):
            stats.counts["notes", "target_not_in_choices"] += 1
    if negatives.mismatched:
        mismatcher = Mismatcher(references, rouge, overlap_limit=negatives.overlap_limit, seed=seed)
        template = np.asarray(chunk["template_id"].dictionary_encode().indices)[without]
        for _, group in group_rows(template):
            members = [without[i] for i in group]
            for row in members:
                wrong[row] = mismatcher.draw(row, members, instruction_id=ids[row], count=negatives.mismatched)
                stats.counts["notes", "mismatch_skipped"] += negatives.mismatched - len(wrong[row])
    _count_without_wrong(chunk, [not found for found in wrong], negatives, stats)
    columns = [chunk[name] for name in _SHUFFLED]
    has_choices = pa.array([options is not None for options in choices], pa.bool_())
    columns += [pa.array(wrong, LABELLED_INSTRUCTION.field("wrong").type), has_choices]
    return pa.RecordBatch.from_arrays(columns, schema=LABELLED_INSTRUCTION)


def _count_without_wrong(chunk: pa.RecordBatch, none: Sequence[bool], negatives: Negatives, stats: Stats) -> None:
    has_choices = chunk["choices"].is_valid().to_pylist()
    asked = {True: negatives.wrong_choices > 0, False: negatives.mismatched > 0}
    found = chunk.select(["dataset", "subset", "split", "template_id"]).filter(
        pa.array([lacks and asked[choice] for lacks, choice in zip(none, has_choices, strict=True)], pa.bool_())
    )
    for row in found.to_pylist():
        place = (row["dataset"], row["subset"] or "", row["split"] or "", row["template_id"])
        stats.counts["without_wrong", *place] += 1


@dataclass
class AddWrongResponses(beam.PTransform):
    """What came of units -> (their instructions with wrong responses beside the correct ones; all_stats)."""

    negatives: Negatives
    rouge: str
    seed: int

    def expand(self, rendered: beam.PCollection) -> Any:  # Beam warns of any hint for two outputs
        draw = beam.ParDo(_AddWrongResponses(self.negatives, self.rouge, self.seed))
        return rendered | "Draw" >> draw.with_outputs(COUNTED, main="chunks")


class _AddWrongResponses(beam.DoFn):
    def __init__(self, negatives: Negatives, rouge: str, seed: int) -> None:
        self._negatives, self._rouge, self._seed = negatives, rouge, seed

    def setup(self) -> None:
        self._scorer = RougeL(self._rouge)

    def process(self, rendered: RenderedUnit) -> Iterator[Any]:
        stats = Stats()
        for chunk in rendered.chunks:
            yield add_wrong_responses(chunk, self._scorer, self._negatives, self._seed, stats)
        yield TaggedOutput(COUNTED, stats)
