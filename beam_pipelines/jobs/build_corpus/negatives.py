"""Wrong responses: other answer choices of the instruction or, if it has none, references of other rows."""

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_pipelines.templates.mixture import Negatives
from beam_pipelines.transforms.results import Result
from cappy_model.metrics.rouge import RougeL
from schemas.chunks import group_rows
from schemas.ids import seed_for
from schemas.records import INSTRUCTION
from schemas.stats import Stats

REDRAWS = 5

_SHUFFLED = ("instruction_id", "dataset", "subset", "split", "template_id", "instruction", "references")
LABELLED_INSTRUCTION = pa.schema(
    [
        *(INSTRUCTION.field(name) for name in _SHUFFLED),
        pa.field("wrong", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
        pa.field("has_choices", pa.bool_(), nullable=False),
    ]
)
"""An instruction as it is shuffled: once, with all its correct and wrong responses, rather than once per pair.

`wrong` are answer choices where `has_choices`, else references of other rows."""


def wrong_choices(
    choices: Sequence[str], references: Sequence[str], limit: int, seed: int, instruction_id: str
) -> list[str]:
    """Return the distinct choices that differ, once stripped, from every reference: at most `limit`, by smallest hash.

    Choices are compared by text, never by index: some templates list a choice twice, or have a target outside of them.
    """
    correct = {reference.strip() for reference in references}
    wrong = [choice for choice in dict.fromkeys(map(str.strip, choices)) if choice and choice not in correct]
    if len(wrong) > limit:
        wrong = sorted(wrong, key=lambda choice: (seed_for(seed, instruction_id, choice), choice))[:limit]
    return wrong


class Mismatcher:
    """Draws mismatched responses for the rows of one chunk: references of other rows that are not correct by accident.

    Args:
        references: the references of each row of the chunk, at least one per row.
        rouge: computes Rouge-L; the tokens of each text are cached here.
        overlap_limit: in (0, 1]; a response with this Rouge-L or more with a reference may be correct.
        seed: random seed.
    """

    def __init__(self, references: Sequence[Sequence[str]], rouge: RougeL, *, overlap_limit: float, seed: int) -> None:
        self._references = references
        self._tokens = functools.cache(rouge.tokens)
        self._overlap_limit = overlap_limit
        self._seed = seed

    def draw(self, row: int, members: Sequence[int], *, instruction_id: str, count: int) -> list[str]:
        """Draw up to `count` distinct responses for row `row` from the first references of the rows `members`.

        A draw is rejected if it is the row's own, repeats a response, equals a reference of the row, or reaches the
        overlap limit with one. After `count + REDRAWS` draws the responses found so far are returned.
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
        # Texts without a token (Chinese, say, under the parity tokenizer) have equal tokens and yet differ.
        alike = bool(tokens) and tokens == others
        return alike or RougeL.f_measure(tokens, others) >= self._overlap_limit


def add_wrong_responses(
    chunk: pa.RecordBatch, rouge: RougeL, *, negatives: Negatives, seed: int, stats: Stats
) -> pa.RecordBatch:
    """Return INSTRUCTION rows as LABELLED_INSTRUCTION rows, with their wrong responses.

    Counts instructions whose reference is not among their choices, mismatched responses that were not found, and, by
    template, instructions left without a wrong response though the mixture requests some.
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
    _count_without_wrong(chunk, [not responses for responses in wrong], negatives=negatives, stats=stats)
    columns = [chunk[name] for name in _SHUFFLED]
    has_choices = pa.array([options is not None for options in choices], pa.bool_())
    columns += [pa.array(wrong, LABELLED_INSTRUCTION.field("wrong").type), has_choices]
    return pa.RecordBatch.from_arrays(columns, schema=LABELLED_INSTRUCTION)


def _count_without_wrong(
    chunk: pa.RecordBatch, lacks_wrong: Sequence[bool], *, negatives: Negatives, stats: Stats
) -> None:
    has_choices = chunk["choices"].is_valid().to_pylist()
    requested = {True: negatives.wrong_choices > 0, False: negatives.mismatched > 0}
    counted = [lacks and requested[choice] for lacks, choice in zip(lacks_wrong, has_choices, strict=True)]
    rows = chunk.select(["dataset", "subset", "split", "template_id"]).filter(pa.array(counted, pa.bool_()))
    for row in rows.to_pylist():
        place = (row["dataset"], row["subset"] or "", row["split"] or "", row["template_id"])
        stats.counts["without_wrong", *place] += 1


def reduce_instructions(rendered: Result, *, rouge: RougeL, negatives: Negatives, seed: int) -> Result:
    """Return the instructions of a rendered unit as LABELLED_INSTRUCTION chunks, with the counts of their negatives."""
    stats = Stats()
    rows = [add_wrong_responses(chunk, rouge, negatives=negatives, seed=seed, stats=stats) for chunk in rendered.rows]
    return Result(rendered.name, rows, LABELLED_INSTRUCTION, [], stats)
