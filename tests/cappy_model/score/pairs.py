"""Pairs of texts on which scorers go wrong: long, empty, equal, many of one instruction, with special tokens inside."""

import random

TextPair = tuple[str, str]

SPECIAL = [
    "</s>",
    "<s>",
    "<pad>",
    "[SEP]",
    "[PAD]",
    "<sep>",
    "<cls>",
    "<eos>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
]
_WORDS = [
    "the",
    "quick",
    "fox",
    "river",
    "answer",
    "yes",
    "no",
    "maybe",
    "What",
    "0",
    "7",
    "ABC",
    "你好",
    "naïve",
    "🦊",
    ".",
]
RESPONSES = 17


def texts(count: int, longest: int, seed: int, *, special: bool = True) -> list[str]:
    """Return `count` texts of 1 to `longest` words, one of ten of which is a special token of some family."""
    rng = random.Random(seed)
    words = _WORDS * 9 + SPECIAL * (2 if special else 0)
    return [" ".join(rng.choices(words, k=rng.randint(1, longest))) for _ in range(count)]


def short_pairs(seed: int = 0) -> list[TextPair]:
    """Return pairs that fit 64 tokens of every family, most of them, and 512 of every decoder, all of them."""
    pairs = list(zip(texts(24, 6, seed), texts(24, 5, seed + 1), strict=True))
    instruction = "What is the answer? The quick fox jumps over the river."
    pairs += [(instruction, response) for response in texts(RESPONSES, 5, seed + 2)]
    pairs += [
        ("", "yes"),
        ("yes", ""),
        ("What is it?", "no"),
        ("What is it?", "no"),
        ("What is it?", "no "),
        (" ", "no"),
    ]
    pairs += [("yes", token) for token in SPECIAL] + [(token, "yes") for token in SPECIAL]
    return [*pairs, ("What is it?", "yes</s>"), ("What is it?", "yes<pad><pad>"), ("a\nb\n\nc", "\n\nd\n")]


def long_pairs(words: int, seed: int = 5) -> list[TextPair]:
    """Return pairs with a long instruction, a long response, both, and neither."""
    long, short = texts(4, words, seed), texts(4, 4, seed + 1)
    long = [f"{text} {' '.join(_WORDS * (1 + words // len(_WORDS)))}" for text in long]
    return [(long[0], short[0]), (long[0], short[1]), (short[2], long[1]), (long[2], long[3]), (short[2], short[3])]
