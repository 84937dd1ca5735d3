"""The engine for OpenAI-compatible endpoints: vLLM and its like, and models that exist only behind a web API.

`openai`'s own client sends the requests and repeats those that came to nothing: 408, 409, 429, 5xx, no answer in time,
a connection that breaks off, an answer that cannot be read. It waits half a second, doubled each time up to eight, or
what the server's Retry-After says, up to two minutes; beyond that it gives up (openai/_base_client.py).

All requests of an engine run on one event loop in a thread of its own, where everything is counted without a lock.
"""

import asyncio
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Sequence

import httpx2
import openai

from cappy_model.generate.decodings import PRESETS, Decoding, Drawing, Drawn, Failure, GenerationError, Sample
from cappy_model.generate.endpoint.allowance import REFUSED, Patience, Spending
from cappy_model.generate.endpoint.completions import Answer, exceeds_limit, request_for, samples_of
from cappy_model.generate.endpoint.connection import EndpointSettings, connect
from schemas.errors import UsageError

_LEAST_PATIENCE = 16
_REFUSALS = (400, 413, 422)
_PASSING = (408, 409, 429)
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")


class Endpoint:
    """Draws responses from a model behind an OpenAI-compatible API; an Engine, safe to use from several threads.

    A prompt that the server refuses (`refused`: 400, 413, 422), or that comes to nothing after all retries
    (`endpoint_429`, `endpoint_5xx`, `timeout`, `disconnected`, `malformed`), is a Failure and its neighbours go on.
    """

    def __init__(self, settings: EndpointSettings, drawing: Drawing) -> None:
        """Sends nothing yet. Raises UsageError for a drawing, an address or a key that cannot be used."""
        _check_drawing(drawing)
        self._settings, self._drawing = settings, drawing
        self._spending = Spending(settings.max_requests, settings.max_tokens_total)
        connection = connect(settings, self._spending.take)
        self._client, self._url, self._has_key = connection.client, connection.url, bool(connection.key)
        self._excerpt = connection.excerpt
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
