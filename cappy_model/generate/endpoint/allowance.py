"""The budget and the circuit breaker of an endpoint. Without locks: for use on one event loop."""

from collections import Counter

from cappy_model.generate.decodings import Failure, GenerationError
from cappy_model.generate.endpoint.answers import Usage

REFUSED = "refused"
"""The reason of a prompt that the server will never answer."""


class Budget:
    """Limits of requests and tokens (None: no limit). Retries count as requests, prompts count as tokens."""

    def __init__(self, max_requests: int | None, max_tokens_total: int | None) -> None:
        self._max_requests, self._max_tokens = max_requests, max_tokens_total
        self._requests = self._tokens = 0

    async def take(self, request: object) -> None:
        """Count a request before it is sent. Raises GenerationError if the budget is used up."""
        limits = (self._max_requests, self._requests), (self._max_tokens, self._tokens)
        if any(limit is not None and used >= limit for limit, used in limits):
            raise GenerationError(
                f"the budget is used up: {self._requests} requests and {self._tokens} tokens in this launch. The "
                f"output is kept: repeat the command with a larger budget (--max-requests, --max-tokens-total)"
            )
        self._requests += 1

    def add(self, usage: Usage | None) -> None:
        """Count the tokens of an answer. Raises GenerationError if they are limited but not reported."""
        if self._max_tokens is not None and (usage is None or usage.total_tokens == 0):
            raise GenerationError(
                "the endpoint does not report the tokens of an answer, so --max-tokens-total cannot be kept; "
                "use --max-requests"
            )
        self._tokens += usage.total_tokens if usage else 0


class CircuitBreaker:
    """Stops requests to a failing endpoint before all prompts have been tried, and paid for.

    It opens after `limit` consecutive failures of a decoding. Refusals count only until the decoding is first served:
    after that they are due to the prompts.
    """

    def __init__(self, url: str, limit: int) -> None:
        self._url, self._limit = url, limit
        self._in_a_row: Counter[str] = Counter()
        self.ever_served: set[str] = set()

    def served(self, decoding: str) -> None:
        """Record an answer."""
        self.ever_served.add(decoding)
        self._in_a_row[decoding] = 0

    def failed(self, decoding: str, failure: Failure) -> None:
        """Record a failure. Raises GenerationError at the limit."""
        if failure.reason == REFUSED and decoding in self.ever_served:
            return
        self._in_a_row[decoding] += 1
        if self._in_a_row[decoding] >= self._limit:
            raise GenerationError(
                f"{self._url} failed {self._limit} times in a row at decoding {decoding!r}, at last with "
                f"{failure.reason}: {failure.detail}"
            )
