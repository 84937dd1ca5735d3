"""What an OpenAI-compatible endpoint is asked for responses, and how its answer is read. Pure: no client, no network.

The fields are those that OpenAI's API and vLLM both take, so that one request serves either:

- `temperature` and `top_p` are always sent, since a server may have other defaults (vLLM takes the model's own
  generation_config.json). `top_k` and `min_tokens` are unknown to OpenAI's API, which refuses requests with unknown
  fields, and are sent only where they say something: a decoding that names `top_k`, `min_new_tokens` above 1. A vLLM
  server whose model comes with a top-k of its own is therefore to be started with `--generation-config vllm`.
- Chats are bounded by `max_completion_tokens` (newer models of OpenAI refuse `max_tokens`), plain completions by
  `max_tokens`. Some servers know only the older name and ignore the other: `exceeds_limit` tells.
- `seed` has 31 bits, as some servers keep no more.
"""

import math
from typing import Any

from pydantic import BaseModel, Field, model_validator

from cappy_model.generate.decodings import Decoding, Drawing, Sample
from schemas.ids import seed_for

_SEED_BITS = 31
_UNTOLD = -9999.0  # what servers write for a log-probability that they do not know or cannot write


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    """Of a chat `content`, of a completion `token_logprobs`; llama.cpp's completions have `content` too."""

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
    """The tokens that an answer took, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    completion_tokens_details: _Details | None = None


class Answer(BaseModel):
    """An answer with one choice at least, of a chat or a completion; only the fields that are read."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None


def request_for(
    drawing: Drawing, decoding: Decoding, *, model: str, prompt: str, seed: int, have: int, logprobs: bool
) -> dict[str, Any]:
    """The arguments of the client's `chat.completions.create`, or of `completions.create` where it is no chat.

    Asks for the samples of `decoding` that are missing when there are `have` already. What is sent as `seed` follows
    from the prompt's `seed`, the decoding's name and `have`.
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
        # Of a completion's logprobs 0 should be enough, and means none at all to llama.cpp.
        request |= {"prompt": prompt, "max_tokens": drawing.max_new_tokens, **({"logprobs": 1} if logprobs else {})}
    return request


def samples_of(answer: Answer, decoding: Decoding, have: int) -> list[Sample]:
    """The samples of an answer, numbered from `have`, and no more than `decoding` wants.

    A choice without text (a refusal, a call of a tool, everything spent on reasoning) is an empty response whose
    `finish_reason` tells why. The log-likelihood is that of the tokens which the server reports: some report the end
    token too, others do not. None where there are none, or where one of them is unknown.
    """
    choices = sorted(answer.choices, key=lambda choice: choice.index)[: decoding.samples - have]
    alone = len(answer.choices) == 1 and answer.usage is not None
    told = answer.usage.completion_tokens if alone and answer.usage else 0
    return [_sample(choice, decoding.name, have + place, told) for place, choice in enumerate(choices)]


def _sample(choice: _Choice, decoding: str, index: int, told: int) -> Sample:
    text, finish_reason = choice.text, choice.finish_reason
    if choice.message is not None:
        text = choice.message.content
        if text is None and choice.message.refusal is not None:
            finish_reason = "refusal"
    values = choice.logprobs.values() if choice.logprobs else []
    known = [value for value in values if value is not None and math.isfinite(value) and value > _UNTOLD]
    total = math.fsum(known) if known and len(known) == len(values) else None
    mean = None if total is None else total / len(known)
    return Sample(decoding, index, text or "", finish_reason, total, mean, len(values) or told)


def exceeds_limit(answer: Answer, max_new_tokens: int) -> bool:
    """Whether the answer's choices are longer than a server that knows the limit lets them be, reasoning left out."""
    if answer.usage is None:
        return False
    details = answer.usage.completion_tokens_details
    reasoning = (details.reasoning_tokens or 0) if details else 0
    # One token more for each choice: servers do not agree on whether the end token counts.
    return answer.usage.completion_tokens - reasoning > len(answer.choices) * (max_new_tokens + 1)
