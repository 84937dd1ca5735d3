"""The engine for endpoints against a real server on the loopback, which misbehaves when told."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cappy_model.generate.decodings import Decoding, Drawing, Drawn, GenerationError
from cappy_model.generate.endpoint.connection import EndpointSettings
from cappy_model.generate.endpoint.engine import Endpoint
from schemas.errors import UsageError
from tests.cappy_model.generate.endpoint.endpoint_server import PROMPT_TOKENS, TOKENS

KEY = "sk-a/very-secret+key"
SECRET = "hunter2"
FOUR = Decoding("four", samples=4)
TOP = Decoding("top", samples=2, top_p=0.5)
ANSWER_TOKENS = PROMPT_TOKENS + len(TOKENS)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).parent / "endpoint_server.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield int(server.stdout.readline())
        server.terminate()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


class Place:
    """A part of the server that nobody else asks."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}/{uuid.uuid4().hex}"

    def engine(
        self, *decodings: Decoding, chat: bool = False, drawing: Drawing | None = None, **settings: Any
    ) -> Endpoint:
        drawing = drawing or Drawing(decodings or (Decoding("one"),), min_new_tokens=0, chat=chat)
        defaults: dict[str, Any] = {"model": "tiny", "base_url": f"{self.root}/v1", "max_retries": 3, "timeout": 5.0}
        return Endpoint(EndpointSettings(**{**defaults, **settings}), drawing)

    def log(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.root}/log") as response:
            content: dict[str, Any] = json.load(response)
        return content

    def requests(self) -> list[dict[str, Any]]:
        return list(self.log()["requests"])


@pytest.fixture
def place(port: int) -> Place:
    return Place(port)


def texts(drawn: Drawn) -> list[str]:
    return [sample.response.rsplit(" ", 2)[0] for sample in drawn.samples]


@pytest.mark.parametrize(("chat", "route"), [(True, "chat/completions"), (False, "completions")])
def test_samples_with_their_likelihoods_in_the_order_of_the_decodings(place: Place, chat: bool, route: str) -> None:
    (drawn,) = place.engine(FOUR, TOP, chat=chat).draw(["Why is it so?"], [5])
    assert [(s.decoding, s.sample_index) for s in drawn.samples] == [
        *[("four", i) for i in range(4)],
        ("top", 0),
        ("top", 1),
    ]
    assert texts(drawn) == ["Why is it so?"] * 6
    assert drawn[1:] == (None, PROMPT_TOKENS, False, ())
    for sample in drawn.samples:
        assert sample[3:] == ("stop", sum(TOKENS), sum(TOKENS) / 3, 3, ())
    requests = place.requests()
    assert [request["route"] for request in requests] == [route] * 2
    assert sorted(request["body"].get("n", 1) for request in requests) == [2, 4]
    assert {request["key"] for request in requests} == {f"Bearer {KEY}"}


def test_prompts_keep_their_order_and_several_threads_may_draw(place: Place) -> None:
    engine = place.engine(FOUR, TOP, concurrency=3)
    prompts = [[f"!slow {name} {i}" if i % 3 else f"{name} {i}" for i in range(10)] for name in "abc"]
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda some: engine.draw(some, range(len(some))), prompts))
    for some, found in zip(prompts, drawn, strict=True):
        assert [texts(one) for one in found] == [[prompt] * 6 for prompt in some]
    assert place.log()["most_in_flight"] == 3
    assert drawn[0] == engine.draw(prompts[0], range(10))


def test_requests_are_concurrent_as_far_as_allowed(place: Place) -> None:
    place.engine(concurrency=4).draw([f"!slow {i}" for i in range(16)], range(16))
    assert place.log()["most_in_flight"] == 4


def test_no_prompts(place: Place) -> None:
    assert place.engine().draw([], []) == []


def test_seeds_are_sent_and_are_the_same_again(place: Place) -> None:
    for _ in range(2):
        place.engine(FOUR, TOP, concurrency=1).draw(["x", "x", "y"], [1, 2**64 - 1, 1])
    seeds = [request["body"]["seed"] for request in place.requests()]
    assert seeds[:6] == seeds[6:]
    assert len(set(seeds)) == 4  # two of the prompts have the same seed
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_server_that_ignores_n_is_asked_again(place: Place) -> None:
    (drawn,) = place.engine(FOUR).draw(["!one"], [0])
    assert [sample.sample_index for sample in drawn.samples] == [0, 1, 2, 3]
    assert len({sample.response for sample in drawn.samples}) == 4
    assert [request["body"].get("n") for request in place.requests()] == [4, None, None, None]
    assert drawn.concessions == ("n",)


def test_more_choices_than_asked_for_are_left(place: Place) -> None:
    (drawn,) = place.engine(FOUR).draw(["!more"], [0])
    assert [sample.sample_index for sample in drawn.samples] == [0, 1, 2, 3]


@pytest.mark.parametrize("chat", [False, True])
def test_an_answer_without_log_likelihoods(place: Place, chat: bool) -> None:
    (drawn,) = place.engine(chat=chat).draw(["!no-logprobs"], [0])
    assert [sample[4:7] for sample in drawn.samples] == [(None, None, len(TOKENS))]


def test_log_likelihoods_are_not_asked_for(place: Place) -> None:
    (drawn,) = place.engine(log_likelihoods=False).draw(["x"], [0])
    assert drawn.samples[0].log_likelihood_sum is None
    assert "logprobs" not in place.requests()[0]["body"]


@pytest.mark.parametrize("word", ["!500-twice", "!429", "!cut-once", "!malformed-once"])
def test_what_passes_is_tried_again(place: Place, word: str) -> None:
    (drawn,) = place.engine().draw([word], [0])
    assert texts(drawn) == [word]
    times = [request["time"] for request in place.requests()]
    assert len(times) == (3 if word == "!500-twice" else 2)
    if word == "!429":  # its Retry-After
        assert times[1] - times[0] >= 1


@pytest.mark.parametrize(
    ("word", "reason", "detail", "tries"),
    [
        ("!400", "refused", "400: This model's maximum context length is 16 tokens", 1),
        ("!422", "refused", "422: cannot process this", 1),
        ("!logprobs", "refused", "--no-log-likelihoods", 1),
        ("!403", "refused", "403: not for you", 1),
        ("!500", "endpoint_5xx", "500: out of order", 2),
        ("!429-always", "endpoint_429", "429: slow down", 2),
        ("!429-long", "endpoint_429", "429: come back tomorrow", 1),
        ("!hang", "timeout", "no answer in 1 s, in 2 tries", 2),
        ("!cut", "disconnected", "in 2 tries", 2),
        ("!cut-body", "disconnected", "in 2 tries", 2),
        ("!malformed", "malformed", "the answer begins '<html>***</html>', in 2 tries", 2),
        ("!shape", "malformed", "choices.0: has neither a message nor a text", 2),
        ("!error-in-200", "malformed", "no provider for ***", 2),
    ],
)
def test_a_prompt_that_fails_is_a_failure_and_its_neighbours_go_on(
    place: Place, word: str, reason: str, detail: str, tries: int
) -> None:
    engine = place.engine(FOUR, TOP, concurrency=1, timeout=1.0, max_retries=1)
    before, failed, after = engine.draw(["before", f"{word} x", "after"], [0, 1, 2])
    assert texts(before) == ["before"] * 6 and texts(after) == ["after"] * 6
    assert failed.samples == () and failed.failure
    assert failed.failure.reason == reason
    assert detail in failed.failure.detail
    assert KEY not in failed.failure.detail
    # Its other decoding is not paid for any more.
    assert len(place.requests()) == 4 + tries


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("!401", "refused the key in OPENAI_API_KEY (401: Incorrect API key provided: ***.)"),
        ("!403", "refused the key in OPENAI_API_KEY (403: not for you)"),
        ("!404", "does not serve model 'tiny' (404: The model `tiny` does not exist)"),
        ("!402", "is used up (402: no credit)"),
        ("!quota", "is used up (429: You exceeded your quota)"),
        ("!endless", "ignores max_tokens"),
    ],
)
def test_an_endpoint_that_can_serve_nobody(place: Place, word: str, words: str) -> None:
    with pytest.raises(GenerationError) as raised:
        place.engine(concurrency=2).draw([word, *(f"{word} {i}" for i in range(30))], range(31))
    assert words in str(raised.value)
    assert str(raised.value).startswith(f"{place.root}/v1")
    assert len(place.requests()) < 15


def test_a_missing_key_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    place.engine().draw(["x"], [0])
    assert place.requests()[0]["key"] == "Bearer none"
    with pytest.raises(GenerationError, match="a request without a key, since MY_KEY is not set"):
        place.engine(key_variable="MY_KEY").draw(["!401"], [0])
    with pytest.raises(UsageError, match=r"api.openai.com requires a key: set OPENAI_API_KEY"):
        place.engine(base_url=None)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        engine = Endpoint(EndpointSettings("tiny", base_url=url, max_retries=1), Drawing((FOUR,)))
        with pytest.raises(GenerationError, match=f"{url} cannot be reached, in 2 tries"):
            engine.draw(["x"], [0])


def test_no_prompt_of_a_draw_was_served(place: Place) -> None:
    engine = place.engine(concurrency=1)
    engine.draw(["x"], [0])
    with pytest.raises(GenerationError, match="none of 3 prompts; 2 times the reason was refused: 400: This model"):
        engine.draw(["!400 a", "!500", "!400 b"], [0, 1, 2])


def test_refused_prompts_are_no_reason_to_stop_where_others_were_served(place: Place) -> None:
    engine = place.engine(concurrency=1)
    assert [one.failure is None for one in engine.draw(["!400 alone"], [0])] == [False]
    with pytest.raises(GenerationError, match="none of 2 prompts"):
        engine.draw(["!400 a", "!400 b"], [0, 1])
    engine.draw(["x"], [0])
    assert [one.failure is None for one in engine.draw(["!400 a", "!400 b"], [0, 1])] == [False, False]


@pytest.mark.parametrize(
    ("word", "often"), [("!500", "endpoint_5xx: 500: out of order"), ("!400", "refused: 400: This")]
)
def test_an_endpoint_that_serves_nobody_is_left_soon(place: Place, word: str, often: str) -> None:
    with pytest.raises(GenerationError, match=f"failed 16 times in a row at decoding 'one', at last with {often}"):
        place.engine(max_retries=0, concurrency=2).draw([f"{word} {i}" for i in range(200)], range(200))
    assert len(place.requests()) < 20


def test_refusals_of_a_decoding_that_was_served_are_the_prompts_own(place: Place) -> None:
    engine = place.engine(concurrency=1)
    drawn = engine.draw(["x", *(f"!400 {i}" for i in range(40)), "y"], range(42))
    assert [one.failure is None for one in drawn] == [True, *[False] * 40, True]


def test_the_budget_of_requests_counts_retries(place: Place) -> None:
    engine = place.engine(concurrency=1, max_requests=5)
    with pytest.raises(GenerationError, match=f"5 requests and {2 * ANSWER_TOKENS} tokens in this launch"):
        engine.draw(["a", "!500-twice", "!500"], [0, 1, 2])
    assert len(place.requests()) == 5
    with pytest.raises(GenerationError, match="larger budget"):
        engine.draw(["b"], [0])
    assert len(place.requests()) == 5


def test_the_budget_of_tokens(place: Place) -> None:
    with pytest.raises(GenerationError, match=f"3 requests and {3 * ANSWER_TOKENS} tokens"):
        place.engine(concurrency=1, max_tokens_total=2 * ANSWER_TOKENS + 1).draw([*"abcdef"], range(6))
    assert len(place.requests()) == 3
    with pytest.raises(GenerationError, match="--max-tokens-total cannot be kept"):
        place.engine(max_tokens_total=1000).draw(["!no-usage"], [0])


def test_an_error_does_not_wait_for_the_others(place: Place) -> None:
    started = time.monotonic()
    with pytest.raises(GenerationError, match="the budget is used up"):
        place.engine(concurrency=4, max_requests=10).draw(["!429-pause", *map(str, range(20))], range(21))
    assert time.monotonic() - started < 30


def test_the_key_is_nowhere(place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    engine = place.engine(concurrency=1)
    engine.draw(["x", "!500-twice"], [0, 1])
    errors = []
    for word in ("!401", "!error-in-200", "!malformed"):
        with pytest.raises(GenerationError) as raised:
            engine.draw([word], [0])
        error: BaseException | None = raised.value
        while error is not None:
            errors.append(f"{error!s} {error!r}")
            error = error.__cause__ or error.__context__
    shown = [*errors, repr(engine), caplog.text, *capfd.readouterr()]
    assert len(errors) >= 3
    assert not any(KEY in text for text in shown)
    assert not [record for record in caplog.records if record.name.startswith(("openai", "httpx", "httpcore"))]


def test_the_thread_ends_with_the_engine(place: Place) -> None:
    before = set(threading.enumerate())
    engine = place.engine()
    engine.draw(["x"], [0])
    threads = set(threading.enumerate()) - before
    assert threads
    del engine
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_there_is_no_memory_to_run_out_of(place: Place) -> None:
    assert place.engine().out_of_memory() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Drawing((FOUR, Decoding("wide", beams=2))),
            "'wide' is a beam search.* choose from sampling, .*, four",
        ),
        (lambda: Drawing((FOUR,), max_prompt_tokens=5), "whole or refuses it: max_prompt_tokens"),
        (lambda: Drawing((FOUR,), truncation_side="left"), "whole or refuses it: max_prompt_tokens"),
    ],
)
def test_drawings_that_the_api_cannot_do(place: Place, make: Callable[[], Drawing], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        place.engine(drawing=make())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": ""}, "the model has no name"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"timeout": 0}, "timeout is 0 s"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"max_requests": 0}, "max_requests is 0"),
        ({"max_tokens_total": 0}, "max_tokens_total is 0"),
        ({"base_url": "localhost:8000/v1"}, "must begin with http:// or https://"),
        ({"base_url": "ftp://localhost/v1"}, "not with 'ftp'"),
        ({"base_url": "http:///v1"}, "must begin with http:// or https:// and a host"),
        ({"base_url": f"http://me:{SECRET}@localhost/v1"}, "localhost has a user"),
        ({"base_url": f"http://localhost/v1?key={SECRET}"}, "localhost has a user, a query"),
        ({"base_url": f"http://localhost:{SECRET}/v1"}, "address is invalid"),
    ],
)
def test_settings_that_make_no_sense(place: Place, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        place.engine(**settings)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} # mine", "sk-…"])
def test_a_key_that_is_none(place: Place, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UsageError, match="^MY_KEY contains a blank") as raised:
        place.engine(key_variable="MY_KEY")
    assert "sk-" not in str(raised.value)


def test_the_prompts_done_are_told_after_each_answer(place: Place) -> None:
    calls: list[tuple[float, float]] = []
    place.engine(FOUR, TOP).draw(["a", "b", "c"], range(3), on_progress=lambda done, of: calls.append((done, of)))
    assert calls == [(number / 2, 3) for number in range(1, 7)]
