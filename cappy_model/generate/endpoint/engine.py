"""The engine for OpenAI-compatible endpoints: vLLM and similar servers, and models behind a web API.

The `openai` client sends the requests and retries on 408, 409, 429, 5xx, a timeout, a broken connection, and an answer
that cannot be parsed. It waits half a second, doubled each time up to eight, or as long as the server's Retry-After, up
to two minutes; a longer Retry-After ends the retries (openai/_base_client.py).

A request that the server refuses for a parameter that it need not have is sent again without (see `concessions`), once
for each engine: later requests leave the parameter out.

All requests of an engine run on one event loop in a thread of its own, so its counters need no lock.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx2
import openai

from cappy_model.generate.decodings import (
    CONCESSIONS,
    PRESETS,
    Decoding,
    Drawing,
    Drawn,
    Failure,
    GenerationError,
    Sample,
)
from cappy_model.generate.endpoint.allowance import REFUSED, Budget, CircuitBreaker
from cappy_model.generate.endpoint.answers import Answer, read_answer
from cappy_model.generate.endpoint.completions import exceeds_limit, request_for, samples_of
from cappy_model.generate.endpoint.concessions import Concessions, hint, refusal_words
from cappy_model.generate.endpoint.connection import EndpointSettings, connect
from cappy_model.work import ProgressCallback
from schemas.errors import UsageError

_LOG = logging.getLogger("cappy")
_MIN_FAILURES = 16
_FIRST_ANSWER = 30.0  # seconds that others wait for, to learn whether the server gives several choices
_REFUSALS = (400, 413, 422, 501)
_PASSING = (408, 409, 429)
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")


class Endpoint:
    """An Engine for a model behind an OpenAI-compatible API; thread-safe.

    A prompt that the server refuses (`refused`: 400, 413, 422, 501), or that fails after all retries (`endpoint_429`,
    `endpoint_5xx`, `timeout`, `disconnected`, `malformed`), has a Failure; other prompts continue.
    """

    def __init__(self, settings: EndpointSettings, drawing: Drawing) -> None:
        """Create the client; send nothing. Raises UsageError for an invalid drawing, address or key."""
        _check_drawing(drawing)
        self._settings, self._drawing = settings, drawing
        self._budget = Budget(settings.max_requests, settings.max_tokens_total)
        connection = connect(settings, self._budget.take)
        self._client, self._url, self._has_key = connection.client, connection.url, bool(connection.key)
        self._excerpt = connection.excerpt
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._breaker = CircuitBreaker(self._url, max(_MIN_FAILURES, 2 * settings.concurrency))
        self._concessions, self._first, self._answered = Concessions(), True, asyncio.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_serve, args=(self._loop, self._client), name="endpoint", daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: ProgressCallback | None = None
    ) -> list[Drawn]:
        """Generate the responses to each prompt, in order. The seeds are sent, but servers need not honour them.

        `on_progress` is called after each answer, with parts of prompts. Raises GenerationError if the budget is used
        up, if the endpoint cannot be reached, rejects the key or the model, or fails too often in a row, and if no
        prompt could be served, except for refusals by an endpoint that has served others.
        """
        future = asyncio.run_coroutine_threadsafe(self._draw(prompts, seeds, on_progress), self._loop)
        try:
            drawn = future.result()
        finally:
            future.cancel()  # if the caller was interrupted, send no more requests
        failures = [one.failure for one in drawn if one.failure is not None]
        if failures and len(failures) == len(drawn) and not self._due_to_prompts(failures):
            (reason, count), *_ = Counter(failure.reason for failure in failures).most_common(1)
            detail = next(failure.detail for failure in failures if failure.reason == reason)
            raise GenerationError(
                f"{self._url} served none of {len(drawn)} prompts; {count} times the reason was {reason}: {detail}"
            )
        return drawn

    def _due_to_prompts(self, failures: Sequence[Failure]) -> bool:
        """Return whether failures are refusals due to the prompts, as far as can be known, not to all requests."""
        refused = all(failure.reason == REFUSED for failure in failures)
        return refused and (bool(self._breaker.ever_served) or len(failures) == 1)

    def out_of_memory(self) -> int:
        """Return 0: the memory is the server's."""
        return 0

    async def _draw(
        self, prompts: Sequence[str], seeds: Sequence[int], on_progress: ProgressCallback | None
    ) -> list[Drawn]:
        jobs = itertools.product(range(len(prompts)), self._drawing.decodings)
        done = itertools.count(1)
        parts: list[dict[str, Drawn]] = [{} for _ in prompts]

        async def work() -> None:
            for place, decoding in jobs:
                if not any(part.failure for part in parts[place].values()):
                    parts[place][decoding.name] = await self._sampled(prompts[place], seeds[place], decoding)
                if on_progress is not None:
                    on_progress(next(done) / len(self._drawing.decodings), len(prompts))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
        else:
            return [_merged([by[d.name] for d in self._drawing.decodings if d.name in by]) for by in parts]
        raise first

    async def _sampled(self, prompt: str, seed: int, decoding: Decoding) -> Drawn:
        """Generate the samples of one decoding, in several requests if the server returns fewer than requested."""
        samples: list[Sample] = []
        prompt_tokens = 0
        while len(samples) < decoding.samples:
            request = request_for(
                self._drawing, decoding,
                model=self._settings.model, prompt=prompt, seed=seed, have=len(samples),
                logprobs=self._settings.log_likelihoods,
            )  # fmt: skip
            async with self._first_alone(request):
                answer = await self._ask(request, decoding)
            if isinstance(answer, Failure):
                self._breaker.failed(decoding.name, answer)
                return Drawn((), answer, 0, truncated=False)
            self._accept(answer, decoding)
            samples += samples_of(answer, decoding, len(samples))
            prompt_tokens = answer.usage.prompt_tokens if answer.usage else 0
        several = {"n"} if decoding.samples == 1 else set()
        conceded = tuple(sorted(self._concessions.made - several))
        return Drawn(tuple(samples), None, prompt_tokens, truncated=False, concessions=conceded)

    @contextlib.asynccontextmanager
    async def _first_alone(self, request: Mapping[str, Any]) -> AsyncIterator[None]:
        """Let the first request for several choices go ahead of the others, so that only it is refused."""
        if not self._concessions.undecided(request):
            yield
        elif self._first:
            self._first = False
            try:
                yield
            finally:
                self._answered.set()
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), _FIRST_ANSWER)
            yield

    async def _ask(self, request: Mapping[str, Any], decoding: Decoding) -> Answer | Failure:
        """Send a request, without the parameters that the server has refused or refuses now."""
        conceded: set[str] = set()
        while True:
            sent = self._concessions.applied(request, conceded)
            answer = await self._send(sent)
            if isinstance(answer, Answer):
                for name in self._concessions.learn(sent, conceded, len(answer.choices)):
                    _LOG.warning("%s: %s", self._url, CONCESSIONS[name])
                return answer
            refused = isinstance(answer, openai.APIStatusError) and answer.status_code in _REFUSALS
            parameter = self._concessions.next_after(refusal_words(answer), sent) if refused else None
            if parameter is None:
                return self._judged(answer, sent, decoding)
            conceded.add(parameter)

    async def _send(self, request: Mapping[str, Any]) -> Answer | openai.APIError:
        """Return the answer or the error. Raised, it would chain the server's message, which may hold secrets."""
        resource: Any = self._client.chat.completions if self._drawing.chat else self._client.completions
        async with self._slots:
            try:
                response = await resource.with_raw_response.create(**request)
                return read_answer(response.content)
            except openai.APIError as error:
                return error

    def _accept(self, answer: Answer, decoding: Decoding) -> None:
        self._breaker.served(decoding.name)
        self._budget.add(answer.usage)
        if exceeds_limit(answer, self._drawing.max_new_tokens):
            older = not self._drawing.chat or "max_completion_tokens" in self._concessions.made
            name = "max_tokens" if older else "max_completion_tokens"
            raise GenerationError(
                f"{self._url} ignores {name}: asked for {self._drawing.max_new_tokens} tokens at most, it returned "
                f"{answer.usage.completion_tokens if answer.usage else 0}. Use a server that supports this field, "
                f"or, for a chat, plain prompts"
            )

    def _judged(self, error: openai.APIError, request: Mapping[str, Any], decoding: Decoding) -> Failure:
        """Return the failure of one prompt. Raises GenerationError for an error that any prompt would have."""
        if isinstance(error, openai.APIStatusError):
            return self._judged_status(error, request, decoding)
        number = self._settings.max_retries + 1
        cause, tries = error.__cause__, "1 try" if number == 1 else f"{number} tries"
        detail = self._excerpt(f"{type(cause).__name__}: {cause}")
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            raise GenerationError(f"{self._url} cannot be reached, in {tries} ({detail}). Check the address")
        if isinstance(error, openai.APITimeoutError):
            return Failure("timeout", f"no answer in {self._settings.timeout:g} s, in {tries}")
        if isinstance(cause, httpx2.DecodingError):
            return Failure("malformed", f"{self._excerpt(str(cause))}, in {tries}")
        return Failure("disconnected", f"{detail}, in {tries}")

    def _judged_status(self, error: openai.APIStatusError, request: Mapping[str, Any], decoding: Decoding) -> Failure:
        status, variable = error.status_code, self._settings.key_variable
        refusal = refusal_words(error)
        words = f"{status}: {self._excerpt(refusal)}"
        # Once a key has been accepted, a 403 concerns the prompt: some services refuse disallowed prompts so.
        if status == 401 or (status == 403 and not self._breaker.ever_served):
            held = (
                f"the key in {variable}" if self._has_key else f"a request without a key, since {variable} is not set"
            )
            raise GenerationError(f"{self._url} refused {held} ({words}). Set {variable} to a valid key")
        if error.code in _NO_CREDIT or error.type in _NO_CREDIT or status == 402:
            raise GenerationError(f"{self._url}: the account of the key in {variable} is used up ({words})")
        if status in _REFUSALS or status == 403:
            return Failure(REFUSED, words + hint(refusal, request, decoding))
        if status in _PASSING or status >= 500:
            return Failure("endpoint_5xx" if status >= 500 else f"endpoint_{status}", words)
        raise GenerationError(
            f"{self._url} does not serve model {self._settings.model!r} ({words}). Check model and address; "
            f"the address ends before /chat/completions, usually in /v1"
        )


def _check_drawing(drawing: Drawing) -> None:
    searches = [decoding.name for decoding in drawing.decodings if decoding.beams > 1]
    if searches:
        able = [d.name for d in {**PRESETS, **{d.name: d for d in drawing.decodings}}.values() if d.beams == 1]
        raise UsageError(
            f"decoding {searches[0]!r} is a beam search, which endpoints do not offer; choose from {', '.join(able)}"
        )
    if drawing.max_prompt_tokens is not None or drawing.truncation_side is not None:
        raise UsageError(
            f"an endpoint reads a prompt whole or refuses it: max_prompt_tokens ({drawing.max_prompt_tokens}) and "
            f"truncation_side ({drawing.truncation_side}) are for local models"
        )


def _merged(parts: Sequence[Drawn]) -> Drawn:
    failure = next((part.failure for part in parts if part.failure), None)
    samples = () if failure else tuple(sample for part in parts for sample in part.samples)
    conceded = tuple(sorted({name for part in parts for name in part.concessions}))
    prompt_tokens = max((part.prompt_tokens for part in parts), default=0)
    return Drawn(samples, failure, prompt_tokens, truncated=False, concessions=conceded)


def _serve(loop: asyncio.AbstractEventLoop, client: openai.AsyncOpenAI) -> None:
    loop.run_forever()
    loop.run_until_complete(client.close())
    loop.close()
