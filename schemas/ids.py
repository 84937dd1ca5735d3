"""Stable identifiers and seeds.

Every identifier is a hash of named facts (never of a position in a run), and every random choice is drawn from
`seed_for`, so that the same inputs give the same bytes whatever the runner, the number of workers and the retries.
"""

import hashlib
from collections.abc import Callable
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
    """The 128-bit blake2b of the length-prefixed `parts`, as 32 hex characters. None differs from the empty string."""
    return _hasher(*parts).hexdigest()


def digest_of(data: bytes) -> str:
    """The 128-bit blake2b of bytes as they are, as 32 hex characters."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def pair_ids(instruction: str) -> Callable[[str], str]:
    """From a response to the identifier of the (instruction, response) pair: a function of the two texts alone.

    An instruction that has many responses is hashed once.
    """
    return partial(_extend, _hasher(instruction))


def instruction_ids(dataset: str, subset: str | None, split: str | None, template_id: str) -> Callable[[str], str]:
    """From an example_id to the identifier of that example of a dataset as rendered by one template."""
    return partial(_extend, _hasher(dataset, subset, split, template_id))


def text_key(text: str) -> int:
    """64-bit unsigned hash of a text: decides the shard of an instruction, and its place in the shard."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def seed_for(seed: int, *stable_id: str | None) -> int:
    """A uniform 64-bit unsigned integer for the run's `seed` and an identifier that does not depend on the run."""
    return int.from_bytes(_hasher(str(seed), *stable_id).digest()[:8], "big")
