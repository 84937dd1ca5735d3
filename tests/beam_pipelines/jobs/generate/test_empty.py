"""Empty responses: the reason of each, and what a run says about them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.generate.empty import UNKNOWN, failure_of, in_words, is_empty, warning_of, why_empty
from cappy_model.generate.decodings import Sample


def sample(response: str = "", reason: str | None = None, *beside: str) -> Sample:
    return Sample("greedy", 0, response, reason, None, None, 3, beside)


@pytest.mark.parametrize(
    ("reason", "beside", "why"),
    [
        ("length", ["reasoning"], "reasoning_cut"),
        ("MAX_TOKENS", ["reasoning"], "reasoning_cut"),
        ("stop", ["reasoning"], "reasoning"),
        (None, ["reasoning"], "reasoning"),
        ("stop", ["reasoning", "tool_calls"], "tool_calls"),
        ("stop", ["image_url"], "image_url"),
        ("content_filter", ["reasoning"], "content_filter"),
        ("refusal", ["refusal"], "refusal"),
        ("length", [], "length"),
        ("stop", [], "stop"),
        ("eos_token", [], "stop"),
        ("tool_calls", [], "tool_calls"),
        ("abort", [], "abort"),
        (None, [], UNKNOWN),
    ],
)
def test_reasons(reason: str | None, beside: list[str], why: str) -> None:
    assert why_empty(sample("", reason, *beside)) == why


def test_blanks_are_empty() -> None:
    assert is_empty(sample(" \n")) and not is_empty(sample("\x00"))


def test_words_name_the_remedy() -> None:
    words = in_words({"reasoning_cut": 3, "abort": 12_000, "stop": 3})
    assert words == (
        "12,000 with abort in place of text; 3 because all tokens went into reasoning, with finish_reason length "
        "(raise --max-new-tokens, or turn the model's thinking off); 3 because the model ended, or reached a --stop "
        "text, before any text (check the prompt, --chat and --stop)"
    )


def test_a_twentieth_may_be_empty() -> None:
    assert warning_of(5, 100, {"stop": 5}) is None and warning_of(0, 0, {}) is None
    warning = warning_of(6, 100, {"stop": 6})
    assert warning and warning.startswith("6 of 100 responses (6.0%) are empty: 6 because the model ended")


def test_a_run_fails_only_if_nothing_has_text() -> None:
    assert failure_of(0, 0, {}) is None and failure_of(11, 12, {"stop": 11}) is None
    failure = failure_of(12, 12, {"reasoning_cut": 12})
    assert failure and failure.startswith("All 12 responses are empty: 12 because all tokens went into reasoning, with")
    assert (failure_of(1, 1, {"length": 1}) or "").startswith("The only response is empty: 1 because --max-new-tokens")


@given(st.none() | st.text(max_size=9), st.lists(st.text(max_size=9), max_size=3))
def test_any_reason_is_one_and_has_words(reason: str | None, beside: list[str]) -> None:
    why = why_empty(sample("", reason, *beside))
    assert in_words({why: 2}).startswith("2 ")
