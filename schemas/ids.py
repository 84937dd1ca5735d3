"""Stable identifiers and seeds.

Every identifier is a hash of stable properties, never of a position in a run, and every random choice uses
`seed_for`, so the same inputs give the same bytes on any runner, with any number of workers and retries.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

DIGEST_BYTES = 16
_NULL = b"\xff" * 8


def _feed(state: "hashlib.blake2b", parts: tuple[str | None, ...]) -> "hashlib.blake2b":
    for part in parts:
        if part is None:
            state.update(_NULL)
        else:
            data = part.encode()
            state.update(len(data).to_bytes(8, "little") + data)
    return state


def _hasher(*parts: str | None) -> "hashlib.blake2b":
    return _feed(hashlib.blake2b(digest_size=DIGEST_BYTES), parts)


def _extend(prefix: "hashlib.blake2b", part: str) -> str:
    return _feed(prefix.copy(), (part,)).hexdigest()


def digest(*parts: str | None) -> str:
    """Return the 128-bit blake2b of the length-prefixed `parts` as 32 hex characters; None differs from ""."""
    return _hasher(*parts).hexdigest()


def digest_of(data: bytes) -> str:
    """Return the 128-bit blake2b of bytes as 32 hex characters."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def pair_ids(instruction: str) -> Callable[[str], str]:
    """Return a function from a response to the identifier of its pair, which depends on the two texts alone.

    The instruction is hashed once, for all of its responses.
    """
    return partial(_extend, _hasher(instruction))


def pair_keys(instructions: Sequence[str], responses: Sequence[str]) -> Iterator[bytes]:
    """Yield the identifier of each pair (instructions[i], responses[i]) as `pair_ids` makes it, as 16 bytes."""
    for instruction, response in zip(instructions, responses, strict=True):
        first, second = instruction.encode(), response.encode()
        data = len(first).to_bytes(8, "little") + first + len(second).to_bytes(8, "little") + second
        yield hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def instruction_ids(dataset: str, subset: str | None, split: str | None, template_id: str) -> Callable[[str], str]:
    """Return a function from an example_id to the instruction_id of that example rendered by one template."""
    return partial(_extend, _hasher(dataset, subset, split, template_id))


def text_key(text: str) -> int:
    """Return a 64-bit unsigned hash of a text; it decides the shard of an instruction and its order in the shard."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def seed_for(seed: int, *stable_id: str | None) -> int:
    """Return a uniform 64-bit unsigned integer for the run's `seed` and an identifier independent of the run."""
    return int.from_bytes(_hasher(str(seed), *stable_id).digest()[:8], "big")
