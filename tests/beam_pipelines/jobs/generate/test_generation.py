"""A unit of instructions with what an engine draws for them: candidates, rejects and counts."""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.io.formats.base import BadRow, InputFile
from beam_pipelines.io.units import Unit
from beam_pipelines.jobs.generate.engines import SharedEngine
from beam_pipelines.jobs.generate.generation import PromptTemplate, Task, generate_unit
from beam_pipelines.jobs.generate.sampling import Sampling
from beam_pipelines.transforms.results import Result
from cappy_model.generate.decodings import PAPER, Decoding, Drawing, Drawn, GenerationError, Sample, decodings_named
from schemas.chunks import CHUNK_BYTES
from schemas.ids import digest, seed_for
from schemas.records import CANDIDATE
from tests.beam_pipelines.jobs.generate.fake_engine import BREAKS, FAILS, FakeEngine
from tests.conftest import sentence

Rows = list[dict[str, Any]]
DRAWING = Drawing(decodings_named(PAPER, {}))
FILE = InputFile(number=2, group=0, url="/in/a.parquet", name="a.parquet", size=9, ends="", rows=99, limit=None)
SCHEMA = pa.schema(
    {
        "instruction": pa.string(),
        "instruction_id": pa.string(),
        "dataset": pa.string(),
        "references": pa.list_(pa.string()),
    }.items()
)


def some_rows(count: int) -> Rows:
    return [
        {"instruction": sentence(i, 8), "instruction_id": f"id-{i}", "dataset": "d", "references": [sentence(i, 2)]}
        for i in range(count)
    ]


def unit_of(rows: Rows, schema: pa.Schema = SCHEMA, bad: Sequence[BadRow] = ()) -> Unit:
    return Unit(FILE, 0, 3, np.arange(10, 10 + len(rows)), pa.RecordBatch.from_pylist(rows, schema), list(bad))


def task_of(**changes: Any) -> Task:
    settled = {"instruction": "instruction", "generator": "m", "drawing": DRAWING, "sampling": Sampling(0), "seed": 5}
    return Task(**{**settled, **changes})


def generated(rows: Rows, schema: pa.Schema = SCHEMA, **changes: Any) -> tuple[Rows, Result, FakeEngine]:
    task = task_of(**changes)
    engine = FakeEngine(task.drawing)
    output = generate_unit(unit_of(rows, schema), SharedEngine(engine), task)
    return pa.Table.from_batches(output.rows, CANDIDATE).to_pylist(), output, engine


def test_candidates_stand_in_the_order_of_rows_decodings_and_samples() -> None:
    rows = some_rows(7)
    found, output, engine = generated(rows)
    assert output.name == "part-00002-00000-00003" and output.schema is CANDIDATE and not output.rejects
    wanted = [
        (row["instruction_id"], decoding.name, index)
        for row in rows
        for decoding in DRAWING.decodings
        for index in range(decoding.samples)
    ]
    assert [(row["instruction_id"], row["decoding"], row["sample_index"]) for row in found] == wanted
    assert len(wanted) == 7 * 17
    drawn = [sample for one in FakeEngine(DRAWING).draw(engine.prompts, engine.seeds) for sample in one.samples]
    for row, sample in zip(found, drawn, strict=True):
        assert (row["response"], row["finish_reason"]) == (sample.response, sample.finish_reason)
        assert row["log_likelihood_sum"] == pytest.approx(sample.log_likelihood_sum, abs=1e-5)
        assert (row["generator"], row["count"], row["dataset"]) == ("m", None, "d")
    assert found[0]["references"] == rows[0]["references"]


def test_equal_ids_have_equal_seeds_and_no_id_is_the_hash_of_the_instruction() -> None:
    rows = [{"instruction": text} for text in ("one", "two", "one")]
    found, _, engine = generated(rows, pa.schema([("instruction", pa.string())]))
    assert [row["instruction_id"] for row in found[::17]] == [digest("one"), digest("two"), digest("one")]
    assert engine.seeds == [seed_for(5, digest(row["instruction"])) for row in rows]
    assert [row["response"] for row in found[:17]] == [row["response"] for row in found[34:]]
    assert all(row["dataset"] is None and row["references"] is None for row in found)


def test_the_prompt_is_the_template_and_the_candidate_has_the_instruction() -> None:
    found, _, engine = generated(some_rows(2), template=PromptTemplate("{x} Q: ", "\nA:"))
    assert engine.prompts[0] == f"{{x}} Q: {sentence(0, 8)}\nA:"
    assert found[0]["instruction"] == sentence(0, 8)


def test_distinct_keeps_the_first_of_equal_responses_with_their_count() -> None:
    plain, _, _ = generated(some_rows(20))
    found, output, _ = generated(some_rows(20), distinct=True)
    counts = Counter((row["instruction_id"], row["response"]) for row in plain)
    first = {(row["instruction_id"], row["response"]): row for row in reversed(plain)}
    assert len(found) == len(counts) < len(plain) and max(counts.values()) > 1
    wanted = [row for row in plain if first[row["instruction_id"], row["response"]] is row]
    assert found == [{**row, "count": counts[row["instruction_id"], row["response"]]} for row in wanted]
    assert output.stats.counts["candidates", "distinct"] == output.stats.counts["candidates", "written"] == len(found)
    assert sum(output.stats.under("decodings", name)["candidates"] for name in PAPER) == len(plain)


def test_rows_fail_alone_and_all_are_counted() -> None:
    rows = some_rows(40)
    rows[3]["instruction"] = None
    rows[5]["instruction_id"] = None
    rows[7]["references"] = ["a", None]
    rows[9]["instruction"] += FAILS
    bad = BadRow(99, "broken_json", "it is", "{")
    sampling = Sampling(0, fraction=0.5)
    task = task_of(sampling=sampling)
    output = generate_unit(unit_of(rows, bad=[bad]), SharedEngine(FakeEngine(DRAWING)), task)
    assert [(row["stage"], row["reason"], row["position"], row["detail"]) for row in output.rejects] == [
        ("read", "broken_json", "#99", "it is"),
        ("generate", "null_value", "#13", "null in instruction"),
        ("generate", "null_value", "#15", "null in instruction_id"),
        ("generate", "null_value", "#17", "null among the references"),
        *([("generate", "prompt_too_long", "#19", "11 tokens")] if sampling.keeps("id-9", ()) else []),
    ]
    counts = output.stats.counts
    kept = {f"id-{i}" for i in range(40) if i not in (3, 5, 7, 9) and sampling.keeps(f"id-{i}", ())}
    assert counts["rows", "read"] == 41 and counts["rows", "unusable"] == 4
    assert counts["rows", "generated"] == len(kept)
    assert counts["rows", "failed"] == len(output.rejects) - 4
    assert sum(counts["rows", key] for key in ("generated", "sampled_out", "failed", "unusable")) == 41
    table = pa.Table.from_batches(output.rows)
    assert set(table["instruction_id"].to_pylist()) == kept


def test_what_is_counted_is_what_the_rows_say() -> None:
    found, output, engine = generated(some_rows(30))
    counts = output.stats.counts
    drawn = engine._drawn
    samples = [s for one in map(drawn, engine.prompts, engine.seeds) for s in one.samples]
    assert counts["tokens", "real"] == sum(sample.num_tokens for sample in samples)
    assert counts["tokens", "prompt"] == sum(len(prompt.split()) for prompt in engine.prompts)
    for name in PAPER:
        rows = [row for row in found if row["decoding"] == name]
        of = output.stats.under("decodings", name)
        assert of["candidates"] == of["with_likelihood"] == len(rows)
        assert of["empty"] == sum(not row["response"] for row in rows)
        assert of["distinct"] == len({(row["instruction_id"], row["response"]) for row in rows})
        assert output.stats.under("finish_reasons", name) == Counter(row["finish_reason"] for row in rows)
        assert sum(output.stats.under("lengths", name).values()) == len(rows)
        assert sum(output.stats.under("log_likelihoods", name).values()) == len(rows)
        total = sum(sample.log_likelihood_mean or 0 for sample in samples if sample.decoding == name)
        assert of["likelihood"] / 2**20 == pytest.approx(total, abs=1e-3)


def test_an_engine_without_likelihoods_or_reasons() -> None:
    class Silent(FakeEngine):
        def _sample(self, prompt: str, seed: int, decoding: Decoding, index: int) -> Any:
            untold = {"finish_reason": None, "log_likelihood_sum": None, "log_likelihood_mean": None}
            return super()._sample(prompt, seed, decoding, index)._replace(**untold)

    output = generate_unit(unit_of(some_rows(3)), SharedEngine(Silent(DRAWING)), task_of())
    rows = pa.Table.from_batches(output.rows)
    assert rows["log_likelihood_sum"].null_count == rows["finish_reason"].null_count == len(rows) == 51
    assert output.stats.under("finish_reasons", "beam4") == {"untold": 3}
    assert not output.stats.under("log_likelihoods")


def test_empty_responses_are_counted_by_reason_and_usual_ones_add_no_key() -> None:
    class Odd(FakeEngine):
        """Its responses are told by the instruction: `text|finish reason|what is beside it`."""

        def draw(self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: Any = None) -> list[Drawn]:
            return [
                one._replace(samples=tuple(self._odd(sample, prompt) for sample in one.samples), concessions=("n",))
                for one, prompt in zip(super().draw(prompts, seeds), prompts, strict=True)
            ]

        def _odd(self, sample: Sample, prompt: str) -> Sample:
            response, reason, beside = prompt.split("|")
            return sample._replace(response=response, finish_reason=reason or None, beside=tuple(beside.split()))

    texts = ["|length|reasoning", " |stop|", "a|stop|reasoning", "b|stop|image_url", "|stop|tool_calls reasoning"]
    texts += ["<think>hm</think>c|stop|", "hm</think>c|stop|", "I <think>|stop|"]
    drawing = Drawing((Decoding("two", samples=2),))
    rows = [{"instruction": text} for text in texts]
    unit = unit_of(rows, pa.schema([("instruction", pa.string())]))
    counts = generate_unit(unit, SharedEngine(Odd(drawing)), task_of(drawing=drawing)).stats.counts
    assert counts["decodings", "two", "empty"] == 6
    assert {key[1]: count for key, count in counts.items() if key[0] == "empty"} == {
        "reasoning_cut": 2, "stop": 2, "tool_calls": 2
    }  # fmt: skip
    assert counts["beside", "image_url"] == 2 and counts["candidates", "thinking"] == 4
    assert counts["concessions", "n"] == len(texts)
    usual = generate_unit(unit_of([{"instruction": "x y z"}]), SharedEngine(FakeEngine(drawing)), task_of()).stats
    assert not {"empty", "beside", "concessions"} & {key[0] for key in usual.counts}


@pytest.mark.parametrize(("empty", "warned"), [(15, 0), (16, 1), (40, 1)])
def test_a_run_that_begins_with_empty_responses_is_warned_of_once(
    empty: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Mute(FakeEngine):
        def draw(self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: Any = None) -> list[Drawn]:
            nothing = Sample("greedy", 0, "", "length", None, None, 3, ("reasoning",))
            text = nothing._replace(response="yes")
            return [Drawn((nothing if prompt == "" else text,), None, 0, truncated=False) for prompt in prompts]

    engine = SharedEngine(Mute(DRAWING))
    for _ in range(empty):
        engine.draw([""], [0])
    engine.draw(["x"], [0])
    engine.draw([""] * 50, range(50))
    assert len(caplog.records) == warned
    assert all("the first 16 responses are all empty: 16 because all tokens" in r.getMessage() for r in caplog.records)


def test_long_instructions_are_written_in_chunks() -> None:
    rows = [{**row, "instruction": row["instruction"] + " x" * (CHUNK_BYTES // 40)} for row in some_rows(4)]
    found, output, _ = generated(rows)
    assert len(output.rows) == 4 and all(chunk.num_rows == 17 for chunk in output.rows)
    assert [row["instruction_id"] for row in found[::17]] == [f"id-{i}" for i in range(4)]
    assert output.stats.counts["prompts", "truncated"] == 4
    assert len(output.stats.to_json()) < 60_000


def test_no_row_left_is_no_call_of_the_engine() -> None:
    found, output, engine = generated(some_rows(3), sampling=Sampling(0, largest={}))
    assert not found and not output.rows and not engine.prompts
    assert output.stats.counts["rows", "sampled_out"] == 3


def test_a_broken_engine_ends_everything() -> None:
    with pytest.raises(GenerationError, match="call somebody"):
        generated([{**row, "instruction": BREAKS} for row in some_rows(2)])


def test_memory_that_ran_out_is_told_once_by_whichever_thread() -> None:
    engine = FakeEngine(DRAWING)
    shared, told = SharedEngine(engine), []

    def ask() -> None:
        for _ in range(200):
            engine.memory_errors += 1
            told.append(shared.new_out_of_memory())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(told) + shared.new_out_of_memory() == engine.memory_errors
