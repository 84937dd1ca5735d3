"""Requests to an OpenAI-compatible endpoint, and its answers. Pure: no client, no network.

The fields are those that OpenAI's API and vLLM both take, so that one request serves either:

- `temperature` and `top_p` are always sent, since a server may have other defaults (vLLM takes the model's own
  generation_config.json). `top_k` and `min_tokens` are unknown to OpenAI's API, which refuses requests with unknown
  fields, so they are sent only if they have an effect: `top_k` of a decoding, `min_new_tokens` above 1. Start a vLLM
  server whose model has a top-k of its own with `--generation-config vllm`.
- Chats are bounded by `max_completion_tokens` (newer models of OpenAI refuse `max_tokens`), plain completions by
  `max_tokens`. Some servers know only the older name and ignore the other: see `exceeds_limit`.
- `seed` has 31 bits, the limit of some servers.
"""

import math
from typing import Any

from pydantic import BaseModel, Field, model_validator

from cappy_model.generate.decodings import Decoding, Drawing, Sample
from schemas.ids import seed_for

_SEED_BITS = 31
_UNKNOWN = -9999.0  # sent by servers for an unknown or infinite log-probability


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    """Log-probabilities: `content` of a chat, `token_logprobs` of a completion; llama.cpp has `content` for both."""

    content: list[_Token] | None = None
    token_logprobs: list[float | None] | None = None

    def values(self) -> list[float | None]:
        return [token.logprob for token in self.content] if self.content else self.token_logprobs or []


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "_Choice":
        if self.message is None and "text" not in self.model_fields_set:
            raise ValueError("has neither a message nor a text")
        return self


class _Details(BaseModel):
    reasoning_tokens: int | None = None


class Usage(BaseModel):
    """The token counts of an answer, as reported by the server."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    completion_tokens_details: _Details | None = None


class Answer(BaseModel):
    """An answer with at least one choice, of a chat or a completion; only the fields used here."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None


def request_for(
    drawing: Drawing, decoding: Decoding, *, model: str, prompt: str, seed: int, have: int, logprobs: bool
) -> dict[str, Any]:
    """Return the arguments of the client's `chat.completions.create`, or of `completions.create` without `chat`.

    The request is for the samples of `decoding` still missing after `have`. The seed sent depends on the prompt's
    `seed`, the decoding's name and `have`.
    """
    extra = {
        **({} if decoding.top_k is None else {"top_k": decoding.top_k}),
        **({"min_tokens": drawing.min_new_tokens} if drawing.min_new_tokens > 1 else {}),
    }
    request: dict[str, Any] = {
        "model": model,
        "n": decoding.samples - have,
        "temperature": decoding.temperature,
        "top_p": 1.0 if decoding.top_p is None else decoding.top_p,
        "seed": seed_for(seed, decoding.name, str(have)) >> (64 - _SEED_BITS),
        **({"stop": list(drawing.stop)} if drawing.stop else {}),
        **({"extra_body": extra} if extra else {}),
    }
    if drawing.chat:
        request |= {
            "messages": [{"role": "user", "content": prompt}],
            "max_completion_tokens": drawing.max_new_tokens,
            **({"logprobs": True} if logprobs else {}),
        }
    else:
        # A completion's logprobs could be 0, but llama.cpp takes 0 as no logprobs.
        request |= {"prompt": prompt, "max_tokens": drawing.max_new_tokens, **({"logprobs": 1} if logprobs else {})}
    return request


def samples_of(answer: Answer, decoding: Decoding, have: int) -> list[Sample]:
    """Return the samples of an answer, numbered from `have`; at most as many as `decoding` has.

    A choice without text (a refusal, a tool call, all tokens spent on reasoning) is an empty response, explained by its
    `finish_reason`. The log-likelihood is that of the reported tokens; some servers include the end token. It is None
    without reported tokens, or if one of them has no log-probability.
    """
    choices = sorted(answer.choices, key=lambda choice: choice.index)[: decoding.samples - have]
    alone = len(answer.choices) == 1 and answer.usage is not None
    num_tokens = answer.usage.completion_tokens if alone and answer.usage else 0
    return [_sample(choice, decoding.name, have + place, num_tokens) for place, choice in enumerate(choices)]


def _sample(choice: _Choice, decoding: str, index: int, num_tokens: int) -> Sample:
    text, finish_reason = choice.text, choice.finish_reason
    if choice.message is not None:
        text = choice.message.content
        if text is None and choice.message.refusal is not None:
            finish_reason = "refusal"
    values = choice.logprobs.values() if choice.logprobs else []
    known = [value for value in values if value is not None and math.isfinite(value) and value > _UNKNOWN]
    total = math.fsum(known) if known and len(known) == len(values) else None
    mean = None if total is None else total / len(known)
    return Sample(decoding, index, text or "", finish_reason, total, mean, len(values) or num_tokens)


def exceeds_limit(answer: Answer, max_new_tokens: int) -> bool:
    """Return whether the choices are longer than `max_new_tokens` without reasoning: the server ignores the limit."""
    if answer.usage is None:
        return False
    details = answer.usage.completion_tokens_details
    reasoning = (details.reasoning_tokens or 0) if details else 0
    # One more token for each choice: only some servers count the end token.
    return answer.usage.completion_tokens - reasoning > len(answer.choices) * (max_new_tokens + 1)
