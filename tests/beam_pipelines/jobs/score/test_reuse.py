"""Scores that are reused: of which scorer, and what is left to compute."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.score import reuse
from beam_pipelines.jobs.score.pair_index import SCORED_PAIR, PairIndex
from beam_pipelines.jobs.score.reuse import KnownScores, ReusingScorer, ScoredFolder, check_matched, reuse_of
from beam_pipelines.jobs.score.scoring import ScoreColumns
from cappy_model.score.scorer import Scored, ScoringWork
from cappy_model.work import ProgressCallback
from schemas.errors import CappyError

MODEL = {
    "name": "mine",
    "head": "logit",
    "template": "none",
    "named_activation": None,
    "content": "c0",
    "type": "bert",
    "max_length": 512,
    "truncation": "longest_first",
    "device": "cuda:0",
    "dtype": "bfloat16",
    "tokens_per_batch": 4096,
}


def folder_of(**models: dict[str, Any]) -> ScoredFolder:
    columns = {name: ScoreColumns("instruction", "response", name) for name in models}
    return ScoredFolder("d", models, {name: KnownScores("d", columns[name], 3, "f", "r") for name in models})


@pytest.mark.parametrize(
    "change", [{"device": "cuda:1"}, {"device": "cuda"}, {"tokens_per_batch": 1}, {"name": "copy"}, {"activation": "x"}]
)
def test_what_scores_do_not_depend_on_may_differ(change: dict[str, Any]) -> None:
    assert folder_of(score=MODEL).known({**MODEL, **change}) is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"device": "cpu"}, "its device is cuda:0, and here it is cpu; give the --device of that run"),
        ({"head": "yes,no"}, "its head is logit, and here it is yes,no; give the --head of that run"),
        ({"template": "chat", "template_hash": "t"}, "its template is none, and here it is chat; give the --template"),
        ({"template_hash": "t"}, "the text of its template differs; give the --template of that run"),
        ({"truncation": "response"}, "its truncation is longest_first, and here it is response; leave it out"),
        ({"content": "c1", "type": "roberta"}, "the files of its model, mine, differ, its type is bert, and here"),
    ],
)
def test_what_scores_depend_on_may_not(change: dict[str, Any], told: str) -> None:
    folder = folder_of(score=MODEL)
    assert folder.known({**MODEL, **change}) is None
    with pytest.raises(CappyError, match=f"^--reuse d: its scores are those of another scorer: {told}"):
        check_matched([folder], [{**MODEL, **change}])


def test_the_scores_of_the_same_scorer_are_found_among_several() -> None:
    folder = folder_of(a={**MODEL, "dtype": "float32"}, b=MODEL)
    found = reuse_of([folder, folder_of(c={**MODEL, "content": "c1"})], MODEL, {})
    assert found is not None and [scores.columns.score for scores in found.known] == ["b"]
    assert reuse_of([folder], {**MODEL, "content": "c2"}, {}) is None
    check_matched([folder], [{**MODEL, "content": "c2"}, MODEL])
    with pytest.raises(CappyError, match="the scores in its column 'b' are those of another scorer: its max_length"):
        check_matched([folder], [{**MODEL, "max_length": 64}])


class FakeScorer:
    """Scores a pair by the length of its response; one with an x has an error."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score_pairs(
        self, instructions: Sequence[str], responses: Sequence[str], *, on_progress: ProgressCallback | None = None
    ) -> Scored:
        self.asked = list(zip(instructions, responses, strict=True))
        lengths = np.array([np.nan if "x" in text else len(text) for text in responses], np.float32)
        errors = {place: "broken" for place, text in enumerate(responses) if "x" in text}
        if on_progress is not None:
            on_progress(len(responses), len(responses))
        counts = np.full(len(responses), 7, np.int32)
        work = ScoringWork(distinct=len(set(self.asked)), tokens=7 * len(responses))
        return Scored(lengths, counts, np.zeros(len(responses), bool), errors, work)


RESPONSES = st.sampled_from(["", "a", "ab", "x", "abx"])


@given(st.lists(RESPONSES, max_size=6), st.lists(RESPONSES, max_size=12))
def test_only_unknown_pairs_are_computed(known: list[str], wanted: list[str]) -> None:
    scores = pa.array([100.0 + len(text) for text in known], pa.float32())
    arrays = [pa.array(["q"] * len(known), pa.string()), pa.array(known, pa.string()), scores]
    arrays += [pa.array([9] * len(known), pa.int32()), pa.array([True] * len(known), pa.bool_())]
    index = PairIndex.build([pa.RecordBatch.from_arrays(arrays, schema=SCORED_PAIR)])
    scorer, loaded, calls = FakeScorer(), [], []

    def load(spec: object) -> FakeScorer:
        loaded.append(spec)
        return scorer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reuse, "load_scorer", load)
        found = ReusingScorer("spec", index).score_pairs(  # type: ignore[arg-type]
            ["q"] * len(wanted), wanted, on_progress=lambda done, of: calls.append((done, of))
        )
    rest = [text for text in wanted if text not in known]
    assert scorer.asked == [("q", text) for text in rest] and bool(loaded) == bool(rest)
    expected = [100 + len(text) if text in known else np.nan if "x" in text else len(text) for text in wanted]
    assert np.array_equal(found.scores, np.array(expected, np.float32), equal_nan=True)
    assert found.num_tokens.tolist() == [9 if text in known else 7 for text in wanted]
    assert found.truncated.tolist() == [text in known for text in wanted]
    assert found.errors == {place: "broken" for place, text in enumerate(wanted) if "x" in text and text not in known}
    assert (found.work.reused, found.work.tokens) == (len(wanted) - len(rest), 7 * len(rest))
    assert found.work.distinct == len(set(wanted))
    assert calls == ([(len(wanted), len(wanted))] if rest else [])
