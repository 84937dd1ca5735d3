"""The connection to an OpenAI-compatible endpoint: its address, its key, and the client that sends the requests."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import openai
from pydantic import ValidationError

from cappy_model.generate.endpoint.completions import Answer
from schemas.errors import UsageError

_NO_KEY = "none"  # the client insists on a key, a local server on none
_OWN_HOST = "api.openai.com"
_EXCERPT = 500
_CHATTY_LOGGERS = ("openai", "httpx2", "httpcore2")  # a line for each request, with its address


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


@dataclass(frozen=True)
class Connection:
    """A client for the endpoint at `url`, which is free of secrets. `key` is empty where the environment has none."""

    client: openai.AsyncOpenAI
    url: str
    key: str = field(repr=False)

    def excerpt(self, text: str) -> str:
        """The start of a server's words, without the key, which some repeat."""
        return _excerpt(text, self.key)


def connect(settings: EndpointSettings, before_request: Callable[[object], Any]) -> Connection:
    """A client that awaits `before_request` for each request, retries too. Sends nothing yet.

    Raises UsageError for an address or a key that cannot be used.
    """
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    key = os.environ.get(settings.key_variable, "")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"{settings.key_variable} holds a blank, a line break or another character of no key")
    check_body = partial(_check_body, shorten=partial(_excerpt, key=key))
    client = _client(settings, key or _NO_KEY, {"request": [before_request], "response": [check_body]})
    return Connection(client, _checked(client.base_url, settings.key_variable if not key else None), key)


def _excerpt(text: str, key: str) -> str:
    for form in (key, key.replace("/", "\\/")):  # as it is, and as some write it in JSON
        text = text.replace(form, "***") if form else text
    return text[:_EXCERPT]


def _client(settings: EndpointSettings, key: str, hooks: dict[str, list[Callable[..., Any]]]) -> openai.AsyncOpenAI:
    # The slots bound the connections: waiting for one here would be a timeout.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency)
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
