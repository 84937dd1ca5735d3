"""Decodings by name, and the interface of engines: their settings and their results.

Without torch, for the check of a command line, and for engines behind a web API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cappy_model.work import ProgressCallback
from schemas.errors import CappyError, UsageError


class GenerationError(CappyError):
    """An engine that fails for every prompt."""


@dataclass(frozen=True)
class Decoding:
    """A decoding method: how `samples` responses to a prompt are generated, with no other filter than those named.

    `beams` > 1 is a beam search, whose best hypothesis is the one sample; `temperature` 0 is greedy. `top_k`: maximum
    tokens to sample from; `top_p`: minimum total probability of the tokens to sample from; None: no filter.
    """

    name: str
    samples: int = 1
    beams: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for values that are invalid, alone or together."""
        for wrong, reason in (
            (not self.name, "has no name"),
            (self.samples < 1, f"samples is {self.samples}, and must be 1 or more"),
            (self.beams < 1, f"beams is {self.beams}, and must be 1 or more"),
            (self.temperature < 0, f"temperature is {self.temperature}, and must be 0 or more"),
            (self.top_k is not None and self.top_k < 1, f"top_k is {self.top_k}, and must be 1 or more"),
            (self.top_p is not None and not 0 < self.top_p <= 1, f"top_p is {self.top_p}, and must be in (0, 1]"),
            (self.samples > 1 and not self.random, f"{self.samples} samples would be the same, as nothing is random"),
            (
                not self.random and (self.top_k is not None or self.top_p is not None),
                "top_k and top_p are filters of sampling; a beam search, and a temperature of 0, take no samples",
            ),
            (self.beams > 1 and self.temperature != 1, "a beam search has no temperature"),
        ):
            if wrong:
                raise UsageError(f"decoding {self.name!r}: {reason}")

    @property
    def random(self) -> bool:
        """Whether responses are sampled at random."""
        return self.beams == 1 and self.temperature > 0


PRESETS: Mapping[str, Decoding] = {
    decoding.name: decoding
    for decoding in (
        Decoding("beam4", beams=4),
        Decoding("sampling", samples=4),
        Decoding("temp0.9", samples=4, temperature=0.9),
        Decoding("topk40", samples=4, top_k=40),
        Decoding("topp0.95", samples=4, top_p=0.95),
        Decoding("greedy", temperature=0.0),
    )
}
"""Decodings by name. All but `greedy` are the paper's (tanyuqian/cappy): 17 candidates per instruction."""

PAPER = ("beam4", "sampling", "temp0.9", "topk40", "topp0.95")


def decodings_named(names: Sequence[str], custom: Mapping[str, Decoding]) -> tuple[Decoding, ...]:
    """Look up decodings in `custom` and the presets. Raises UsageError for an unknown or repeated name."""
    available = {**PRESETS, **custom}
    for name in names:
        if name not in available:
            raise UsageError(f"unknown decoding {name!r}: choose from {', '.join(available)}")
        if list(names).count(name) > 1:
            raise UsageError(f"decoding {name!r} is named twice")
    return tuple(available[name] for name in names)


@dataclass(frozen=True)
class Drawing:
    """The generation settings of any engine: the decodings of each prompt, and the limits of prompts and responses.

    A response has `min_new_tokens` to `max_new_tokens` tokens, and ends before the first of the texts in `stop`. With
    `chat` the prompt is the user's turn of a chat. Prompts of more than `max_prompt_tokens` are cut at the
    `truncation_side` (left or right); None: the default of the model.
    """

    decodings: tuple[Decoding, ...]
    max_new_tokens: int = 64
    min_new_tokens: int = 3
    stop: tuple[str, ...] = ()
    chat: bool = False
    max_prompt_tokens: int | None = None
    truncation_side: str | None = None


REASONING = "reasoning"
"""The name of a model's reasoning among what is `beside` a response."""


class Sample(NamedTuple):
    """One response. `finish_reason`: `stop` (an end token or a stop text), `length` (cut), or the reason of an API.

    The log-likelihood is the model's own, before any filter, summed and averaged over `num_tokens`: the tokens of the
    response and its end token, if any. None if the engine does not report it. `beside` names what an API returned
    beside the response: `reasoning`, `refusal`, `tool_calls`, or the type of another part of the message.
    """

    decoding: str
    sample_index: int
    response: str
    finish_reason: str | None
    log_likelihood_sum: float | None
    log_likelihood_mean: float | None
    num_tokens: int
    beside: tuple[str, ...] = ()


class Failure(NamedTuple):
    """The reason why a prompt has no response: a short stable code, and the detail."""

    reason: str
    detail: str


CONCESSIONS: Mapping[str, str] = {
    "max_completion_tokens": "the server takes max_tokens in place of max_completion_tokens",
    "seed": "the server takes no seed, so the same command may give other samples",
    "top_p": "the server refuses top_p, so its own default holds where a decoding has none",
    "temperature": "the server refuses temperature, so its own default holds where a decoding has temperature 1",
    "n": "the server gives one choice per request, so the samples of a decoding are requested one by one",
}
"""The parameters of an API that can be done without, with the consequence. The last one is tried last."""


class Drawn(NamedTuple):
    """The result of a prompt: its samples in the order of the decodings, or a failure.

    `prompt_tokens`: tokens that the model read, 0 if unknown; `truncated`: whether the prompt was cut; `concessions`:
    the parameters (of `CONCESSIONS`) that an API refuses and that were asked for otherwise, or not at all.
    """

    samples: tuple[Sample, ...]
    failure: Failure | None
    prompt_tokens: int
    truncated: bool
    concessions: tuple[str, ...] = ()


class Engine(Protocol):
    """A generator of responses; thread-safe."""

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], *, on_progress: ProgressCallback | None = None
    ) -> list[Drawn]:
        """Generate the responses to each prompt, in order; `seeds` are 64-bit, one for each prompt.

        Equal prompts with equal seeds give equal samples, as far as the engine can guarantee it. `on_progress` counts
        prompts, parts of one included; any thread may call it. Raises GenerationError if no prompt could be served.
        """

    def out_of_memory(self) -> int:
        """Return the number of out-of-memory errors so far; each has halved a batch."""
