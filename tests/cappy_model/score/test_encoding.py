"""Encoding against transformers' own call of the tokenizer, and the policy that keeps the response."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import (
    AutoTokenizer,
    BertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from cappy_model.score.encoding import (
    KEEP_RESPONSE,
    LONGEST_FIRST,
    EncodedPairs,
    PairEncoder,
    encoder_for,
    keep_response,
    longest_first,
)
from schemas.errors import CappyError
from tests.cappy_model.models import tiny_tokenizer
from tests.conftest import SHARED, needs_shared

FAMILIES = ("roberta", "bert")
REFERENCE = {family: tiny_tokenizer(family) for family in FAMILIES}
ENCODERS = {
    (family, length): PairEncoder(tiny_tokenizer(family), policy=LONGEST_FIRST, max_length=length)
    for family in FAMILIES
    for length in (16, 17, 64)
}
TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(["the", "fox", "</s>", "<pad>", "[SEP]", "\n", " ", "你好", "wörld", ""]), max_size=30
).map(" ".join)


def one(pairs: EncodedPairs, index: int) -> tuple[list[int], list[int]]:
    stop = int(pairs.lengths[: index + 1].sum())
    span = slice(stop - int(pairs.lengths[index]), stop)
    return pairs.tokens[span].tolist(), pairs.types[span].tolist()


def check_like_transformers(encoder: PairEncoder, reference: Any, pairs: list[tuple[str, str]]) -> None:
    instructions, responses = map(list, zip(*pairs, strict=True))
    found = encoder.encode(instructions, responses)
    wanted = reference(instructions, responses, truncation="longest_first", max_length=encoder.max_length)
    whole = reference(instructions, responses)["input_ids"]
    for index, ids in enumerate(wanted["input_ids"]):
        tokens, types = one(found, index)
        assert tokens == ids
        if "token_type_ids" in wanted:
            assert types == wanted["token_type_ids"][index]
        assert found.truncated[index] == (len(whole[index]) > encoder.max_length)


@pytest.mark.parametrize("place", ENCODERS)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_as_transformers_encodes_pairs(place: tuple[str, int], pairs: list[tuple[str, str]]) -> None:
    check_like_transformers(ENCODERS[place], REFERENCE[place[0]], [*pairs, pairs[0]])


@needs_shared
def test_as_transformers_with_the_real_vocabulary() -> None:
    import pyarrow.parquet as pq

    folder = SHARED / "models" / "roberta_tokenizer"
    rows = pq.read_table(SHARED / "data" / "candidates" / "alpaca_eval.parquet", columns=["instruction", "response"])
    pairs = [(row["instruction"], row["response"]) for row in rows.slice(0, 2000).to_pylist()]
    encoder = PairEncoder(AutoTokenizer.from_pretrained(folder), policy=LONGEST_FIRST, max_length=512)
    check_like_transformers(encoder, AutoTokenizer.from_pretrained(folder), pairs)


def test_truncation_from_the_left_is_the_tokenizers_choice() -> None:
    tokenizer, reference = tiny_tokenizer("bert"), tiny_tokenizer("bert")
    tokenizer.truncation_side = reference.truncation_side = "left"
    encoder = PairEncoder(tokenizer, policy=LONGEST_FIRST, max_length=16)
    check_like_transformers(encoder, reference, [("the quick brown fox " * 9, "yes no maybe " * 9), ("a", "b " * 40)])


LENGTHS = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=1).map(
    lambda rows: np.array(rows, dtype=np.int64)
)


@pytest.mark.parametrize("policy", [longest_first, keep_response])
@given(LENGTHS, st.integers(2, 600))
def test_both_texts_fit_and_nothing_is_cut_for_nothing(policy: Any, lengths: np.ndarray, room: int) -> None:
    kept = policy(lengths, room)
    whole = lengths.sum(axis=1)
    assert ((kept >= 0) & (kept <= lengths)).all()
    assert (kept.sum(axis=1) == np.minimum(whole, room)).all()


@given(LENGTHS)
def test_the_response_keeps_254_tokens_or_more(lengths: np.ndarray) -> None:
    kept = keep_response(lengths, 508)
    assert (kept[:, 1] >= np.minimum(lengths[:, 1], 254)).all()


def test_keep_response_keeps_head_and_tail_of_the_instruction() -> None:
    encoder = PairEncoder(tiny_tokenizer("bert"), policy=KEEP_RESPONSE, max_length=15)
    plain = tiny_tokenizer("bert")
    instruction, response = "0 1 2 3 4 5 6 7 8 9", "yes"
    tokens, _ = one(encoder.encode([instruction], [response]), 0)
    body = plain(response, add_special_tokens=False)["input_ids"]
    kept = 15 - 3 - len(body)
    ids = plain(instruction, add_special_tokens=False)["input_ids"]
    assert len(ids) > kept
    assert tokens[1 : 1 + kept] == ids[: kept - kept // 2] + ids[len(ids) - kept // 2 :]
    assert tokens[2 + kept : -1] == body


def test_what_the_model_says_of_truncation_and_length() -> None:
    tokenizer = tiny_tokenizer("roberta")
    config = RobertaConfig(max_position_embeddings=66, pad_token_id=1)
    assert (encoder_for(tokenizer, config).policy, encoder_for(tokenizer, config).max_length) == (LONGEST_FIRST, 64)
    config.cappy = {"truncation": "keep_response", "max_length": 32}
    assert (encoder_for(tokenizer, config).policy, encoder_for(tokenizer, config).max_length) == (KEEP_RESPONSE, 32)
    assert encoder_for(tokenizer, config, max_length=20).max_length == 20
    tokenizer.model_max_length = 10**30
    assert encoder_for(tokenizer, BertConfig(max_position_embeddings=4096)).max_length == 4096
    assert encoder_for(tokenizer, BertConfig(max_position_embeddings=100_000)).max_length == 8192
    tokenizer.model_max_length = 256
    assert encoder_for(tokenizer, BertConfig(max_position_embeddings=4096)).max_length == 256


def test_segments_only_where_the_tokenizer_gives_them_to_the_model() -> None:
    tokenizer = tiny_tokenizer("bert")
    assert PairEncoder(tokenizer, policy=LONGEST_FIRST, max_length=64).encode(["a"], ["b"]).types.any()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert not PairEncoder(tokenizer, policy=LONGEST_FIRST, max_length=64).encode(["a"], ["b"]).types.any()


@pytest.mark.parametrize("config", [T5Config(), XLNetConfig()])
def test_models_without_an_end_have_the_papers_length(config: Any) -> None:
    tokenizer = tiny_tokenizer("bert")
    tokenizer.model_max_length = 10**30
    assert encoder_for(tokenizer, config).max_length == 512
    assert encoder_for(tokenizer, config, max_length=4096).max_length == 4096


def test_positions_behind_padding_are_not_counted() -> None:
    config = MPNetConfig(max_position_embeddings=42, pad_token_id=1)
    assert encoder_for(tiny_tokenizer("roberta"), config).max_length == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 65}, "65 tokens: the model has 64 positions"),
        ({"max_length": 5}, "leaves no room"),
    ],
)
def test_lengths_that_cannot_be(changes: dict[str, int], message: str) -> None:
    with pytest.raises(CappyError, match=message):
        encoder_for(tiny_tokenizer("roberta"), RobertaConfig(max_position_embeddings=66, pad_token_id=1), **changes)


def test_unknown_policy_and_slow_tokenizer() -> None:
    with pytest.raises(CappyError, match="unknown truncation policy 'middle'"):
        PairEncoder(tiny_tokenizer("bert"), policy="middle", max_length=16)
    with pytest.raises(CappyError, match="fast tokenizer"):
        PairEncoder(object(), policy=LONGEST_FIRST, max_length=16)  # type: ignore[arg-type]


def test_a_tokenizer_without_a_vocabulary() -> None:
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(CappyError, match="the tokenizer has no tokens for plain text; .* its tokenizer.json"):
        PairEncoder(empty, policy=KEEP_RESPONSE, max_length=64)


def test_ten_megabytes_of_text(tmp_path: Path) -> None:
    encoder = ENCODERS["roberta", 64]
    found = encoder.encode(["the fox " * 1_250_000], ["yes"])
    assert found.lengths.tolist() == [64]
    assert found.truncated.all()
