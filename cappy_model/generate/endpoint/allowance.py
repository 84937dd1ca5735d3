"""What an engine behind a web API may spend, and how much failure it bears. For one event loop: nothing is locked."""

from collections import Counter

from cappy_model.generate.decodings import Failure, GenerationError
from cappy_model.generate.endpoint.completions import Usage

REFUSED = "refused"
"""The reason of a prompt that the server will not answer, whenever it is asked."""


class Spending:
    """Requests and tokens against their limits (None: none); retries are requests, prompts are tokens."""

    def __init__(self, max_requests: int | None, max_tokens_total: int | None) -> None:
        self._max_requests, self._max_tokens = max_requests, max_tokens_total
        self._requests = self._tokens = 0

    async def take(self, request: object) -> None:
        """Counts a request about to be sent. Raises GenerationError where there is no budget for it."""
        limits = (self._max_requests, self._requests), (self._max_tokens, self._tokens)
        if any(limit is not None and used >= limit for limit, used in limits):
            raise GenerationError(
                f"the budget is used up: {self._requests} requests and {self._tokens} tokens in this launch. What is "
                f"written is kept: the same command with a larger budget (--max-requests, --max-tokens-total) goes on"
            )
        self._requests += 1

    def add(self, usage: Usage | None) -> None:
        """Counts the tokens of an answer. Raises GenerationError where they are limited and the server tells none."""
        if self._max_tokens is not None and (usage is None or usage.total_tokens == 0):
            raise GenerationError(
                "the endpoint does not say how many tokens an answer took, so that --max-tokens-total cannot be kept; "
                "--max-requests can"
            )
        self._tokens += usage.total_tokens if usage else 0


class Patience:
    """Notices an endpoint that serves nobody long before every prompt of a draw has been tried, and paid for.

    After `limit` failures of a decoding in a row nothing more is tried. Refusals count only as long as the decoding
    was never served: afterwards they are the prompts' own.
    """

    def __init__(self, url: str, limit: int) -> None:
        self._url, self._limit = url, limit
        self._in_a_row: Counter[str] = Counter()
        self.ever_served: set[str] = set()

    def served(self, decoding: str) -> None:
        """Takes note of an answer."""
        self.ever_served.add(decoding)
        self._in_a_row[decoding] = 0

    def failed(self, decoding: str, failure: Failure) -> None:
        """Takes note of a failure. Raises GenerationError for one too many."""
        if failure.reason == REFUSED and decoding in self.ever_served:
            return
        self._in_a_row[decoding] += 1
        if self._in_a_row[decoding] >= self._limit:
            raise GenerationError(
                f"{self._url} failed {self._limit} times in a row at decoding {decoding!r}, at last with "
                f"{failure.reason}: {failure.detail}"
            )
