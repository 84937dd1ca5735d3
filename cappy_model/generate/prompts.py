"""Prompts -> token ids, cut where they are too long, on the side that is asked for."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cappy_model.checkpoints import ModelError
from cappy_model.generate.decodings import Drawing
from schemas.errors import UsageError

SIDES = ("left", "right")

ENCODER_TOKENS = 512
"""Tokens of a prompt that an encoder-decoder reads where nobody says otherwise (the paper's)."""

DECODER_TOKENS = 2_048
"""As `ENCODER_TOKENS`, for a decoder-only model."""


class EncodedPrompt(NamedTuple):
    """Token ids int64[n] as the model reads them, and whether the prompt was cut for it."""

    ids: np.ndarray
    truncated: bool


class PromptEncoder:
    """Encodes prompts of at most `max_tokens`, special tokens and the frame of a chat included.

    A longer one loses tokens on its `side`: left, as what stands last says what is to be done, or right. With `chat` it
    is the user's turn, in the tokenizer's own chat template. Safe to use from several threads.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, side: str, chat: bool) -> None:
        if side not in SIDES:
            raise UsageError(f"truncation side {side!r} is not known; there are {', '.join(SIDES)}")
        if chat and not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template; leave --chat out, or give a model made for chats")
        self._tokenizer, self._chat = tokenizer, chat
        self.max_tokens, self.side = max_tokens, side
        self._lock = threading.Lock()  # cutting is a state of the tokenizer
        self._room = max_tokens - self._frame_tokens()
        if self._room < 1:
            raise UsageError(f"prompts of {max_tokens} tokens leave no room beside special tokens; allow more")

    def encode(self, prompts: Sequence[str]) -> list[EncodedPrompt]:
        """Each prompt encoded, in order."""
        if not prompts:
            return []
        with self._lock:
            whole = self._ids(prompts)
            return [
                EncodedPrompt(np.array(ids), False)
                if len(ids) <= self.max_tokens
                else EncodedPrompt(np.array(self._cut(text)), True)
                for text, ids in zip(prompts, whole, strict=True)
            ]

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        if self._chat:
            prompts = [self._framed(prompt) for prompt in prompts]
        found: list[list[int]] = self._tokenizer(list(prompts), add_special_tokens=not self._chat, verbose=False)[
            "input_ids"
        ]
        return found

    def _framed(self, prompt: str) -> str:
        turn = [{"role": "user", "content": prompt}]
        return str(self._tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def _cut(self, prompt: str) -> list[int]:
        """The ids of a prompt that is too long: cut as ids, or in a chat as text, so that its frame stays whole."""
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
            room -= len(ids) - self.max_tokens  # cut texts can need more tokens than they were made of

    def _frame_tokens(self) -> int:
        return len(self._ids([""])[0])


def prompt_encoder(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, drawing: Drawing) -> PromptEncoder:
    """The encoder of prompts for a model: its length and side where `drawing` does not name them.

    An encoder-decoder reads `ENCODER_TOKENS` and is cut on the right, as in the paper's code; a decoder-only model
    `DECODER_TOKENS`, cut on the left, as a prompt ends with what is to be answered; neither more than its positions.
    Raises UsageError for a `max_prompt_tokens` beyond them.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    usual = ENCODER_TOKENS if config.is_encoder_decoder else DECODER_TOKENS
    room = positions if config.is_encoder_decoder else positions - drawing.max_new_tokens
    if positions > 0:
        usual = min(usual, room)
    wanted = drawing.max_prompt_tokens or usual
    if positions > 0 and room < wanted:
        raise UsageError(
            f"--max-prompt-tokens {wanted}: the model has {positions} positions, which leave {room} for a prompt"
        )
    side = drawing.truncation_side or ("right" if config.is_encoder_decoder else "left")
    return PromptEncoder(tokenizer, max_tokens=wanted, side=side, chat=drawing.chat)


def padded(ids: list[np.ndarray], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask int64[n, longest] of prompts, padded on one side."""
    longest = max(map(len, ids))
    found, mask = np.full((len(ids), longest), pad), np.zeros((len(ids), longest), dtype=np.int64)
    for row, one in enumerate(ids):
        span = slice(longest - len(one), None) if left else slice(len(one))
        found[row, span], mask[row, span] = one, 1
    return torch.from_numpy(found), torch.from_numpy(mask)
