"""Units of instructions -> candidates: responses of a language model, one output file for each unit."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.engines import SharedEngine
from beam_pipelines.jobs.generate.sampling import ID, TEMPLATE_COLUMNS, Sampling, templates_of
from beam_pipelines.transforms.results import Result, reject_row, unreadable_rows
from cappy_model.generate.decodings import Drawing, Sample
from schemas.chunks import CHUNK_BYTES, CHUNK_ROWS, from_rows
from schemas.errors import CappyError
from schemas.ids import digest, seed_for
from schemas.records import CANDIDATE, is_text
from schemas.stats import FIXED_POINT, REAL_TOKENS, Stats, count_scores

STAGE = "generate"
UNKNOWN = "untold"
"""Key of the samples whose engine gives no finish reason."""
_LENGTH_BINS = 64
_SAMPLE_CHARACTERS = 2_000  # of an instruction; a report shows no more
_SAMPLE_RESPONSE_CHARACTERS = 500
_SAMPLE_CANDIDATES = 40
COPIED = ("dataset", "references")
"""The columns that candidates copy from their instruction."""
_TYPES = {
    ID: pa.string(),
    "dataset": pa.string(),
    "references": pa.list_(pa.string()),
    **dict.fromkeys(TEMPLATE_COLUMNS, pa.string()),
}


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


def instruction_columns(found: pa.Schema, instruction: str, *, per_template: bool) -> pa.Schema:
    """Return the columns to read: the instruction, those copied to candidates, and those of sampling per template.

    Raises CappyError for a column that is missing or has the wrong type.
    """
    if instruction not in found.names:
        raise CappyError(
            f"--instruction-column {instruction}: there is no such column; there are {', '.join(found.names)}"
        )
    if not is_text(found.field(instruction).type):
        raise CappyError(f"--instruction-column {instruction}: is {found.field(instruction).type}, not text")
    names = [ID, *COPIED, *(TEMPLATE_COLUMNS if per_template else ())]
    columns = {instruction: pa.string()}
    for name in dict.fromkeys(names):
        if name in found.names and name != instruction:
            _check_type(found.field(name))
            columns[name] = _TYPES[name]
    return pa.schema(columns.items())


def _check_type(field: pa.Field) -> None:
    """Raise CappyError for a column of the wrong type: `references` are a list of texts, the others text."""
    listed = field.name == "references"
    fits = pa.types.is_list(field.type) == listed or pa.types.is_null(field.type)
    values = field.type.value_type if pa.types.is_list(field.type) else field.type
    if not (fits and (is_text(values) or pa.types.is_null(values))):
        expected = "a list of texts" if listed else "text"
        raise CappyError(f"column {field.name!r} is {field.type} and must be {expected}; convert, rename or drop it")


class _Row(NamedTuple):
    """A row to generate for: its offset in the unit, and the values copied to its candidates."""

    offset: int
    instruction_id: str
    dataset: str | None
    instruction: str
    references: list[str] | None


def generate_unit(unit: Unit, engine: SharedEngine, task: Task) -> Result:
    """Generate candidates for the instructions of a unit that sampling keeps, in their order.

    A row without an instruction, or whose prompt gets no response, is a reject. Raises GenerationError if the engine
    cannot generate at all.
    """
    stats, rejects = Stats(), unreadable_rows(unit)
    rows, unusable = _usable(unit, task)
    rejects += [_reject(unit, index, "null_value", detail, excerpt=None) for index, detail in unusable]
    stats.counts["rows", "read"] += unit.rows.num_rows + len(unit.bad)
    stats.counts["rows", "unusable"] += len(rejects)
    kept = [row for row, template in rows if task.sampling.keeps(row.instruction_id, template)]
    stats.counts["rows", "sampled_out"] += len(rows) - len(kept)
    drawn = engine.draw(
        [task.template.prompt(row.instruction) for row in kept],
        [seed_for(task.seed, row.instruction_id) for row in kept],
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
    stats.counts["rows", "failed"] += len(kept) - len(answered)
    stats.counts["rows", "generated"] += len(answered)
    stats.counts["tokens", "out_of_memory"] += engine.new_out_of_memory()
    chunks = list(_chunks(unit, answered, task, stats))
    return Result(f"part-{unit.name}", chunks, CANDIDATE, rejects, stats)


def _usable(unit: Unit, task: Task) -> tuple[list[tuple[_Row, Any]], list[tuple[int, str]]]:
    """Return the usable rows, each with its template, and the indices of the others, each with the reason."""
    present = set(unit.rows.schema.names)
    nothing = [None] * unit.rows.num_rows
    instructions = unit.rows[task.instruction].to_pylist()
    datasets, references = (unit.rows[name].to_pylist() if name in present else nothing for name in COPIED)
    if ID in present:
        ids = unit.rows[ID].to_pylist()
    else:
        ids = [None if text is None else digest(text) for text in instructions]
    usable, unusable = [], []
    for index, template in enumerate(templates_of(unit.rows)):
        texts = references[index]
        if instructions[index] is None:
            unusable.append((index, f"null in {task.instruction}"))
        elif ids[index] is None:
            unusable.append((index, f"null in {ID}"))
        elif texts is not None and None in texts:
            unusable.append((index, "null among the references"))
        else:
            usable.append((_Row(index, ids[index], datasets[index], instructions[index], texts), template))
    return usable, unusable


def _reject(unit: Unit, index: int, reason: str, detail: str, *, excerpt: str | None) -> dict[str, Any]:
    position = int(unit.positions[index])
    return reject_row(unit, position, stage=STAGE, reason=reason, detail=detail, excerpt=excerpt)


def _chunks(
    unit: Unit, answered: Sequence[tuple[_Row, Sequence[Sample]]], task: Task, stats: Stats
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


def _candidate(row: _Row, sample: Sample, count: int | None, task: Task) -> dict[str, Any]:
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
        counts["decodings", name, "empty"] += not sample.response
        counts["decodings", name, "tokens"] += sample.num_tokens
        counts["finish_reasons", name, sample.finish_reason or UNKNOWN] += 1
        counts["lengths", name, f"{sample.num_tokens // width:05d}"] += 1
    for name, means in _means(samples).items():
        counts["decodings", name, "with_likelihood"] += len(means)
        counts["decodings", name, "likelihood"] += sum(round(mean * FIXED_POINT) for mean in means)
        count_scores(stats, ("log_likelihoods", name), np.array(means))


def _means(samples: Sequence[Sample]) -> Mapping[str, list[float]]:
    """Return the mean log-likelihoods by decoding, of the samples that have one."""
    means: dict[str, list[float]] = {}
    for sample in samples:
        if sample.log_likelihood_mean is not None:
            means.setdefault(sample.decoding, []).append(sample.log_likelihood_mean)
    return means


def _sample(unit: Unit, row: _Row, candidates: Sequence[Mapping[str, Any]], stats: Stats) -> None:
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
