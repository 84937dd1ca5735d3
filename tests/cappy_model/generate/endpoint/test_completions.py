"""Requests and answers of the OpenAI API, without a server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.generate.decodings import PRESETS, Decoding, Drawing
from cappy_model.generate.endpoint.answers import Answer, read_answer
from cappy_model.generate.endpoint.completions import exceeds_limit, request_for, samples_of

TWO = Decoding("two", samples=2, temperature=0.7)


def asked(
    decoding: Decoding = TWO, *, seed: int = 1, have: int = 0, logprobs: bool = True, **drawing: Any
) -> dict[str, Any]:
    how = Drawing((decoding,), **{"max_new_tokens": 9, "min_new_tokens": 0, **drawing})
    return request_for(how, decoding, model="tiny", prompt="Why?", seed=seed, have=have, logprobs=logprobs)


def answer_of(*choices: dict[str, Any], **rest: Any) -> Answer:
    return read_answer(json.dumps({"choices": choices, **rest}).encode())


def test_a_completion() -> None:
    request = asked()
    assert request.pop("seed") in range(2**31)
    assert request == {
        "model": "tiny", "prompt": "Why?", "n": 2, "temperature": 0.7, "top_p": 1.0, "max_tokens": 9, "logprobs": 1
    }  # fmt: skip


def test_a_chat() -> None:
    request = asked(Decoding("d", samples=3, top_p=0.5), have=1, chat=True, stop=("\n", "Q:"))
    assert request.pop("seed") in range(2**31)
    assert request == {
        "model": "tiny", "messages": [{"role": "user", "content": "Why?"}], "n": 2, "temperature": 1.0, "top_p": 0.5,
        "max_completion_tokens": 9, "logprobs": True, "stop": ["\n", "Q:"],
    }  # fmt: skip


@pytest.mark.parametrize("chat", [False, True])
def test_one_choice_is_asked_for_without_n(chat: bool) -> None:
    assert asked(have=0, chat=chat)["n"] == 2
    assert "n" not in asked(have=1, chat=chat)


@pytest.mark.parametrize("chat", [False, True])
def test_no_log_likelihoods(chat: bool) -> None:
    assert "logprobs" not in asked(logprobs=False, chat=chat)


@pytest.mark.parametrize(
    ("decoding", "least", "extra"),
    [
        (PRESETS["topk40"], 0, {"top_k": 40}),
        (PRESETS["sampling"], 3, {"min_tokens": 3}),
        (PRESETS["topk40"], 2, {"top_k": 40, "min_tokens": 2}),
        (PRESETS["greedy"], 1, None),
    ],
)
def test_what_openai_does_not_know_is_sent_only_where_it_says_something(
    decoding: Decoding, least: int, extra: dict[str, int] | None
) -> None:
    assert asked(decoding, min_new_tokens=least).get("extra_body") == extra


def test_the_seed_follows_from_the_prompts_and_the_decoding_and_what_there_is() -> None:
    requests = [asked(), asked(seed=2), asked(Decoding("other", samples=2)), asked(have=1)]
    assert len({request["seed"] for request in requests}) == len(requests)
    assert asked()["seed"] == asked()["seed"]


TEXT = {"text": "yes", "finish_reason": "stop"}
CHAT = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("choice", "logprobs"),
    [
        (TEXT, {"token_logprobs": [-1.0, -0.5]}),
        (TEXT, {"content": [{"logprob": -1.0}, {"logprob": -0.5}]}),
        (CHAT, {"content": [{"logprob": -1.0}, {"logprob": -0.5}]}),
    ],
)
def test_log_likelihoods(choice: dict[str, Any], logprobs: dict[str, Any]) -> None:
    (sample,) = samples_of(answer_of({**choice, "logprobs": logprobs}), TWO, 1)
    assert sample == ("two", 1, "yes", "stop", -1.5, -0.75, 2, ())


@pytest.mark.parametrize("values", [[None, -0.5], [-9999.0, -0.5], [float("-inf"), -0.5], [float("nan"), -0.5]])
def test_a_token_of_unknown_likelihood_leaves_the_response_without(values: list[float | None]) -> None:
    (sample,) = samples_of(answer_of({**TEXT, "logprobs": {"token_logprobs": values}}), TWO, 0)
    assert sample[4:7] == (None, None, 2)


@given(st.lists(st.floats(-50, 0), min_size=1))
def test_the_mean_is_the_sum_over_the_tokens(values: list[float]) -> None:
    (sample,) = samples_of(answer_of({**TEXT, "logprobs": {"token_logprobs": values}}), TWO, 0)
    assert sample.log_likelihood_sum == pytest.approx(sum(values))
    assert sample.log_likelihood_mean == pytest.approx(sum(values) / len(values))
    assert sample.num_tokens == len(values)


def test_without_log_likelihoods_the_usage_counts_the_tokens_of_one_choice() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert [s.num_tokens for s in samples_of(answer_of(TEXT, usage=usage), TWO, 0)] == [5]
    assert [s.num_tokens for s in samples_of(answer_of(TEXT, TEXT, usage=usage), TWO, 0)] == [0, 0]


def test_samples_are_in_the_order_of_their_index_and_no_more_than_wanted() -> None:
    choices = [{"index": 2, "text": "c"}, {"index": 0, "text": "a"}, {"index": 1, "text": "b"}]
    samples = samples_of(answer_of(*choices), TWO, 0)
    assert [(s.sample_index, s.response) for s in samples] == [(0, "a"), (1, "b")]


@pytest.mark.parametrize(
    ("choice", "reason", "beside"),
    [
        (
            {"message": {"content": None, "refusal": "I would rather not"}, "finish_reason": "stop"},
            "refusal",
            "refusal",
        ),
        (
            {"message": {"content": [{"type": "refusal", "refusal": "no"}]}, "finish_reason": "stop"},
            "refusal",
            "refusal",
        ),
        ({"message": {"content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "stop"}, "stop", "tool_calls"),
        ({"message": {"content": None}, "finish_reason": "tool_calls"}, "tool_calls", None),
        ({"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}, "length", "reasoning"),
        ({"message": {"content": "", "reasoning": "hm", "tool_calls": [], "refusal": None}}, None, "reasoning"),
        ({"message": {}, "finish_reason": "content_filter"}, "content_filter", None),
        ({"message": None, "finish_reason": "content_filter"}, "content_filter", None),
        ({"message": {"content": " \n"}, "error": {"code": 502}}, "error", None),
        ({"text": None, "finish_reason": "length"}, "length", None),
        ({"text": ""}, None, None),
    ],
)
def test_a_choice_without_text_is_an_empty_response(choice: dict[str, Any], reason: str | None, beside: str) -> None:
    (sample,) = samples_of(answer_of(choice), TWO, 0)
    assert sample == ("two", 0, "", reason, None, None, 0, (beside,) if beside else ())


def test_reasoning_is_known_from_the_usage_alone() -> None:
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}}
    (sample,) = samples_of(answer_of({"text": "", "finish_reason": "length"}, usage=usage), TWO, 0)
    assert sample.beside == ("reasoning",)


@pytest.mark.parametrize(
    ("usage", "exceeds"),
    [
        ({"completion_tokens": 20}, False),
        ({"completion_tokens": 23}, True),
        ({"completion_tokens": 500, "completion_tokens_details": {"reasoning_tokens": 490}}, False),
        (None, False),
    ],
)
def test_a_server_that_ignores_the_limit(usage: dict[str, Any] | None, exceeds: bool) -> None:
    assert exceeds_limit(answer_of(TEXT, TEXT, usage=usage), 10) == exceeds
