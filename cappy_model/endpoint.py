"""The engine for OpenAI-compatible endpoints: vLLM and its like, and models that exist only behind a web API.

`openai`'s own client sends the requests and repeats those that came to nothing: 408, 409, 429, 5xx, no answer in time,
a connection that breaks off, an answer that cannot be read. It waits half a second, doubled each time up to eight, or
what the server's Retry-After says, up to two minutes; beyond that it gives up (openai/_base_client.py).

All requests of an engine run on one event loop in a thread of its own, where everything is counted without a lock.
"""

import asyncio
import itertools
import logging
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import openai
from pydantic import ValidationError

from cappy_model.allowance import REFUSED, Patience, Spending
from cappy_model.completions import Answer, exceeds_limit, request_for, samples_of
from cappy_model.decodings import PRESETS, Decoding, Drawing, Drawn, Failure, GenerationError, Sample
from schemas.errors import UsageError

_NO_KEY = "none"  # the client insists on a key, a local server on none
_OWN_HOST = "api.openai.com"
_EXCERPT = 500
_LEAST_PATIENCE = 16
_CHATTY_LOGGERS = ("openai", "httpx2", "httpcore2")  # a line for each request, with its address
_REFUSALS = (400, 413, 422)
_PASSING = (408, 409, 429)
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True)
class EndpointSettings:
    """Where a model is served, and what may be asked of it.

    `base_url`: up to and with `/v1`; None: the environment's OPENAI_BASE_URL, or OpenAI. `key_variable`: the
    environment variable that holds the key, its only source; where it is not set a placeholder is sent.
    `concurrency`: requests in flight at a time. `timeout`: seconds without a byte. `max_retries`: of one request.
    `max_requests` and `max_tokens_total`: the budget of an engine, retries and prompts counted; None: no limit.
    `log_likelihoods`: whether they are asked for.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout: float = 120.0
    max_retries: int = 6
    max_requests: int | None = None
    max_tokens_total: int | None = None
    log_likelihoods: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        if not self.model:
            raise UsageError("the endpoint: the model has no name")
        if self.timeout <= 0:
            raise UsageError(f"the endpoint: timeout is {self.timeout} s, and must be more than 0")
        for name, least in (("concurrency", 1), ("max_retries", 0), ("max_requests", 1), ("max_tokens_total", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"the endpoint: {name} is {value}, and must be {least} or more")


class Endpoint:
    """Draws responses from a model behind an OpenAI-compatible API; an Engine, safe to use from several threads.

    A prompt that the server refuses (`refused`: 400, 413, 422), or that comes to nothing after all retries
    (`endpoint_429`, `endpoint_5xx`, `timeout`, `disconnected`, `malformed`), is a Failure and its neighbours go on.
    """

    def __init__(self, settings: EndpointSettings, drawing: Drawing) -> None:
        """Sends nothing yet. Raises UsageError for a drawing, an address or a key that cannot be used."""
        _check_drawing(drawing)
        for name in _CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        key = os.environ.get(settings.key_variable, "")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UsageError(f"{settings.key_variable} holds a blank, a line break or another character of no key")
        self._settings, self._drawing, self._has_key = settings, drawing, bool(key)
        self._excerpt = partial(excerpt, key=key)
        self._spending = Spending(settings.max_requests, settings.max_tokens_total)
        self._client = _client(settings, key or _NO_KEY, self._spending, self._excerpt)
        self._url = _checked(self._client.base_url, settings.key_variable if not key else None)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._patience = Patience(self._url, max(_LEAST_PATIENCE, 2 * settings.concurrency))
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_serve, args=(self._loop, self._client), name="endpoint", daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        """What came of each prompt, in order. The seeds reach the server, which promises what it likes about them.

        Raises GenerationError when the budget is used up, for an endpoint that cannot be reached, that knows neither
        the key nor the model, or that has failed too often in a row, and when no prompt of all could be served, unless
        each was refused by an endpoint that has served others.
        """
        work = asyncio.run_coroutine_threadsafe(self._draw(prompts, seeds), self._loop)
        try:
            drawn = work.result()
        finally:
            work.cancel()  # for a caller that was interrupted: nothing more is to be paid for
        failures = [one.failure for one in drawn if one.failure is not None]
        if failures and len(failures) == len(drawn) and not self._their_own(failures):
            (reason, count), *_ = Counter(failure.reason for failure in failures).most_common(1)
            detail = next(failure.detail for failure in failures if failure.reason == reason)
            raise GenerationError(
                f"{self._url} served none of {len(drawn)} prompts; {count} times the reason was {reason}: {detail}"
            )
        return drawn

    def _their_own(self, failures: Sequence[Failure]) -> bool:
        """Whether refusals are about the prompts, as far as one can tell, and not about every request of ours."""
        refused = all(failure.reason == REFUSED for failure in failures)
        return refused and (bool(self._patience.ever_served) or len(failures) == 1)

    def out_of_memory(self) -> int:
        """0: the memory is the server's."""
        return 0

    async def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        jobs = itertools.product(range(len(prompts)), self._drawing.decodings)
        found: list[dict[str, Drawn]] = [{} for _ in prompts]

        async def work() -> None:
            for place, decoding in jobs:
                if not any(part.failure for part in found[place].values()):
                    found[place][decoding.name] = await self._sampled(prompts[place], seeds[place], decoding)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
        else:
            return [_merged([parts[d.name] for d in self._drawing.decodings if d.name in parts]) for parts in found]
        raise first

    async def _sampled(self, prompt: str, seed: int, decoding: Decoding) -> Drawn:
        """The samples of one decoding: of one request, or of several where the server gives fewer than it was asked."""
        samples: list[Sample] = []
        prompt_tokens = 0
        while len(samples) < decoding.samples:
            request = request_for(
                self._drawing, decoding,
                model=self._settings.model, prompt=prompt, seed=seed, have=len(samples),
                logprobs=self._settings.log_likelihoods,
            )  # fmt: skip
            resource = self._client.chat.completions if self._drawing.chat else self._client.completions
            async with self._slots:
                try:
                    response = await resource.with_raw_response.create(**request)
                    answer: Answer | openai.APIError = Answer.model_validate_json(response.content)
                except openai.APIError as error:
                    answer = error
            # Judged out here, so that the server's words, with who knows what in them, are no context of our error.
            if isinstance(answer, openai.APIError):
                failure = self._judged(answer)
                self._patience.failed(decoding.name, failure)
                return Drawn((), failure, 0, truncated=False)
            self._accept(answer, decoding)
            samples += samples_of(answer, decoding, len(samples))
            prompt_tokens = answer.usage.prompt_tokens if answer.usage else 0
        return Drawn(tuple(samples), None, prompt_tokens, truncated=False)

    def _accept(self, answer: Answer, decoding: Decoding) -> None:
        self._patience.served(decoding.name)
        self._spending.add(answer.usage)
        if exceeds_limit(answer, self._drawing.max_new_tokens):
            name = "max_completion_tokens" if self._drawing.chat else "max_tokens"
            raise GenerationError(
                f"{self._url} ignores {name}: asked for {self._drawing.max_new_tokens} tokens at most, it answered "
                f"with {answer.usage.completion_tokens if answer.usage else 0}. Use a server that knows this field, "
                f"or, for a chat, plain prompts"
            )

    def _judged(self, error: openai.APIError) -> Failure:
        """The failure of one prompt. Raises GenerationError for what would be the same with any other."""
        if isinstance(error, openai.APIStatusError):
            return self._judged_status(error)
        cause, tries = error.__cause__, f"{self._settings.max_retries + 1} tries"
        detail = self._excerpt(f"{type(cause).__name__}: {cause}")
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            raise GenerationError(f"{self._url} cannot be reached, in {tries} ({detail}). Is it the right address?")
        if isinstance(error, openai.APITimeoutError):
            return Failure("timeout", f"no answer in {self._settings.timeout:g} s, in {tries}")
        if isinstance(cause, httpx2.DecodingError):
            return Failure("malformed", f"{self._excerpt(str(cause))}, in {tries}")
        return Failure("disconnected", f"{detail}, in {tries}")

    def _judged_status(self, error: openai.APIStatusError) -> Failure:
        status, variable = error.status_code, self._settings.key_variable
        words = f"{status}: {self._excerpt(_words_of(error))}"
        # A key that has been good is not what a 403 is about: some services answer so to prompts that they disallow.
        if status == 401 or (status == 403 and not self._patience.ever_served):
            held = f"the key in {variable}" if self._has_key else f"a request without a key, as {variable} is not set"
            raise GenerationError(f"{self._url} refused {held} ({words}). Set {variable} to a key that it knows")
        if error.code in _NO_CREDIT or error.type in _NO_CREDIT or status == 402:
            raise GenerationError(f"{self._url}: the account of the key in {variable} is used up ({words})")
        if status in _REFUSALS or status == 403:
            if "logprob" in words.lower() and self._settings.log_likelihoods:
                words += ". For a model without log-likelihoods: --no-log-likelihoods"
            return Failure(REFUSED, words)
        if status in _PASSING or status >= 500:
            return Failure("endpoint_5xx" if status >= 500 else f"endpoint_{status}", words)
        raise GenerationError(
            f"{self._url} does not serve model {self._settings.model!r} ({words}). Are model and address right? "
            f"The address ends before /chat/completions, mostly in /v1"
        )


def excerpt(text: str, key: str) -> str:
    """The start of a server's words, without the key, which some repeat."""
    for form in (key, key.replace("/", "\\/")):  # as it is, and as some write it in JSON
        text = text.replace(form, "***") if form else text
    return text[:_EXCERPT]


def _check_drawing(drawing: Drawing) -> None:
    searches = [decoding.name for decoding in drawing.decodings if decoding.beams > 1]
    if searches:
        able = [d.name for d in {**PRESETS, **{d.name: d for d in drawing.decodings}}.values() if d.beams == 1]
        raise UsageError(
            f"decoding {searches[0]!r} is a beam search, which an endpoint does not offer; it can do {', '.join(able)}"
        )
    if drawing.max_prompt_tokens is not None or drawing.truncation_side is not None:
        raise UsageError(
            f"an endpoint reads a prompt whole or refuses it: max_prompt_tokens ({drawing.max_prompt_tokens}) and "
            f"truncation_side ({drawing.truncation_side}) are for models of this machine"
        )


def _client(
    settings: EndpointSettings, key: str, spending: Spending, shorten: Callable[[str], str]
) -> openai.AsyncOpenAI:
    # The slots bound the connections: waiting for one here would be a timeout.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency)
    hooks: dict[str, list[Callable[..., Any]]] = {
        "request": [spending.take],
        "response": [partial(_check_body, shorten=shorten)],
    }
    try:
        return openai.AsyncOpenAI(
            api_key=key,
            base_url=settings.base_url,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, event_hooks=hooks),
        )
    except httpx2.InvalidURL:
        # Neither the address nor what is wrong with it is shown: it may be a password that was taken for a port.
        raise UsageError("the endpoint's address cannot be read; one would be http://localhost:8000/v1") from None


def _checked(url: httpx2.URL, missing_key: str | None) -> str:
    """The address as errors show it. Raises UsageError for one that cannot be used, with no secret in the message."""
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"the endpoint's address begins with http:// or https:// and a host, not with {url.scheme!r}")
    if url.userinfo or url.query or url.fragment:
        raise UsageError(
            f"the address of the endpoint at {url.host} holds a user, a query or a fragment; a key comes from the "
            f"environment alone"
        )
    if missing_key and url.host == _OWN_HOST:
        raise UsageError(f"{url.host} wants a key: set {missing_key}, or name another endpoint with --base-url")
    return str(url).rstrip("/")


async def _check_body(response: httpx2.Response, shorten: Callable[[str], str]) -> None:
    """Raised here, among the errors of the transport, an answer that cannot be read is asked for again."""
    if response.is_success:
        content = await response.aread()
        try:
            Answer.model_validate_json(content)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, fault["loc"])) or "the answer"
            start = shorten(content.decode(errors="replace"))
            raise httpx2.DecodingError(f"{place}: {fault['msg']}; the answer begins {start!r}") from None


def _words_of(error: openai.APIStatusError) -> str:
    body = error.body
    words = body.get("message") or body if isinstance(body, dict) else body
    return str(words or "no reason given")


def _merged(parts: Sequence[Drawn]) -> Drawn:
    failure = next((part.failure for part in parts if part.failure), None)
    samples = () if failure else tuple(sample for part in parts for sample in part.samples)
    return Drawn(samples, failure, max((part.prompt_tokens for part in parts), default=0), truncated=False)


def _serve(loop: asyncio.AbstractEventLoop, client: openai.AsyncOpenAI) -> None:
    loop.run_forever()
    loop.run_until_complete(client.close())
    loop.close()
