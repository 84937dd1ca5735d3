"""Requests to an OpenAI-compatible endpoint, and the samples of its answers. Pure: no client, no network.

The fields of a request are those that OpenAI's API and vLLM both take, so that one request serves either:

- `temperature` and `top_p` are always sent, since a server may have other defaults (vLLM takes the model's own
  generation_config.json). `top_k` and `min_tokens` are unknown to OpenAI's API, which refuses requests with unknown
  fields, so they are sent only if they have an effect: `top_k` of a decoding, `min_new_tokens` above 1. Start a vLLM
  server whose model has a top-k of its own with `--generation-config vllm`.
- `n` is sent only for several choices, since some servers refuse the field itself.
- Chats are bounded by `max_completion_tokens` (newer models of OpenAI refuse `max_tokens`), plain completions by
  `max_tokens`. Some servers know only the older name, and refuse the other (see `concessions`) or ignore it (see
  `exceeds_limit`).
- `seed` has 31 bits, the limit of some servers.
"""

import math
from typing import Any

from cappy_model.generate.decodings import REASONING, Decoding, Drawing, Sample
from cappy_model.generate.endpoint.answers import REFUSAL, Answer, Choice
from schemas.ids import seed_for

_SEED_BITS = 31


def request_for(
    drawing: Drawing, decoding: Decoding, *, model: str, prompt: str, seed: int, have: int, logprobs: bool
) -> dict[str, Any]:
    """Return the arguments of the client's `chat.completions.create`, or of `completions.create` without `chat`.

    The request is for the samples of `decoding` still missing after `have`. The seed sent depends on the prompt's
    `seed`, the decoding's name and `have`.
    """
    missing = decoding.samples - have
    extra = {
        **({} if decoding.top_k is None else {"top_k": decoding.top_k}),
        **({"min_tokens": drawing.min_new_tokens} if drawing.min_new_tokens > 1 else {}),
    }
    request: dict[str, Any] = {
        "model": model,
        **({"n": missing} if missing > 1 else {}),
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
    `finish_reason` and by what is `beside` it. The log-likelihood is that of the reported tokens; some servers include
    the end token. It is None without reported tokens, or if one of them has no log-probability.
    """
    choices = answer.ordered()[: decoding.samples - have]
    usage = answer.usage
    num_tokens = usage.completion_tokens if usage and len(answer.choices) == 1 else 0
    reasoned = usage is not None and usage.reasoning_tokens > 0
    return [
        _sample(choice, decoding.name, have + place, num_tokens, reasoned=reasoned)
        for place, choice in enumerate(choices)
    ]


def _sample(choice: Choice, decoding: str, index: int, num_tokens: int, *, reasoned: bool) -> Sample:
    text, beside = choice.content.text.strip(), choice.content.beside
    if reasoned and REASONING not in beside:
        beside += (REASONING,)
    values = choice.log_likelihoods()
    known = [value for value in values if value is not None]
    total = math.fsum(known) if known and len(known) == len(values) else None
    return Sample(
        decoding=decoding,
        sample_index=index,
        response=text,
        finish_reason=REFUSAL if not text and REFUSAL in beside else choice.ending,
        log_likelihood_sum=total,
        log_likelihood_mean=None if total is None else total / len(known),
        num_tokens=len(values) or num_tokens,
        beside=beside,
    )


def exceeds_limit(answer: Answer, max_new_tokens: int) -> bool:
    """Return whether the choices are longer than `max_new_tokens` without reasoning: the server ignores the limit."""
    if answer.usage is None:
        return False
    # One more token for each choice: only some servers count the end token.
    written = answer.usage.completion_tokens - answer.usage.reasoning_tokens
    return written > len(answer.choices) * (max_new_tokens + 1)
