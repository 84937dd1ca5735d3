"""Answers of OpenAI-compatible endpoints, read leniently. Pure: no client, no network.

Only the list of choices, each with a message or a text, is required. Everything else is optional in one server or
another: it may be missing, null or of another shape, and is then unknown.
"""

import json
import math
import re
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from cappy_model.generate.decodings import REASONING

UNKNOWN_LIKELIHOOD = -9999.0  # sent by servers for an unknown or infinite log-probability
_ROUNDING = 1e-3  # log-probabilities that exceed 0 by no more are rounded ones
_MOST_TOKENS = 2**24
_SURROGATES = re.compile("[\ud800-\udfff]")
_STREAM = ("data:", "event:")
_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}

REFUSAL, TOOLS = "refusal", "tool_calls"
"""Contents of a message that are no part of its text; others have the name that the server gives them."""

_FIELDS = {
    **dict.fromkeys(("reasoning_content", "reasoning", "reasoning_details", "thinking"), REASONING),
    "refusal": REFUSAL,
    "tool_calls": TOOLS,
    "function_call": TOOLS,
    "audio": "audio",
    "images": "images",
}
_TEXT_PARTS = ("text", "output_text")
_OTHER_PARTS = {
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning", "reasoning_content"), REASONING),
    **dict.fromkeys(("tool_use", "tool_call", "tool_calls", "function_call"), TOOLS),
}


class MalformedAnswer(ValueError):
    """An answer without choices that can be read; the message says what is wrong with it."""


class Content(NamedTuple):
    """The text of a choice, and the names of what its message has `beside` the text, each once."""

    text: str = ""
    beside: tuple[str, ...] = ()


def mended(text: str) -> str:
    """Replace halves of surrogate pairs (an emoji that was cut) by U+FFFD, so that the text can be UTF-8."""
    return _SURROGATES.sub("\ufffd", text)


def _read_content(value: Any) -> Content:
    """Read a text, or a list of parts, whose texts are joined. Raises ValueError for anything else."""
    if value is None or isinstance(value, str):
        return Content(mended(value or ""))
    if not isinstance(value, list | dict):
        raise ValueError(f"is {_kind(value)}, not a text or a list of parts")
    texts, beside = [], []
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, str | dict | None):
            raise ValueError(f"has {_kind(part)} where a part of a message belongs")
        kind = part.get("type") or "text" if isinstance(part, dict) else "text"
        if kind not in _TEXT_PARTS:
            beside.append(
                _OTHER_PARTS.get(kind) or mended(kind) if isinstance(kind, str) else "a part of no known type"
            )
            continue
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str | None):
            raise ValueError(f"has a part of type text whose text is {_kind(text)}")
        texts.append(mended(text or ""))
    return Content("".join(texts), tuple(dict.fromkeys(beside)))


def _read_message(value: Any) -> Content:
    """Read the message of a chat. Raises ValueError if it is no object, or if its content is of an unknown shape."""
    if value is None:
        return Content()
    if not isinstance(value, dict):
        raise ValueError(f"is {_kind(value)}, not a message")
    content = _read_content(value.get("content"))
    fields = (name for field, name in _FIELDS.items() if value.get(field))
    return Content(content.text, tuple(dict.fromkeys((*content.beside, *fields))))


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


def _none_if_odd(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return None


def _zero_if_odd(value: Any, handler: ValidatorFunctionWrapHandler) -> int:
    try:
        return int(handler(value))
    except ValidationError:
        return 0


def _mend(value: Any) -> Any:
    return mended(value) if isinstance(value, str) else value


T = TypeVar("T")
_Lenient = Annotated[T | None, WrapValidator(_none_if_odd)]
_Count = Annotated[int, Field(ge=0, le=_MOST_TOKENS), WrapValidator(_zero_if_odd)]
_Text = Annotated[str, BeforeValidator(_mend)]


class _Token(BaseModel):
    logprob: _Lenient[float] = None


class _Logprobs(BaseModel):
    """Log-probabilities: `content` of a chat, `token_logprobs` of a completion; llama.cpp has `content` for both."""

    content: _Lenient[list[_Lenient[_Token]]] = None
    token_logprobs: _Lenient[list[_Lenient[float]]] = None

    def values(self) -> list[float | None]:
        if self.content:
            return [None if token is None else _known(token.logprob) for token in self.content]
        return [_known(value) for value in self.token_logprobs or ()]


def _known(value: float | None) -> float | None:
    known = value is not None and math.isfinite(value) and UNKNOWN_LIKELIHOOD < value <= _ROUNDING
    return value if known else None


class Choice(BaseModel):
    """One response: the message of a chat, or the text of a completion."""

    index: _Lenient[int] = None
    finish_reason: _Lenient[_Text] = None
    logprobs: _Lenient[_Logprobs] = None
    message: Annotated[Content | None, PlainValidator(_read_message)] = None
    text: Annotated[Content | None, PlainValidator(_read_content)] = None
    error: Any = None

    @model_validator(mode="after")
    def _says_something(self) -> "Choice":
        if not {"message", "text"} & self.model_fields_set:
            raise ValueError("has neither a message nor a text")
        return self

    @property
    def content(self) -> Content:
        """The response."""
        message, text = self.message or Content(), self.text or Content()
        return message if message.text or not text.text else text._replace(beside=message.beside + text.beside)

    @property
    def ending(self) -> str | None:
        """The reason why the response ended, as the server gives it."""
        return self.finish_reason or ("error" if self.error else None)

    def log_likelihoods(self) -> list[float | None]:
        """Return the log-probability of each token, None for an unknown one; [] if the server reports none."""
        return self.logprobs.values() if self.logprobs else []


class _Details(BaseModel):
    reasoning_tokens: _Count = 0


class Usage(BaseModel):
    """The token counts of an answer, as reported by the server; 0 for unknown ones."""

    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    total_tokens: _Count = 0
    reasoning_tokens: _Count = 0
    completion_tokens_details: _Lenient[_Details] = None

    @model_validator(mode="after")
    def _complete(self) -> "Usage":
        self.total_tokens = self.total_tokens or self.prompt_tokens + self.completion_tokens
        if self.completion_tokens_details:
            self.reasoning_tokens = self.completion_tokens_details.reasoning_tokens or self.reasoning_tokens
        return self


class Answer(BaseModel):
    """An answer with at least one choice, of a chat or a completion; only the fields used here."""

    choices: list[Choice] = Field(min_length=1)
    usage: _Lenient[Usage] = None

    def ordered(self) -> list[Choice]:
        """Return the choices by their index, or as they come unless each has one of its own."""
        indices = {choice.index for choice in self.choices} - {None}
        if len(indices) < len(self.choices):
            return self.choices
        return sorted(self.choices, key=lambda choice: choice.index or 0)


def read_answer(body: bytes) -> Answer:
    """Read an answer. Raises MalformedAnswer for one without choices, or with a choice that has no known shape.

    Bytes that are not UTF-8, and halves of surrogate pairs, become U+FFFD.
    """
    text = body.decode("utf-8-sig", errors="replace")
    try:
        return _validated(json.loads(text, strict=False))
    except MalformedAnswer:
        raise
    except RecursionError:
        raise MalformedAnswer("the answer is nested too deeply") from None
    except ValueError as error:  # broken JSON, or a number of thousands of digits
        if text.lstrip().startswith(_STREAM):
            raise MalformedAnswer("the answer is a stream of events, which was not asked for") from None
        raise MalformedAnswer(f"the answer is not JSON: {error}") from None


def _validated(content: Any) -> Answer:
    if not isinstance(content, dict):
        raise MalformedAnswer(f"the answer is {_kind(content)}, not an object")
    if content.get("error") and not content.get("choices"):
        raise MalformedAnswer(f"the answer is an error: {_words_of(content['error'])}")
    try:
        return Answer.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the answer"
        raise MalformedAnswer(f"{place}: {fault['msg'].removeprefix('Value error, ')}") from None


def _words_of(error: Any) -> str:
    words = error.get("message") if isinstance(error, dict) else error
    return mended(words if isinstance(words, str) and words else json.dumps(error))
