"""Empty responses: why each is empty, and what to do about it."""

from collections.abc import Mapping

from beam_pipelines.report.text import noun, plural, share
from cappy_model.generate.decodings import REASONING, Sample

UNKNOWN = "untold"
"""Key of the samples whose engine gives no reason for their end."""

_LARGE_SHARE = 0.05
_REASONING_CUT = "reasoning_cut"
_CUT = frozenset({"length", "max_tokens", "model_length"})
_STOPPED = frozenset({"stop", "end_turn", "eos", "eos_token"})

_REASONS = {
    _REASONING_CUT: "because all tokens went into reasoning, with finish_reason length (raise --max-new-tokens, or "
    "turn the model's thinking off)",
    REASONING: "because the model reasoned without an answer (turn its thinking off, or check how it is parsed)",
    "refusal": "because the model refused",
    "content_filter": "because of a content filter",
    "tool_calls": "because the model called a tool",
    "length": "because --max-new-tokens was reached before any text (raise it)",
    "stop": "because the model ended, or reached a --stop text, before any text (check the prompt, --chat and --stop)",
    "error": "because the server failed",
    UNKNOWN: "for no reason given",
}
"""The reasons in words."""


def is_empty(sample: Sample) -> bool:
    """Return whether a response has no text."""
    return not sample.response.strip()


def why_empty(sample: Sample) -> str:
    """Return why a response is empty, as a short code; what an API holds beside it tells more than its finish reason.

    The code is a key of the reasons in words, the type of the part that a message has in place of text, or the finish
    reason of an API.
    """
    reason = (sample.finish_reason or "").lower()
    beside = sorted(sample.beside, key=lambda name: (name == REASONING, name))  # a tool call is not due to reasoning
    if reason in ("refusal", "content_filter"):
        return reason
    if beside:
        return _REASONING_CUT if beside[0] == REASONING and reason in _CUT else beside[0]
    if reason in _CUT:
        return "length"
    return "stop" if reason in _STOPPED else sample.finish_reason or UNKNOWN


def in_words(reasons: Mapping[str, int]) -> str:
    """Say how many responses are empty for each reason, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(
        f"{count:,} {_REASONS.get(reason, f'with {reason} in place of text')}" for reason, count in ordered
    )


def warning_of(empty: int, responses: int, reasons: Mapping[str, int]) -> str | None:
    """Return a warning if a large share of some `responses` is empty, None otherwise."""
    if empty <= _LARGE_SHARE * responses:
        return None
    number = f"{empty:,} of {plural(responses, 'response')} ({share(empty, responses)})"
    return f"{number} {'is' if empty == 1 else 'are'} empty: {in_words(reasons)}"


def failure_of(empty: int, responses: int, reasons: Mapping[str, int]) -> str | None:
    """Return the reason why a run fails whose responses are all empty, None if there is another response."""
    if not responses or empty < responses:
        return None
    all_of_them = "The only response" if responses == 1 else f"All {responses:,} {noun(responses, 'response')}"
    return f"{all_of_them} {'is' if responses == 1 else 'are'} empty: {in_words(reasons)}."
