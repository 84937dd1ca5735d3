"""Tokenization of (instruction, response) pairs, cut to the model's length by a truncation policy."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cappy_model.architectures import DECODERS
from cappy_model.score.templates import NONE, Render, Template, renderer
from schemas.errors import CappyError

LONGEST_FIRST = "longest_first"
KEEP_RESPONSE = "keep_response"
INSTRUCTION_FIRST = "instruction_first"
POLICIES = (LONGEST_FIRST, KEEP_RESPONSE)
"""Truncation policies for pairs without a template."""

MAX_LENGTH = 512
"""Tokens of a pair, special tokens included, for models that name no length (the paper's)."""
LONGEST = 8_192
"""Most tokens of a pair by default, for models that name a greater length."""
_UNNAMED = 10**9  # tokenizers write 10**30 where they know no length
_PROBE = ("a", "b")

# Families whose positions start after the padding id (fairseq's convention), so that some are never used.
_SHIFTED_POSITIONS = frozenset(
    {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text"}
    | {"mpnet", "longformer"}
)


class EncodedPairs(NamedTuple):
    """n encoded pairs, concatenated without padding.

    `tokens` int32[sum(lengths)]; `types` uint8[sum(lengths)], the segment ids; `lengths` int64[n]; `truncated` bool[n],
    whether the instruction or the response was cut; `groups` int64[n], equal for pairs of the same instruction.
    """

    tokens: np.ndarray
    types: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    groups: np.ndarray

    def take(self, rows: np.ndarray) -> "EncodedPairs":
        """Return the pairs at `rows` (int64[m]), in that order."""
        stops = np.cumsum(self.lengths)
        spans = [slice(stop - length, stop) for stop, length in zip(stops[rows], self.lengths[rows], strict=True)]
        tokens = np.concatenate([self.tokens[span] for span in spans])
        types = np.concatenate([self.types[span] for span in spans])
        return EncodedPairs(tokens, types, self.lengths[rows], self.truncated[rows], self.groups[rows])


class Encoder(Protocol):
    """Encodes pairs as at most `max_length` tokens; `policy` tells how longer ones are cut."""

    policy: str
    max_length: int

    def encode(self, instructions: Sequence[str], responses: Sequence[str]) -> EncodedPairs:
        """Encode the pairs (instructions[i], responses[i])."""


class _Frame(NamedTuple):
    """The special tokens around and between the two texts of a pair.

    `types`: the segment ids of the special tokens and, in their places, of the two texts.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    types: list[int]


class PairEncoder:
    """Encodes pairs as `tokenizer(instruction, response, truncation=policy, max_length=max_length)` would.

    Equal instructions, as those of several candidates, are tokenized once. `policy` is `longest_first` (transformers'
    own, used with the released Cappy) or `keep_response`: the response keeps half of the room, or all that the
    instruction leaves, and the instruction keeps its head and its tail. `prompt` is put before each instruction.
    Raises CappyError for a tokenizer without a Rust backend, an unknown policy, and a length without room for a pair.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, policy: str, max_length: int, prompt: str = "") -> None:
        self._backend = _backend(tokenizer)
        if policy not in POLICIES:
            raise CappyError(f"unknown truncation policy {policy!r}: choose from {', '.join(POLICIES)}")
        self._frame = _frame(self._backend)
        self._room = max_length - sum(map(len, self._frame[:3]))
        if self._room < 2:
            raise CappyError(f"a length of {max_length} tokens leaves no room for a pair; give 16 or more")
        if "token_type_ids" not in tokenizer.model_input_names:  # as in transformers, this model gets none
            self._frame = self._frame._replace(types=[0] * len(self._frame.types))
        self._from_left = tokenizer.truncation_side == "left"
        self._prompt, self.policy, self.max_length = prompt, policy, max_length

    def encode(self, instructions: Sequence[str], responses: Sequence[str]) -> EncodedPairs:
        """Encode the pairs (instructions[i], responses[i])."""
        place = _places(instructions)
        first = self._ids([self._prompt + text for text in place])
        pairs = [(first[place[text]], ids) for text, ids in zip(instructions, self._ids(responses), strict=True)]
        whole = np.array([(len(a), len(b)) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
        cut = keep_response if self.policy == KEEP_RESPONSE else longest_first
        kept = cut(whole, self._room)
        parts = [part for pair, keep in zip(pairs, kept.tolist(), strict=True) for part in self._cut(pair, keep)]
        before, between, after = map(len, self._frame[:3])
        special = np.ones((len(pairs), before + between + after), dtype=np.int64)
        sizes = np.insert(special, [before, before + between], kept, axis=1)
        types = np.tile(np.array(self._frame.types, dtype=np.uint8), len(pairs)).repeat(sizes.ravel())
        tokens = np.fromiter(chain.from_iterable(parts), np.int32, int(sizes.sum()))
        groups = np.array([place[text] for text in instructions], dtype=np.int64)
        return EncodedPairs(tokens, types, sizes.sum(axis=1), np.any(kept < whole, axis=1), groups)

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
    types = [*pair.type_ids[:a], pair.type_ids[a], *pair.type_ids[a_end:b], pair.type_ids[b], *pair.type_ids[b_end:]]
    return _Frame(pair.ids[:a], pair.ids[a_end:b], pair.ids[b_end:], types)


class TemplateEncoder:
    """Encodes pairs rendered by a template, as tokenizing each rendered text would.

    Where the text of a pair is longer than `max_length` tokens, the template stays whole: the instruction is cut
    first, to its head and its tail, and the response only where it alone is too long, again to its head and its tail.
    `special_tokens` tells whether the tokenizer adds its own, as encoders need; a chat template writes them itself.
    Raises CappyError for a length without room for a pair.
    """

    policy = INSTRUCTION_FIRST

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, render: Render, *, max_length: int, special_tokens: bool
    ) -> None:
        self._backend, self._render, self._special = _backend(tokenizer), render, special_tokens
        self._typed = "token_type_ids" in tokenizer.model_input_names
        self.max_length = max_length
        frame = len(self._encoded([render(*_PROBE)])[0].ids) - sum(len(self._offsets(text)) for text in _PROBE)
        self._room = max_length - frame
        if self._room < 2:
            raise CappyError(
                f"a length of {max_length} tokens leaves no room for a pair beside the {frame} tokens of the template; "
                f"give {frame + 16} or more"
            )

    def encode(self, instructions: Sequence[str], responses: Sequence[str]) -> EncodedPairs:
        """Encode the pairs (instructions[i], responses[i]). Raises what the template raises for a pair."""
        place, pairs = _places(instructions), list(zip(instructions, responses, strict=True))
        encoded = self._encoded([self._render(*pair) for pair in pairs])
        truncated = np.array([len(one.ids) > self.max_length for one in encoded], dtype=bool)
        encoded = [self._cut(*pair) if cut else one for pair, one, cut in zip(pairs, encoded, truncated, strict=True)]
        lengths = np.array([len(one.ids) for one in encoded], dtype=np.int64)
        tokens = np.fromiter(chain.from_iterable(one.ids for one in encoded), np.int32, int(lengths.sum()))
        types = np.zeros(len(tokens), dtype=np.uint8)
        if self._typed:
            types[:] = np.fromiter(chain.from_iterable(one.type_ids for one in encoded), np.uint8, len(tokens))
        groups = np.array([place[text] for text in instructions], dtype=np.int64)
        return EncodedPairs(tokens, types, lengths, truncated, groups)

    def _encoded(self, texts: list[str]) -> list[Any]:
        encoded: list[Any] = self._backend.encode_batch_fast(texts, add_special_tokens=self._special)
        return encoded

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the first and the last character (exclusive) of each token of a text by itself."""
        offsets: list[tuple[int, int]] = self._backend.encode(text, add_special_tokens=False).offsets
        return offsets

    def _cut(self, instruction: str, response: str) -> Any:
        """Encode a pair that is too long. Cut texts can have more tokens than were kept of them: then cut more."""
        first, second, room = self._offsets(instruction), self._offsets(response), self._room
        while room >= 0:
            kept = min(len(second), room)
            texts = (_head_and_tail(instruction, first, room - kept), _head_and_tail(response, second, kept))
            encoded = self._encoded([self._render(*texts)])[0]
            excess = len(encoded.ids) - self.max_length
            if excess <= 0:
                return encoded
            room -= excess
        raise CappyError(f"the template alone takes more than {self.max_length} tokens for this pair")


def _head_and_tail(text: str, offsets: list[tuple[int, int]], keep: int) -> str:
    """Cut a text to `keep` of its tokens, from its head and its tail; of an odd number one more from the tail."""
    if keep >= len(offsets):
        return text
    head, tail = keep // 2, keep - keep // 2
    before = text[: offsets[head - 1][1]] if head else ""
    return before + (text[offsets[len(offsets) - tail][0] :] if tail else "")


def _places(instructions: Sequence[str]) -> dict[str, int]:
    return {text: index for index, text in enumerate(dict.fromkeys(instructions))}


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the Rust tokenizer, which neither cuts nor pads."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CappyError(f"{type(tokenizer).__name__} has no tokenizer.json; save the model with a fast tokenizer")
    backend.no_truncation()
    backend.no_padding()
    return backend


def encoder_for(
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    *,
    template: Template | None = None,
    max_length: int | None = None,
) -> Encoder:
    """Return the encoder of a model and a template.

    The `cappy` block of the config may have `truncation`, the policy for pairs without a template (`longest_first` if
    absent), and `max_length`. Raises CappyError for a `max_length` beyond the model's positions.
    """
    block = getattr(config, "cappy", None) or {}
    positions = _positions(config)
    max_tokens = max_length or block.get("max_length") or _own_length(tokenizer, positions)
    if positions is not None and max_tokens > positions:
        raise CappyError(f"a length of {max_tokens} tokens: the model has {positions} positions; give at most that")
    template = template or Template()
    if template.kind == NONE:
        policy = block.get("truncation", LONGEST_FIRST)
        return PairEncoder(tokenizer, policy=policy, max_length=max_tokens, prompt=template.prompt)
    special = config.model_type not in DECODERS
    render = renderer(template, tokenizer)
    return TemplateEncoder(tokenizer, render, max_length=max_tokens, special_tokens=special)


def _positions(config: PreTrainedConfig) -> int | None:
    """Return the positions of a model; None where they are relative, without a limit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or -1
    if positions < 0:
        return None
    if config.model_type in _SHIFTED_POSITIONS:
        positions -= config.pad_token_id + 1
    return int(positions)


def _own_length(tokenizer: PreTrainedTokenizerBase, positions: int | None) -> int:
    """Return the length that model or tokenizer name, at most `LONGEST`; `MAX_LENGTH` if neither names one."""
    named = [length for length in (positions, tokenizer.model_max_length) if length and length < _UNNAMED]
    return min(*named, LONGEST) if named else MAX_LENGTH
