"""Reports over samples with nulls: whatever a job accepts, its page shows."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.runs.report import render_report
from schemas.records import GENERATED, GROUND_TRUTH
from tests.beam_pipelines import fake_manifests
from tests.beam_pipelines.jobs.evaluate import test_page as evaluation
from tests.beam_pipelines.jobs.generate import test_page as generation
from tests.beam_pipelines.jobs.rerank import test_page as selection
from tests.beam_pipelines.jobs.score import test_page as scoring
from tests.beam_pipelines.report.pages import read

TEXT = st.text(max_size=400)
OR_NULL = st.none() | TEXT
TEXTS_OR_NULLS = st.lists(OR_NULL, max_size=3)
REJECT = st.fixed_dictionaries(
    {"stage": st.just("read"), "reason": TEXT, "source": TEXT, "position": TEXT, "detail": TEXT, "excerpt": OR_NULL}
)
SCORED = st.fixed_dictionaries(
    {
        "instruction": OR_NULL,
        "response": OR_NULL,
        "position": TEXT,
        "num_tokens": st.integers(0, 9),
        "score": st.none() | st.floats(-9, 9),
        "error": OR_NULL,
    }
)
SELECTED = st.fixed_dictionaries(
    {
        **dict.fromkeys(("instruction_id", "instruction", "response"), OR_NULL),
        **dict.fromkeys(("score", "first", "mean"), st.floats(-9, 9)),
        "num_candidates": st.integers(1, 9),
    }
)
PAIR = st.fixed_dictionaries(
    {
        "dataset": TEXT,
        **dict.fromkeys(("subset", "split", "generator", "template_name"), OR_NULL),
        "instruction": OR_NULL,
        "response": OR_NULL,
        "label": st.floats(0, 1),
    }
)
CANDIDATE = st.fixed_dictionaries(
    {
        **dict.fromkeys(("response", "decoding", "finish_reason"), OR_NULL),
        "sample_index": st.none() | st.integers(0, 9),
        "count": st.none() | st.integers(1, 9),
        "log_likelihood_mean": st.none() | st.floats(-9, 0),
    }
)
PROMPTED = st.fixed_dictionaries(
    {
        "position": TEXT,
        "instruction": OR_NULL,
        "references": st.none() | TEXTS_OR_NULLS,
        "candidates": st.lists(CANDIDATE, max_size=3),
        "left_out": st.integers(0, 3),
    }
)


def with_samples(manifest: dict[str, Any], **samples: Any) -> str:
    return read(render_report({**manifest, "samples": {**manifest["samples"], **samples}})).text


ROWS = st.lists(SCORED, max_size=2)


@settings(max_examples=25)
@given(ROWS, ROWS, st.lists(REJECT, max_size=2))
def test_score(rows: list[Any], lowest: list[Any], rejects: list[Any]) -> None:
    manifest = scoring.manifest_of(scoring.stats_of(3, 1))
    shown = with_samples(manifest, any=rows, highest=rows, lowest=lowest, rejects=rejects)
    nulls = sum((row["instruction"] is None) + (row["response"] is None) for row in (*rows, *rows, *lowest))
    assert shown.count("(null)") >= nulls


@settings(max_examples=25)
@given(st.lists(SELECTED, max_size=3), st.lists(REJECT, max_size=2))
def test_rerank(rows: list[Any], rejects: list[Any]) -> None:
    shown = with_samples(selection.manifest_of(selection.stats_of({2: 3})), selections=rows, rejects=rejects)
    assert shown.count("(null)") >= sum(row["response"] is None for row in rows)


@settings(max_examples=25)
@given(st.lists(PAIR, max_size=3), st.lists(REJECT, max_size=2))
def test_build_corpus(rows: list[Any], rejects: list[Any]) -> None:
    pairs = {GROUND_TRUTH: rows, GENERATED: rows}
    shown = with_samples(fake_manifests.small(), pairs=pairs, rejects=rejects)
    assert shown.count("(null)") >= 2 * sum(row["response"] is None for row in rows)


@settings(max_examples=25)
@given(st.lists(PROMPTED, max_size=2), st.lists(REJECT, max_size=2))
def test_generate(rows: list[Any], rejects: list[Any]) -> None:
    shown = with_samples(generation.manifest_of(generation.stats_of(["a", "b"])), rows=rows, rejects=rejects)
    texts = [text for row in rows for text in (row["instruction"], *(row["references"] or ()))]
    assert shown.count("(null)") >= sum(text is None for text in texts)


NAMES = st.none() | st.sampled_from(["", "a", "b"])


@settings(max_examples=15)
@given(st.lists(st.tuples(*[NAMES] * 6), min_size=2, max_size=6), st.sampled_from(["generation", "classification"]))
def test_evaluate(names: list[tuple[str | None, ...]], task: str) -> None:
    keys = ("dataset", "split", "template_id", "example_id", "generator", "decoding")
    rows = [
        {
            "instruction": f"i{number // 2}",
            "response": f"r {number}",
            "references": ["r 0", None, ""],
            "score": number / 7,
            "sample_index": None if number % 2 else number,
            **dict(zip(keys, found, strict=True)),
        }
        for number, found in enumerate(names)
    ]
    manifest = evaluation.manifest_of([{**row, "score": 0.5} for row in rows] + rows, task)
    assert "None" not in read(render_report(manifest)).text
    rejects = [{"stage": "read", "reason": "r", "source": "s", "position": "@0", "detail": "d", "excerpt": None}]
    with_samples(manifest, rejects=rejects)
