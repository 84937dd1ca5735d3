"""Servers that refuse a parameter of a request: what is asked instead, and what a user is told."""

import logging
from collections import Counter
from typing import Any

import pytest

from cappy_model.generate.decodings import CONCESSIONS, Decoding, Drawing, GenerationError
from cappy_model.generate.endpoint.concessions import Concessions, hint
from tests.cappy_model.generate.endpoint.test_endpoint import FOUR, TOP, Place, place, port, quick

__all__ = ["place", "port", "quick"]


def bodies(place: Place) -> list[dict[str, Any]]:
    return [request["body"] for request in place.requests()]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("word", ["!no:400,n", "!mute:400,n", "!mute:422,n", "!mute:501,n", "!one"])
def test_a_server_of_one_choice_is_asked_one_by_one(
    place: Place, word: str, chat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = place.engine(FOUR, TOP, chat=chat, concurrency=8)
    drawn = engine.draw([f"{word} {i}" for i in range(5)], range(5))
    for one in drawn:
        assert [(s.decoding, s.sample_index) for s in one.samples] == [
            *(("four", i) for i in range(4)),
            ("top", 0),
            ("top", 1),
        ]
        assert one.concessions == ("n",)
        assert len({sample.response for sample in one.samples}) == 6  # the response names the seed
    sent = bodies(place)
    assert sum("n" in body for body in sent) == 1  # learned by one request
    assert len(sent) == 5 * 6 + (word != "!one")
    assert [record.getMessage() for record in caplog.records] == [f"{place.root}/v1: {CONCESSIONS['n']}"]
    again = Place.engine(place, FOUR, TOP, chat=chat, concurrency=1).draw([f"{word} {i}" for i in range(5)], range(5))
    assert again == drawn


def test_a_decoding_of_one_sample_concedes_nothing(place: Place) -> None:
    (drawn,) = place.engine(Decoding("one"), FOUR).draw(["!no:400,n"], [0])
    assert drawn.concessions == ("n",)
    (drawn,) = place.engine(Decoding("one")).draw(["!no:400,n"], [0])
    assert drawn.concessions == ()


def test_a_server_that_took_n_is_not_asked_without_it(place: Place) -> None:
    engine = place.engine(FOUR, concurrency=1)
    served, refused = engine.draw(["x", "!mute:400,prompt"], [0, 1])
    assert served.failure is None and refused.failure and refused.concessions == ()
    assert [body.get("n") for body in bodies(place)] == [4, 4]


def test_a_prompt_refused_for_itself_concedes_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    refused, served = place.engine(FOUR, concurrency=1).draw(["!400", "x"], [0, 1])
    assert refused.failure and refused.failure.detail == "400: This model's maximum context length is 16 tokens"
    assert served.failure is None and served.concessions == ()
    assert [body.get("n") for body in bodies(place)] == [4, None, 4]
    assert not caplog.records


def test_requests_one_by_one_count_in_the_budget(place: Place) -> None:
    with pytest.raises(GenerationError, match="5 requests"):
        place.engine(FOUR, concurrency=1, max_requests=5).draw(["!no:400,n a", "!no:400,n b"], [0, 1])
    assert len(bodies(place)) == 5


def test_several_refusals(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    word = "!no:422,max_completion_tokens,seed,top_p,temperature,n"
    engine = place.engine(FOUR, chat=True, concurrency=1)
    first, second = engine.draw([f"{word} 1", f"{word} 2"], [0, 1])
    assert first.concessions == second.concessions == tuple(sorted(CONCESSIONS))
    sent = bodies(place)
    assert len(sent) == 5 + 4 + 4
    keys = {"model", "messages", "max_tokens", "logprobs"}
    assert all(body.keys() == keys and body["max_tokens"] == 64 for body in sent[5:])
    assert Counter(record.getMessage().split("/v1: ")[1] for record in caplog.records) == Counter(CONCESSIONS.values())


@pytest.mark.parametrize(
    ("decoding", "drawing", "field", "words"),
    [
        (
            Decoding("k", top_k=9),
            {},
            "top_k",
            "top_k is 9 in decoding 'k': name others in --decodings, or",
        ),
        (Decoding("p", top_p=0.5), {}, "top_p", "top_p is 0.5 in decoding 'p'"),
        (Decoding("t", samples=3, temperature=0.9), {}, "temperature", "temperature is 0.9 in decoding 't'"),
        (FOUR, {"stop": ("\n",)}, "stop", "stop is sent for --stop"),
        (FOUR, {"min_new_tokens": 3}, "min_tokens", "min_tokens is sent for --min-new-tokens above 1"),
        (FOUR, {}, "max_tokens", "max_tokens is --max-new-tokens"),
        (FOUR, {}, "logprobs", "For a model without log-likelihoods: --no-log-likelihoods"),
    ],
)
def test_a_parameter_that_changes_the_samples_is_never_dropped(
    place: Place, decoding: Decoding, drawing: dict[str, Any], field: str, words: str
) -> None:
    engine = place.engine(drawing=Drawing((decoding,), **{"min_new_tokens": 0, **drawing}))
    with pytest.raises(GenerationError) as raised:
        engine.draw([f"!no:400,{field} a", f"!no:400,{field} b"], [0, 1])
    assert f"Unsupported parameter: '{field}'. {words}" in str(raised.value)
    assert all(field in body for body in bodies(place))


def test_a_neutral_value_is_conceded_and_another_one_is_not(place: Place) -> None:
    engine = place.engine(FOUR, Decoding("t", temperature=0.5), concurrency=1)
    (drawn,) = engine.draw(["!no:400,temperature"], [0])
    assert drawn.failure and "temperature is 0.5 in decoding 't'" in drawn.failure.detail
    assert [body.get("temperature") for body in bodies(place)] == [1.0, None, 0.5]


@pytest.mark.parametrize(
    "refusal",
    [
        "Only one completion choice is allowed",
        "n must be 1",
        "[{'loc': ['body', 'n'], 'msg': 'Extra inputs are not permitted'}]",
        "best_of is not supported",
        "no reason given",
    ],
)
def test_any_wording_may_be_about_the_number_of_choices(refusal: str) -> None:
    assert Concessions().next_after(refusal, {"n": 4, "seed": 1, "top_p": 1.0}) == "n"
    assert Concessions().next_after(refusal, {"seed": 1, "top_p": 1.0}) is None


def test_names_are_whole_words() -> None:
    known = Concessions()
    assert known.next_after("seeds are odd, and so is top_p_min", {"seed": 1, "top_p": 1.0}) is None
    assert known.next_after("Field 'seed': extra", {"seed": 1, "top_p": 1.0}) == "seed"
    assert hint("a stopped logprobs_count", {"stop": ["x"], "logprobs": 1}, FOUR) == ""


@pytest.fixture(autouse=True)
def warnings_of_cappy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cappy")
