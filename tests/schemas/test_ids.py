import hashlib

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import digest, digest_of, instruction_ids, pair_ids, seed_for, text_key

texts = st.text(st.characters(exclude_categories=["Cs"]))
parts = st.lists(st.none() | texts, max_size=5)


@given(parts, parts)
def test_digest_tells_lists_of_parts_apart(left: list[str | None], right: list[str | None]) -> None:
    assert (digest(*left) == digest(*right)) == (left == right)


@given(texts, st.lists(texts, min_size=1))
def test_ids_are_digests_however_many_share_a_prefix(prefix: str, rest: list[str]) -> None:
    pair, instruction = pair_ids(prefix), instruction_ids("d", None, prefix, "t")
    assert [pair(text) for text in rest] == [digest(prefix, text) for text in rest]
    assert [instruction(text) for text in rest] == [digest("d", None, prefix, "t", text) for text in rest]


def test_ids_are_blake2b_of_length_prefixed_texts() -> None:
    """The documented format, computed by hand: it must never change, since it names rows of published corpora."""
    plain = b"\x02" + b"\0" * 7 + b"hi" + b"\x03" + b"\0" * 7 + "é!".encode()
    assert pair_ids("hi")("é!") == digest_of(plain) == hashlib.blake2b(plain, digest_size=16).hexdigest()
    assert len(pair_ids("")("")) == 32
    assert instruction_ids("d", None, "train", "t")("f#1") != instruction_ids("d", "", "train", "t")("f#1")


@given(texts)
def test_text_key_is_64_bits(text: str) -> None:
    assert 0 <= text_key(text) < 2**64


def test_seeds_are_uniform_and_differ_by_seed_and_id() -> None:
    draws = [seed_for(7, "template", str(i)) for i in range(4000)]
    assert len(set(draws)) == 4000
    shares = [sum(draw >> 62 == quarter for draw in draws) / 4000 for quarter in range(4)]
    assert all(abs(share - 0.25) < 0.03 for share in shares)
    assert seed_for(7, "a", "b") != seed_for(8, "a", "b") != seed_for(8, "ab")
