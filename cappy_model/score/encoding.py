"""Tokenization of (instruction, response) pairs, cut to the model's length by a truncation policy."""

import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from schemas.errors import CappyError

LONGEST_FIRST = "longest_first"
KEEP_RESPONSE = "keep_response"
POLICIES = (LONGEST_FIRST, KEEP_RESPONSE)
MAX_LENGTH = 512
"""Default tokens of a pair, special tokens included (the paper's)."""

# Families whose positions start after the padding id (fairseq's convention), so that some are never used.
_SHIFTED_POSITIONS = frozenset(
    {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text"}
    | {"mpnet", "longformer"}
)


class EncodedPairs(NamedTuple):
    """n encoded pairs, concatenated without padding.

    `tokens` int32[sum(lengths)]; `types` uint8[sum(lengths)], the segment ids; `lengths` int64[n]; `truncated` bool[n],
    whether the instruction or the response was cut.
    """

    tokens: np.ndarray
    types: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray

    def take(self, rows: np.ndarray) -> "EncodedPairs":
        """Return the pairs at `rows` (int64[m]), in that order."""
        stops = np.cumsum(self.lengths)
        spans = [slice(stop - length, stop) for stop, length in zip(stops[rows], self.lengths[rows], strict=True)]
        tokens = np.concatenate([self.tokens[span] for span in spans])
        types = np.concatenate([self.types[span] for span in spans])
        return EncodedPairs(tokens, types, self.lengths[rows], self.truncated[rows])


class _Frame(NamedTuple):
    """The special tokens around and between the two texts of a pair, and the segment ids of all five parts."""

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[int, int, int, int, int]


class PairEncoder:
    """Encodes pairs as `tokenizer(instruction, response, truncation=policy, max_length=max_length)` would.

    Equal instructions, as those of several candidates, are tokenized once. `policy` is `longest_first` (transformers'
    own, used with the released Cappy) or `keep_response`: the response keeps half of the room, or all that the
    instruction leaves, and the instruction keeps its head and its tail.
    Raises CappyError for a tokenizer without a Rust backend, an unknown policy, and a length without room for a pair.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, policy: str, max_length: int) -> None:
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise CappyError(f"{type(tokenizer).__name__} has no tokenizer.json; save the model with a fast tokenizer")
        if policy not in POLICIES:
            raise CappyError(f"unknown truncation policy {policy!r}: choose from {', '.join(POLICIES)}")
        self._backend.no_truncation()
        self._backend.no_padding()
        self._frame = _frame(self._backend)
        self._room = max_length - sum(map(len, self._frame[:3]))
        if self._room < 2:
            raise CappyError(f"a length of {max_length} tokens leaves no room for a pair; give 16 or more")
        if "token_type_ids" not in tokenizer.model_input_names:  # as in transformers, this model gets none
            self._frame = self._frame._replace(types=(0, 0, 0, 0, 0))
        self._from_left = tokenizer.truncation_side == "left"
        self.policy, self.max_length = policy, max_length

    def encode(self, instructions: Sequence[str], responses: Sequence[str]) -> EncodedPairs:
        """Encode the pairs (instructions[i], responses[i])."""
        place = {text: index for index, text in enumerate(dict.fromkeys(instructions))}
        first = self._ids(list(place))
        pairs = [(first[place[text]], ids) for text, ids in zip(instructions, self._ids(responses), strict=True)]
        whole = np.array([(len(a), len(b)) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
        cut = keep_response if self.policy == KEEP_RESPONSE else longest_first
        kept = cut(whole, self._room)
        parts = [part for pair, keep in zip(pairs, kept.tolist(), strict=True) for part in self._cut(pair, keep)]
        sizes = np.array([len(part) for part in parts], dtype=np.int64).reshape(-1, 5)
        types = np.tile(np.array(self._frame.types, dtype=np.uint8), len(pairs)).repeat(sizes.ravel())
        tokens = np.fromiter(chain.from_iterable(parts), np.int32, int(sizes.sum()))
        return EncodedPairs(tokens, types, sizes.sum(axis=1), np.any(kept < whole, axis=1))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoded.ids for encoded in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _cut(self, pair: tuple[list[int], list[int]], keep: list[int]) -> tuple[list[int], ...]:
        (instruction, response), (a, b) = pair, keep
        if a < len(instruction) and self.policy == KEEP_RESPONSE:
            instruction = instruction[: a - a // 2] + instruction[len(instruction) - a // 2 :]
        elif self._from_left:
            instruction, response = instruction[len(instruction) - a :], response[len(response) - b :]
        return self._frame.before, instruction[:a], self._frame.between, response[:b], self._frame.after


def longest_first(lengths: np.ndarray, room: int) -> np.ndarray:
    """Return the tokens that each text of a pair keeps, int64[n, 2], so that both fit into `room`.

    `lengths` int64[n, 2]. As transformers' `longest_first`: cut the longer text until both are equal, then both.
    """
    short, long = lengths.min(axis=1), lengths.max(axis=1)
    shorter, longer = short.copy(), np.maximum(short, room - short)
    both = shorter + longer > room
    shorter[both], longer[both] = room // 2, room // 2 + room % 2
    swapped = lengths[:, 0] > lengths[:, 1]
    cut = np.where(swapped[:, None], np.stack([longer, shorter], axis=1), np.stack([shorter, longer], axis=1))
    return np.where((short + long > room)[:, None], np.minimum(cut, lengths), lengths)


def keep_response(lengths: np.ndarray, room: int) -> np.ndarray:
    """Do as `longest_first`, but the response keeps half of the room, or all that the instruction leaves."""
    instruction, response = lengths[:, 0], lengths[:, 1]
    kept = np.minimum(response, np.maximum(room // 2, room - instruction))
    return np.stack([np.minimum(instruction, room - kept), kept], axis=1)


def _frame(backend: Any) -> _Frame:
    """Find the special tokens that a tokenizer puts around a pair, by encoding one."""
    pair = backend.encode("a", "b", add_special_tokens=True)
    places = [[i for i, text in enumerate(pair.sequence_ids) if text == side] for side in (0, 1)]
    if not all(places):
        raise CappyError(
            "the tokenizer has no tokens for plain text; check that the model's folder has its tokenizer.json"
        )
    (a, a_end), (b, b_end) = ((place[0], place[-1] + 1) for place in places)
    segments = (slice(0, a), slice(a, a_end), slice(a_end, b), slice(b, b_end), slice(b_end, None))
    types = tuple(next(iter(pair.type_ids[segment]), 0) for segment in segments)
    return _Frame(pair.ids[:a], pair.ids[a_end:b], pair.ids[b_end:], types)  # type: ignore[arg-type]


def encoder_for(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, *, max_length: int | None = None
) -> PairEncoder:
    """Return the encoder of a model: the `cappy` block of its config may have `truncation` and `max_length`.

    Without them, pairs are cut `longest_first` at 512 tokens, or at the model's positions if these are fewer.
    Raises CappyError for a `max_length` beyond the model's positions.
    """
    block = getattr(config, "cappy", None) or {}
    positions = getattr(config, "max_position_embeddings", None) or -1
    if positions < 0:
        positions = sys.maxsize  # relative positions have no limit
    elif config.model_type in _SHIFTED_POSITIONS:
        positions -= config.pad_token_id + 1
    max_tokens = max_length or block.get("max_length") or min(MAX_LENGTH, positions, tokenizer.model_max_length)
    if max_tokens > positions:
        raise CappyError(f"a length of {max_tokens} tokens: the model has {positions} positions; give at most that")
    return PairEncoder(tokenizer, policy=block.get("truncation", LONGEST_FIRST), max_length=max_tokens)
