"""The connection to an OpenAI-compatible endpoint: its address, its key, and the client that sends the requests."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx2
import openai

from cappy_model.generate.endpoint.answers import MalformedAnswer, mended, read_answer
from schemas.errors import UsageError

_NO_KEY = "none"  # the client requires a key, a local server does not
_OWN_HOST = "api.openai.com"
_EXCERPT = 500
_CHATTY_LOGGERS = ("openai", "httpx2", "httpcore2")  # they log a line with the address of each request


@dataclass(frozen=True)
class EndpointSettings:
    """The address of a served model, and the limits of its use.

    `base_url`: including `/v1`; None: the environment's OPENAI_BASE_URL, or OpenAI. `key_variable`: the environment
    variable with the key, its only source; if unset, a placeholder is sent. `concurrency`: maximum requests in flight.
    `timeout`: seconds without a byte. `max_retries`: retries of one request. `max_requests` and `max_tokens_total`: the
    budget of an engine, including retries and prompts; None: no limit. `log_likelihoods`: whether to request them.
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
        """Raise UsageError for invalid values."""
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
    """A client for the endpoint at `url`, which contains no secrets. `key` is "" if the environment has none."""

    client: openai.AsyncOpenAI
    url: str
    key: str = field(repr=False)

    def excerpt(self, text: str) -> str:
        """Return the start of a server's message with the key masked, since some servers repeat it."""
        return _excerpt(text, self.key)


def connect(settings: EndpointSettings, before_request: Callable[[object], Any]) -> Connection:
    """Return a client that awaits `before_request` before each request and retry. Sends nothing itself.

    Raises UsageError for an invalid address or key.
    """
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    key = os.environ.get(settings.key_variable, "")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"{settings.key_variable} contains a blank, a line break or another character that no key has")
    check_body = partial(_check_body, shorten=partial(_excerpt, key=key))
    client = _client(settings, key or _NO_KEY, {"request": [before_request], "response": [check_body]})
    return Connection(client, _checked(client.base_url, settings.key_variable if not key else None), key)


def _excerpt(text: str, key: str) -> str:
    text = mended(text)
    for form in (key, key.replace("/", "\\/")):  # as it is, and as some servers write it in JSON
        text = text.replace(form, "***") if form else text
    return text[:_EXCERPT]


def _client(settings: EndpointSettings, key: str, hooks: dict[str, list[Callable[..., Any]]]) -> openai.AsyncOpenAI:
    # The engine's slots limit the connections; waiting for one here would count as a timeout.
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
        # The message shows no part of the address: a password may have been parsed as a port.
        raise UsageError("the endpoint's address is invalid; give one like http://localhost:8000/v1") from None


def _checked(url: httpx2.URL, missing_key: str | None) -> str:
    """Return the address for messages. Raises UsageError, without secrets, for an invalid one."""
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(
            f"the endpoint's address must begin with http:// or https:// and a host, not with {url.scheme!r}"
        )
    if url.userinfo or url.query or url.fragment:
        raise UsageError(
            f"the address of the endpoint at {url.host} has a user, a query or a fragment; give the key in the "
            f"environment"
        )
    if missing_key and url.host == _OWN_HOST:
        raise UsageError(f"{url.host} requires a key: set {missing_key}, or give another endpoint with --base-url")
    return str(url).rstrip("/")


async def _check_body(response: httpx2.Response, shorten: Callable[[str], str]) -> None:
    """Raise a transport error for an answer that cannot be parsed, so that the client retries the request.

    What the server does not implement is not asked for again.
    """
    if response.status_code == HTTPStatus.NOT_IMPLEMENTED:
        response.headers["x-should-retry"] = "false"  # the client's own word
    if response.is_success:
        content = await response.aread()
        try:
            read_answer(content)
        except MalformedAnswer as error:
            start = shorten(content.decode(errors="replace"))
            raise httpx2.DecodingError(f"{error}; the answer begins {start!r}") from None
