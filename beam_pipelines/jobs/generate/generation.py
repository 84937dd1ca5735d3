"""Units of instructions -> candidates: responses of a language model, one output file for each unit."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.columns import Instruction, usable_rows
from beam_pipelines.jobs.generate.empty import UNKNOWN, is_empty, why_empty
from beam_pipelines.jobs.generate.engines import SharedEngine
from beam_pipelines.jobs.generate.sampling import Sampling
from beam_pipelines.transforms.results import Result, reject_row, unreadable_rows
from cappy_model.generate.decodings import REASONING, Drawing, Sample
from cappy_model.work import ProgressCallback
from schemas.chunks import CHUNK_BYTES, CHUNK_ROWS, from_rows
from schemas.ids import seed_for
from schemas.records import CANDIDATE
from schemas.stats import FIXED_POINT, REAL_TOKENS, Key, Stats, count_scores

STAGE = "generate"
_LENGTH_BINS = 64
_SAMPLE_CHARACTERS = 2_000  # of an instruction; a report shows no more
_SAMPLE_RESPONSE_CHARACTERS = 500
_SAMPLE_CANDIDATES = 40
_THINKING = re.compile(r"\s*<think>|.*</think>", re.DOTALL)
"""A response that holds reasoning in its text; some chat templates write the opening tag themselves."""


@dataclass(frozen=True)
class PromptTemplate:
    """Text before and after the instruction in a prompt."""

    before: str = ""
    after: str = ""

    def prompt(self, instruction: str) -> str:
        """Return the prompt for an instruction."""
        return f"{self.before}{instruction}{self.after}"


@dataclass(frozen=True)
class Task:
    """How candidates are generated for the rows of a unit.

    `instruction` is the column of the instructions, `generator` a value of every candidate; `distinct` merges equal
    responses of a row into the first of them, with their count.
    """

    instruction: str
    generator: str
    drawing: Drawing
    sampling: Sampling
    seed: int
    template: PromptTemplate = PromptTemplate()
    distinct: bool = False


def tokens_per_bin(max_new_tokens: int) -> int:
    """Return the width of the bins in which the lengths of responses are counted."""
    return -(-max_new_tokens // _LENGTH_BINS)


def generate_unit(
    unit: Unit, engine: SharedEngine, task: Task, *, on_progress: ProgressCallback | None = None
) -> Result:
    """Generate candidates for the instructions of a unit that sampling keeps, in their order.

    A row without an instruction, or whose prompt gets no response, is a reject. `on_progress` counts the prompts of the
    rows that sampling keeps. Raises GenerationError if the engine cannot generate at all.
    """
    stats, rejects = Stats(), unreadable_rows(unit)
    rows, unusable = usable_rows(unit.rows, task.instruction)
    rejects += [_reject(unit, index, "null_value", detail, excerpt=None) for index, detail in unusable]
    stats.counts["rows", "read"] += unit.rows.num_rows + len(unit.bad)
    stats.counts["rows", "unusable"] += len(rejects)
    kept = [row for row, template in rows if task.sampling.keeps(row.instruction_id, template)]
    stats.counts["rows", "sampled_out"] += len(rows) - len(kept)
    drawn = engine.draw(
        [task.template.prompt(row.instruction) for row in kept],
        [seed_for(task.seed, row.instruction_id) for row in kept],
        on_progress=on_progress,
    )
    answered = []
    for row, answer in zip(kept, drawn, strict=True):
        stats.counts["tokens", "prompt"] += answer.prompt_tokens
        stats.counts["prompts", "truncated"] += answer.truncated
        if answer.failure:
            reason, detail = answer.failure
            rejects.append(_reject(unit, row.offset, reason, detail, excerpt=row.instruction))
        else:
            answered.append((row, answer.samples))
            stats.counts.update(("concessions", name) for name in answer.concessions)
    stats.counts["rows", "failed"] += len(kept) - len(answered)
    stats.counts["rows", "generated"] += len(answered)
    stats.counts["tokens", "out_of_memory"] += engine.new_out_of_memory()
    chunks = list(_chunks(unit, answered, task, stats))
    return Result(f"part-{unit.name}", chunks, CANDIDATE, rejects, stats)


def _reject(unit: Unit, index: int, reason: str, detail: str, *, excerpt: str | None) -> dict[str, Any]:
    position = int(unit.positions[index])
    return reject_row(unit, position, stage=STAGE, reason=reason, detail=detail, excerpt=excerpt)


def _chunks(
    unit: Unit, answered: Sequence[tuple[Instruction, Sequence[Sample]]], task: Task, stats: Stats
) -> Iterator[pa.RecordBatch]:
    """Yield the CANDIDATE rows in order, in chunks, which are small where long instructions are repeated."""
    buffer: list[dict[str, Any]] = []
    buffered = 0
    for row, samples in answered:
        _count(samples, task, stats)
        candidates = [_candidate(row, *each, task) for each in _merged(samples, distinct=task.distinct)]
        stats.counts["candidates", "written"] += len(candidates)
        _sample(unit, row, candidates, stats)
        size = len(candidates) * (len(row.instruction) + sum(map(len, row.references or ())))
        if buffer and (buffered + size > CHUNK_BYTES or len(buffer) + len(candidates) > CHUNK_ROWS):
            yield from_rows(buffer, CANDIDATE)
            buffer, buffered = [], 0
        buffer += candidates
        buffered += size
    if buffer:
        yield from_rows(buffer, CANDIDATE)


def _merged(samples: Sequence[Sample], *, distinct: bool) -> Iterator[tuple[Sample, int | None]]:
    """Yield each sample without a count; if `distinct`, the first sample of each text with the number of samples."""
    if not distinct:
        yield from ((sample, None) for sample in samples)
        return
    counts = Counter(sample.response for sample in samples)
    first = {sample.response: sample for sample in reversed(samples)}
    yield from ((sample, counts[sample.response]) for sample in samples if first[sample.response] is sample)


def _candidate(row: Instruction, sample: Sample, count: int | None, task: Task) -> dict[str, Any]:
    return {
        "instruction_id": row.instruction_id,
        "dataset": row.dataset,
        "instruction": row.instruction,
        "references": row.references,
        "response": sample.response,
        "generator": task.generator,
        "decoding": sample.decoding,
        "sample_index": sample.sample_index,
        "count": count,
        "finish_reason": sample.finish_reason,
        "log_likelihood_sum": sample.log_likelihood_sum,
        "log_likelihood_mean": sample.log_likelihood_mean,
    }


def _count(samples: Sequence[Sample], task: Task, stats: Stats) -> None:
    """Count the samples of a row, before equal ones are merged."""
    counts, width = stats.counts, tokens_per_bin(task.drawing.max_new_tokens)
    counts["candidates", "distinct"] += len({sample.response for sample in samples})
    counts[REAL_TOKENS] += sum(sample.num_tokens for sample in samples)
    for name, _ in {(sample.decoding, sample.response) for sample in samples}:
        counts["decodings", name, "distinct"] += 1
    for sample in samples:
        name = sample.decoding
        counts["decodings", name, "candidates"] += 1
        counts["decodings", name, "empty"] += is_empty(sample)
        counts["decodings", name, "tokens"] += sample.num_tokens
        counts["finish_reasons", name, sample.finish_reason or UNKNOWN] += 1
        counts["lengths", name, f"{sample.num_tokens // width:05d}"] += 1
        _count_oddities(sample, counts)
    for name, means in _means(samples).items():
        counts["decodings", name, "with_likelihood"] += len(means)
        counts["decodings", name, "likelihood"] += sum(round(mean * FIXED_POINT) for mean in means)
        count_scores(stats, ("log_likelihoods", name), np.array(means))


def _count_oddities(sample: Sample, counts: Counter[Key]) -> None:
    """Count why a response is empty, and what else a message held; a usual response adds no key."""
    if is_empty(sample):
        counts["empty", why_empty(sample)] += 1
    else:
        counts.update(("beside", part) for part in sample.beside if part != REASONING)
        if _THINKING.match(sample.response):
            counts["candidates", "thinking"] += 1


def _means(samples: Sequence[Sample]) -> Mapping[str, list[float]]:
    """Return the mean log-likelihoods by decoding, of the samples that have one."""
    means: dict[str, list[float]] = {}
    for sample in samples:
        if sample.log_likelihood_mean is not None:
            means.setdefault(sample.decoding, []).append(sample.log_likelihood_mean)
    return means


def _sample(unit: Unit, row: Instruction, candidates: Sequence[Mapping[str, Any]], stats: Stats) -> None:
    """Offer a row with its candidates to the sample that the report shows."""
    shown = ("decoding", "sample_index", "count", "finish_reason", "log_likelihood_mean")
    texts = [each["response"][:_SAMPLE_RESPONSE_CHARACTERS] for each in candidates[:_SAMPLE_CANDIDATES]]
    stats.sample(
        "rows",
        seed_for(0, unit.file.name, str(unit.positions[row.offset])),
        {
            "position": f"{unit.file.name}{unit.position(row.offset)}",
            "instruction": row.instruction[:_SAMPLE_CHARACTERS],
            "references": [text[:_SAMPLE_RESPONSE_CHARACTERS] for text in (row.references or ())[:3]],
            "candidates": [
                {"response": text, **{name: each[name] for name in shown}}
                for text, each in zip(texts, candidates, strict=False)
            ],
            "left_out": len(candidates) - len(texts),
        },
    )
