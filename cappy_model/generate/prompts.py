"""Tokenization of prompts, and truncation of long ones on either side."""

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cappy_model.checkpoints import ModelError
from cappy_model.generate.decodings import Drawing
from schemas.errors import UsageError

SIDES = ("left", "right")

ENCODER_TOKENS = 512
"""Default maximum tokens of a prompt for an encoder-decoder (the paper's)."""

DECODER_TOKENS = 2_048
"""Default maximum tokens of a prompt for a decoder-only model."""

_MARK = "the prompt"


class EncodedPrompt(NamedTuple):
    """Token ids int64[n] of a prompt, special tokens included, and whether the prompt was cut.

    A prompt that the chat template refuses has no tokens, and the `error`.
    """

    ids: np.ndarray
    truncated: bool
    error: str | None = None


class PromptEncoder:
    """Encodes prompts as at most `max_tokens` tokens, special tokens and the chat template included; thread-safe.

    Longer prompts are cut on the `side` left or right. With `chat` the prompt is the user's turn in the tokenizer's own
    chat template. Raises UsageError for an unknown side and for `max_tokens` without room for a prompt, ModelError for
    a tokenizer without a chat template, or with one that shows no user's turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, side: str, chat: bool) -> None:
        if side not in SIDES:
            raise UsageError(f"unknown truncation side {side!r}: choose from {', '.join(SIDES)}")
        if chat:
            _check_chat_template(tokenizer)
        self._tokenizer, self._chat = tokenizer, chat
        self.max_tokens, self.side = max_tokens, side
        self._lock = threading.Lock()  # the tokenizer keeps the truncation as its state
        self._room = max_tokens - self._frame_tokens()
        if self._room < 1:
            raise UsageError(f"prompts of {max_tokens} tokens have no room besides special tokens; allow more")

    def encode(self, prompts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode the prompts, in order."""
        with self._lock:
            errors = dict(self._refused(prompts)) if self._chat else {}
            accepted = [place for place in range(len(prompts)) if place not in errors]
            encoded = {place: EncodedPrompt(np.empty(0, np.int64), False, error) for place, error in errors.items()}
            for place, ids in zip(accepted, self._ids([prompts[place] for place in accepted]), strict=True):
                cut = len(ids) > self.max_tokens
                encoded[place] = EncodedPrompt(np.array(self._cut(prompts[place]) if cut else ids), cut)
            return [encoded[place] for place in range(len(prompts))]

    def _refused(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield the position and the error of each prompt that the chat template cannot show."""
        for place, prompt in enumerate(prompts):
            try:
                self._framed(prompt)
            except Exception as error:  # a template raises errors of any type
                yield place, f"the chat template refuses it: {type(error).__name__}: {error}"

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        if not prompts:
            return []
        if self._chat:
            prompts = [self._framed(prompt) for prompt in prompts]
        encoded = self._tokenizer(list(prompts), add_special_tokens=not self._chat, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _framed(self, prompt: str) -> str:
        turn = [{"role": "user", "content": prompt}]
        return str(self._tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def _cut(self, prompt: str) -> list[int]:
        """Cut the ids of a prompt that is too long; in a chat cut its text, so that the template stays complete."""
        self._tokenizer.truncation_side = self.side
        if not self._chat:
            ids: list[int] = self._tokenizer(prompt, truncation=True, max_length=self.max_tokens)["input_ids"]
            return ids
        own = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        room = self._room
        while True:
            kept = own[-room:] if self.side == "left" else own[:room]
            ids = self._ids([str(self._tokenizer.decode(kept))])[0]
            if len(ids) <= self.max_tokens:
                return ids
            room -= len(ids) - self.max_tokens  # the decoded text can have more tokens than were kept

    def _frame_tokens(self) -> int:
        return len(self._ids([""])[0])


def _check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError unless the tokenizer has one chat template to use, which renders a user's turn."""
    template = tokenizer.chat_template
    if not template:
        raise ModelError("the tokenizer has no chat template; leave --chat out, or give a chat model")
    if isinstance(template, dict) and "default" not in template:
        raise ModelError(
            f"the tokenizer has several chat templates ({', '.join(sorted(template))}), and none is the default; save "
            "the one to use as chat_template.jinja beside its tokenizer.json"
        )
    try:
        text = str(tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False))
    except Exception as error:  # a template raises errors of any type, for a missing system turn among others
        raise ModelError(f"the chat template of the tokenizer cannot show a user's turn: {error}") from error
    if _MARK not in text:
        raise ModelError("the chat template of the tokenizer does not show a user's turn; leave --chat out")


def prompt_encoder(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, drawing: Drawing) -> PromptEncoder:
    """Return the prompt encoder of a model, with its default length and side unless `drawing` has them.

    For an encoder-decoder these are `ENCODER_TOKENS`, cut on the right, as in the paper's code; for a decoder-only
    model `DECODER_TOKENS`, cut on the left, since a prompt ends with the question; but at most the model's positions.
    Raises UsageError for a `max_prompt_tokens` beyond these positions.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    default = ENCODER_TOKENS if config.is_encoder_decoder else DECODER_TOKENS
    room = positions if config.is_encoder_decoder else positions - drawing.max_new_tokens
    if positions > 0:
        default = min(default, room)
    max_tokens = drawing.max_prompt_tokens or default
    if positions > 0 and room < max_tokens:
        raise UsageError(
            f"--max-prompt-tokens {max_tokens}: the model has {positions} positions, which leave {room} for a prompt"
        )
    side = drawing.truncation_side or ("right" if config.is_encoder_decoder else "left")
    return PromptEncoder(tokenizer, max_tokens=max_tokens, side=side, chat=drawing.chat)


def padded(ids: list[np.ndarray], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad prompts on the left or the right: ids and mask, both int64[n, longest]."""
    longest = max(map(len, ids))
    tokens, mask = np.full((len(ids), longest), pad), np.zeros((len(ids), longest), dtype=np.int64)
    for row, one in enumerate(ids):
        span = slice(longest - len(one), None) if left else slice(len(one))
        tokens[row, span], mask[row, span] = one, 1
    return torch.from_numpy(tokens), torch.from_numpy(mask)
