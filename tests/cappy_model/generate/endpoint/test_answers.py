"""Answers as many servers write them: every optional field missing, null, or of another shape."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_model.generate.decodings import Decoding
from cappy_model.generate.endpoint.answers import Answer, MalformedAnswer, read_answer
from cappy_model.generate.endpoint.completions import exceeds_limit, samples_of

FOUR = Decoding("four", samples=4)


def answer_of(*choices: Any, **rest: Any) -> Answer:
    return read_answer(json.dumps({"choices": choices, **rest}).encode())


def text_of(content: Any) -> str:
    (sample,) = samples_of(answer_of({"message": {"content": content}}), FOUR, 0)
    return sample.response


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "An"}, {"type": "text", "text": " answer"}], "An answer"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}], "yes"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "yes"}], "yes"),
        ([{"type": "text", "text": None}, {"text": "a"}, "b", None], "ab"),
        ({"type": "text", "text": "yes"}, "yes"),
        ([], ""),
        (None, ""),
        ("  yes\n", "yes"),
        ("bad \ud83d char \x00", "bad \ufffd char \x00"),
        ("\ud83d\ude00 \ude00", "\U0001f600 \ufffd"),
    ],
)
def test_contents(content: Any, text: str) -> None:
    assert text_of(content) == text


def test_other_parts_are_named() -> None:
    parts = [{"type": "image_url"}, {"type": "text", "text": "see"}, {"type": "thinking"}, {"type": ["odd"]}]
    (sample,) = samples_of(answer_of({"message": {"content": parts, "audio": {"id": "a"}}}), FOUR, 0)
    assert sample.response == "see"
    assert sample.beside == ("image_url", "reasoning", "a part of no known type", "audio")


@pytest.mark.parametrize("text", ["cut \ud83d", "\ude00 low", "nul \x00"])
def test_broken_escapes_anywhere(text: str) -> None:
    logprobs = {"content": [{"token": text, "logprob": -1.0}], "tokens": [text], text: text}
    answer = answer_of({"text": text, "finish_reason": text, "logprobs": logprobs}, model=text)
    (sample,) = samples_of(answer, FOUR, 0)
    assert sample.log_likelihood_sum == -1
    assert sample.response == sample.finish_reason == text.replace("\ud83d", "\ufffd").replace("\ude00", "\ufffd")


def test_bytes_that_are_not_utf_8_a_byte_order_mark_and_bare_control_characters() -> None:
    answer = read_answer(b'\xef\xbb\xbf{"choices": [{"text": "caf\xe9 \n\t\x00 end"}]}')
    assert samples_of(answer, FOUR, 0)[0].response == "caf\ufffd \n\t\x00 end"


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0, 0)),
        ([], (0, 0, 0)),
        ({}, (0, 0, 0)),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, (0, 0, 0)),
        ({"prompt_tokens": 5.0, "completion_tokens": "3", "total_tokens": 8}, (5, 3, 8)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": None}, (5, 3, 8)),
        ({"prompt_tokens": -1, "completion_tokens": 2.5, "total_tokens": 10**30}, (0, 0, 0)),
        ({"prompt_tokens": float("nan"), "completion_tokens": [], "total_tokens": "many"}, (0, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "completion_tokens_details": 7}, (5, 3, 8)),
    ],
)
def test_usage(usage: Any, tokens: tuple[int, ...]) -> None:
    found = answer_of({"text": "a"}, usage=usage).usage
    assert (found is None and not any(tokens)) or (
        found and (found.prompt_tokens, found.completion_tokens, found.total_tokens) == tokens
    )


@pytest.mark.parametrize(
    ("indices", "order"),
    [
        ([2, 0, 1], "bca"),
        ([0, 0, 0], "abc"),
        ([None, None, None], "abc"),
        ([1, None, 0], "abc"),
        (["1", "0", 2], "bac"),
    ],
)
def test_choices_stand_by_their_index_if_each_has_one(indices: list[Any], order: str) -> None:
    choices = [{"index": index, "text": text} for index, text in zip(indices, "abc", strict=True)]
    assert "".join(sample.response for sample in samples_of(answer_of(*choices), FOUR, 0)) == order


@pytest.mark.parametrize(
    ("logprobs", "found"),
    [
        (None, (None, 0)),
        ([], (None, 0)),
        ({"content": None}, (None, 0)),
        ({"content": [None, {"logprob": -1}]}, (None, 2)),
        ({"content": [{"logprob": None}, {"logprob": -1}]}, (None, 2)),
        ({"content": [{"logprob": "x"}]}, (None, 1)),
        ({"content": [{"logprob": 1e308}, {"logprob": 1e308}]}, (None, 2)),
        ({"content": [{"logprob": 0.0000012}, {"logprob": -1.0}]}, (-0.9999988, 2)),
        ({"tokens": ["a"], "token_logprobs": [-0.5], "text_offset": [0], "top_logprobs": [{}]}, (-0.5, 1)),
        ({"token_logprobs": [None, -0.5]}, (None, 2)),
    ],
)
def test_log_probabilities(logprobs: Any, found: tuple[float | None, int]) -> None:
    (sample,) = samples_of(answer_of({"text": "a", "logprobs": logprobs}), FOUR, 0)
    assert (sample.log_likelihood_sum, sample.num_tokens) == (pytest.approx(found[0]), found[1])


@pytest.mark.parametrize("reason", [None, "", 7, [], {}, "eos_token"])
def test_finish_reasons(reason: Any) -> None:
    (sample,) = samples_of(answer_of({"text": "a", "finish_reason": reason}), FOUR, 0)
    assert sample.finish_reason == (reason if reason == "eos_token" else None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the answer is not JSON: Expecting value"),
        ("<html>", "the answer is not JSON"),
        ('{"choices"', "the answer is not JSON"),
        (f'{{"choices": {"1" * 5000}}}', "the answer is not JSON: Exceeds the limit"),
        ("[" * 100_000, "the answer is nested too deeply"),
        ('data: {"choices": []}\n\n', "the answer is a stream of events, which was not asked for"),
        ("[]", "the answer is a list, not an object"),
        ("null", "the answer is null, not an object"),
        ("{}", "choices: Field required"),
        ('{"choices": null}', "choices: Input should be a valid list"),
        ('{"choices": []}', "choices: List should have at least 1 item"),
        ('{"choices": [null]}', "choices.0: "),
        ('{"choices": [{"index": 0}]}', "choices.0: has neither a message nor a text"),
        ('{"choices": [{"text": 1}]}', "choices.0.text: is a number, not a text"),
        ('{"choices": [{"message": "x"}]}', "choices.0.message: is a text, not a message"),
        ('{"choices": [{"message": {"content": [[]]}}]}', "choices.0.message: has a list where a part"),
        ('{"choices": [{"text": {"text": true}}]}', "choices.0.text: has a part of type text whose text is a boolean"),
        ('{"error": "model not loaded"}', "the answer is an error: model not loaded"),
        ('{"choices": null, "error": {"message": "busy", "code": 502}}', "the answer is an error: busy"),
        ('{"choices": [], "error": {"code": "\\ud83d"}}', "the answer is an error: {"),
    ],
)
def test_answers_that_are_none(body: str, message: str) -> None:
    with pytest.raises(MalformedAnswer) as raised:
        read_answer(body.encode())
    assert str(raised.value).startswith(message)


SURROGATES = st.sampled_from(["\ud83d", "\ude00", "\ud83d\ude00", "\x00", "yes"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | SURROGATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | SURROGATES, inner, max_size=3),
    max_leaves=6,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of which each field may be missing, or anything."""
    return st.fixed_dictionaries({}, optional={name: VALUES | field for name, field in fields.items()})


TOKENS = st.lists(VALUES | objects(token=SURROGATES, logprob=st.floats()), max_size=3)
PARTS = st.lists(VALUES | objects(type=st.sampled_from(["text", "thinking", "x"]), text=SURROGATES), max_size=3)
MESSAGES = objects(content=SURROGATES | PARTS, reasoning=SURROGATES, refusal=SURROGATES, tool_calls=st.lists(VALUES))
CHOICES = objects(
    index=st.integers(),
    text=SURROGATES,
    message=MESSAGES,
    finish_reason=st.sampled_from(["stop", "length"]),
    logprobs=objects(content=TOKENS, token_logprobs=st.lists(st.floats() | st.none(), max_size=3)),
    error=VALUES,
)
DETAILS = objects(reasoning_tokens=st.integers())
USAGE = objects(
    prompt_tokens=st.integers(),
    completion_tokens=st.integers() | st.floats(),
    total_tokens=st.integers(),
    completion_tokens_details=DETAILS,
)
ANSWERS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, min_size=1, max_size=5)}, optional={"usage": VALUES | USAGE, "error": VALUES}
)


@given(ANSWERS)
def test_any_answer_gives_samples_or_says_what_is_wrong(content: dict[str, Any]) -> None:
    try:
        answer = read_answer(json.dumps(content).encode())
    except MalformedAnswer as error:
        str(error).encode()  # no half of a surrogate pair in the message
        return
    samples = samples_of(answer, FOUR, 1)
    assert 1 <= len(samples) <= 3
    assert [sample.sample_index for sample in samples] == list(range(1, 1 + len(samples)))
    for sample in samples:
        assert sample.response.encode() is not None and (sample.finish_reason or "").encode() is not None
        assert (sample.log_likelihood_sum is None) == (sample.log_likelihood_mean is None)
        assert all(name.encode() for name in sample.beside)
    assert exceeds_limit(answer, 2**30) is False


OPTIONAL = st.fixed_dictionaries(
    {}, optional={"index": VALUES, "finish_reason": VALUES, "logprobs": VALUES, "error": VALUES}
)


@given(st.text(min_size=1), OPTIONAL, VALUES, st.booleans())
def test_optional_fields_never_cost_a_response(text: str, rest: dict[str, Any], usage: Any, chat: bool) -> None:
    said = {"message": {"content": text, "reasoning": usage}} if chat else {"text": text}
    (sample,) = samples_of(answer_of({**rest, **said}, usage=usage), FOUR, 0)
    assert sample.response == text.strip()


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_any_bytes_are_an_answer_or_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read_answer(body)
