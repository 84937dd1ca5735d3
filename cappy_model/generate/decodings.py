"""How responses are drawn from a language model: decodings by name, and what every engine is told and gives back.

Without torch, so that a launcher can check a command line, and an engine behind a web API needs no model here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from schemas.errors import CappyError, UsageError


class GenerationError(CappyError):
    """An engine that cannot generate at all, whatever the prompt."""


@dataclass(frozen=True)
class Decoding:
    """A way of drawing `samples` responses to a prompt, with exactly the filters it names.

    `beams` > 1 is a beam search, whose best hypothesis is its one sample; `temperature` 0 takes the likeliest token
    each time. `top_k` tokens at most, `top_p` the least probability of those kept; None: every token.
    """

    name: str
    samples: int = 1
    beams: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense, alone or together."""
        for wrong, what in (
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
                raise UsageError(f"decoding {self.name!r}: {what}")

    @property
    def random(self) -> bool:
        """Whether its responses are samples."""
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
"""Decodings by name. All but `greedy` are the paper's (tanyuqian/cappy): 17 candidates of an instruction."""

PAPER = ("beam4", "sampling", "temp0.9", "topk40", "topp0.95")


def decodings_named(names: Sequence[str], custom: Mapping[str, Decoding]) -> tuple[Decoding, ...]:
    """The decodings of these names, of `custom` ones or presets. Raises UsageError for one unknown, or named twice."""
    known = {**PRESETS, **custom}
    for name in names:
        if name not in known:
            raise UsageError(f"decoding {name!r} is not known; there are {', '.join(known)}")
        if list(names).count(name) > 1:
            raise UsageError(f"decoding {name!r} is named twice")
    return tuple(known[name] for name in names)


@dataclass(frozen=True)
class Drawing:
    """What is drawn for each prompt, by whatever engine: the decodings, `min_new_tokens` to `max_new_tokens` each.

    A response ends before the first of the texts in `stop`. With `chat` the prompt is the user's turn of a chat.
    `max_prompt_tokens`: longer prompts are cut, at the side that `truncation_side` (left or right) names; None: by the
    model.
    """

    decodings: tuple[Decoding, ...]
    max_new_tokens: int = 64
    min_new_tokens: int = 3
    stop: tuple[str, ...] = ()
    chat: bool = False
    max_prompt_tokens: int | None = None
    truncation_side: str | None = None


class Sample(NamedTuple):
    """One response. `finish_reason`: `stop` (it ended by itself or at a stop text), `length` (cut), or as an API says.

    The log-likelihood is the model's own, before any filter, summed and averaged over `num_tokens`: the tokens of the
    response and the end token, where it has one. None where the engine does not tell.
    """

    decoding: str
    sample_index: int
    response: str
    finish_reason: str | None
    log_likelihood_sum: float | None
    log_likelihood_mean: float | None
    num_tokens: int


class Failure(NamedTuple):
    """Why there is no response to a prompt: a short stable code, and the detail."""

    reason: str
    detail: str


class Drawn(NamedTuple):
    """What came of a prompt: its samples in the order of the decodings, or why there are none.

    `prompt_tokens` as the model read them, 0 where that is not known; `truncated`: whether the prompt was cut.
    """

    samples: tuple[Sample, ...]
    failure: Failure | None
    prompt_tokens: int
    truncated: bool


class Engine(Protocol):
    """Something that draws responses; safe to use from several threads."""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        """What came of each prompt, in order. Equal prompts with equal seeds (64 bit) give the same samples again, as
        far as the engine can promise. Raises GenerationError when no prompt could be served."""

    def out_of_memory(self) -> int:
        """How often memory ran out and a batch was halved, so far."""
