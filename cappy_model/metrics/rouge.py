"""Rouge-L: the label of a generated response, and the metric of the evaluations.

In the default "parity" mode the numbers are the F-measures of `rouge_score` 0.1.2, `RougeScorer(["rougeL"],
use_stemmer=True)`, equal to the last bit: lower-case, words of [a-z0-9], Porter stems of the words longer than three
characters, and the longest common subsequence (LCS) of the two word sequences (Lin, "ROUGE: a package for automatic
evaluation of summaries", 2004). The implementation differs: stems are cached by word, and the LCS is
bit-parallel.

A token is an integer that encodes its stem, so it means the same in every instance, thread and process, and the cache
of stems may be emptied at any time.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

from rapidfuzz.distance import LCSseq

Tokens = tuple[int, ...]

TOKENIZERS = ("parity", "unicode")
MAX_CACHED_WORDS = 131_072  # 16 to 32 MB; few words beyond the most frequent 100,000 recur
_MAX_CACHED_WORD_LENGTH = 64  # longer words are hashes, URLs and noise: they would fill memory and never recur
_MIN_STEMMED_LENGTH = 4

_PARITY_CHARACTER = re.compile("[a-z0-9]")
_OTHERS_TO_SPACE = bytes(code if _PARITY_CHARACTER.fullmatch(chr(code)) else ord(" ") for code in range(256))

_SHORT_STEM = 11  # the longest ASCII stem whose code stays below _FIRST_LONG_CODE
_FIRST_LONG_CODE: int = 2 * 36**_SHORT_STEM

# Scripts written without spaces between words: there, each letter or ideograph is a token (first and last code point).
_UNSPACED_SCRIPTS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x312F),  # CJK radicals and marks, Hiragana, Katakana, Bopomofo
    (0x31A0, 0x4DBF),  # Bopomofo and Katakana extensions, CJK extension A
    (0x4E00, 0xA4CF),  # CJK, Yi
    (0xA980, 0xA9FF),  # Javanese, Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0x1AFF0, 0x1B16F),  # Kana extensions
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)
_JOINERS = "\u200c\u200d"  # zero width, inside words of Persian and of Indic scripts


class RougeL:
    """Rouge-L F-measure of responses against references; thread-safe.

    Instances are cheap to create and to pickle (without their cache), and hold a cache of stems of bounded size.

    Args:
        tokenizer: "parity" takes words of [a-z0-9] after lower-casing, as `rouge_score` does, so text in most other
            scripts has no token at all. "unicode" takes words of any script: NFKC, lower case, runs of letters, digits
            and their combining marks; in scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer,
            Burmese, ...) every letter or ideograph with its marks is one token. On ASCII text the two are equal.
        stem: whether words of more than three characters are reduced by the Porter stemmer (NLTK's variant); only
            words of [a-z0-9] are, in both modes.
        max_cached_words: size of the cache of stems in words, at least 1; the results do not depend on it.

    Raises:
        ValueError: if the tokenizer is unknown or `max_cached_words` is below 1.
    """

    def __init__(self, tokenizer: str = "parity", stem: bool = True, *, max_cached_words: int = MAX_CACHED_WORDS):
        if tokenizer not in TOKENIZERS:
            raise ValueError(f"unknown Rouge tokenizer {tokenizer!r}: choose one of {', '.join(TOKENIZERS)}")
        if max_cached_words < 1:
            raise ValueError(f"max_cached_words must be at least 1, not {max_cached_words}")
        self.tokenizer = tokenizer
        self.stem = stem
        self.max_cached_words = max_cached_words
        self._split = _parity_words if tokenizer == "parity" else _unicode_words
        self._cache = _TokenCache(stem, max_cached_words)

    def __reduce__(self) -> tuple[Callable[..., "RougeL"], tuple[Any, ...]]:
        return partial(RougeL, max_cached_words=self.max_cached_words), (self.tokenizer, self.stem)

    def tokens(self, text: str) -> Tokens:
        """Return the tokens of a text, one integer >= 0 per word; equal integers mean equal stems in every process.

        Empty for a text without words, which need not be an empty text: see `is_wordless`.
        """
        return tuple(map(self._cache.__getitem__, self._split(text)))

    def is_wordless(self, text: str) -> bool:
        """Return whether a text is not blank but has no token, so that all of its scores are 0.

        Stops at the first word; if the tokens are available, `text.strip() and not tokens` is equivalent.
        """
        if self.tokenizer == "parity":
            word = _PARITY_CHARACTER.search(text.lower())
        else:
            word = _unicode_pattern().search(_fold(text))
        return word is None and bool(text.strip())

    @staticmethod
    def f_measure(reference_tokens: Tokens, response_tokens: Tokens) -> float:
        """Return the Rouge-L F-measure of two token sequences, in [0, 1]; 0.0 if either is empty.

        Both come from `tokens` of instances with the same settings. The time grows as
        len(reference_tokens) * len(response_tokens) / 64.
        """
        if not reference_tokens or not response_tokens:
            return 0.0
        length = _lcs_length(reference_tokens, response_tokens)
        if not length:
            return 0.0
        precision = length / len(response_tokens)
        recall = length / len(reference_tokens)
        # The order of these operations is part of the contract: it fixes the last bit.
        return 2 * precision * recall / (precision + recall)

    def score(self, references: Sequence[str], response: str) -> float:
        """Return the maximum Rouge-L F-measure of the response over its references, in [0, 1].

        For references that recur, keep their `tokens` and call `f_measure`.

        Raises:
            ValueError: if there is no reference.
            TypeError: if the references are one string, which is a sequence of characters.
        """
        if isinstance(references, str):
            raise TypeError(f"references must be a list of texts, not the text {references[:80]!r}")
        if not references:
            raise ValueError(f"Rouge-L needs at least one reference; there is none for the response {response[:80]!r}")
        response_tokens = self.tokens(response)
        return max(self.f_measure(self.tokens(reference), response_tokens) for reference in references)


class _TokenCache(dict[str, int]):
    """Maps words to tokens; filled on demand and emptied when full.

    Threads share it without a lock: each step is one atomic dict operation, a word lost to another thread's `clear` is
    stemmed again to the same token, and the bound is exceeded by at most one word per thread.
    """

    def __init__(self, stem: bool, max_words: int):
        super().__init__()
        self._stem: Callable[[str], str] | None = _porter_stemmer() if stem else None
        self._max_words = max_words

    def __missing__(self, word: str) -> int:
        stemmed = word
        # Every rule of the stemmer looks for a suffix of letters, so numbers can skip its 15 microseconds.
        if self._stem is not None and len(word) >= _MIN_STEMMED_LENGTH and word.isascii() and word[-1].isalpha():
            stemmed = self._stem(word)
        token = _spell(stemmed)
        if len(word) <= _MAX_CACHED_WORD_LENGTH:
            # Cheaper than tracking the order of use: frequent words return at once.
            if len(self) >= self._max_words:
                self.clear()
            self[word] = token
        return token


def _porter_stemmer() -> Callable[[str], str]:
    # Imported here because NLTK imports scipy.stats, which takes more than a second.
    from nltk.stem.porter import PorterStemmer

    stem: Callable[[str], str] = PorterStemmer().stem
    return stem


def _spell(stem: str) -> int:
    """Return an integer >= 0 unique to a stem: base 36 for short ASCII stems (nearly all), else UTF-8 bytes."""
    if len(stem) <= _SHORT_STEM and stem.isascii():
        return int("1" + stem, 36)  # the leading 1 keeps "07" apart from "7"
    return _FIRST_LONG_CODE + int.from_bytes(stem.encode(), "big")


def _lcs_length(reference: Tokens, response: Tokens) -> int:
    # LCSseq compares elements by their hash. An int below the modulus is its own hash; longer stems may collide, so
    # the tokens of such a pair are numbered afresh (a response token that the reference lacks cannot be in an LCS).
    if max(reference) >= sys.hash_info.modulus or max(response) >= sys.hash_info.modulus:
        number = dict(zip(reference, range(1, len(reference) + 1), strict=True))
        reference = tuple(map(number.__getitem__, reference))
        response = tuple(filter(None, map(number.get, response)))
    return LCSseq.similarity(reference, response)


def _parity_words(text: str) -> list[str]:
    # A byte table takes half the time of a regular expression. Lower-casing comes first, since a
    # few letters outside ASCII have lower-case forms inside it (the Kelvin sign becomes k).
    return text.lower().encode("ascii", "replace").translate(_OTHERS_TO_SPACE).decode("ascii").split()


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _unicode_words(text: str) -> Iterable[str]:
    if text.isascii():
        return _parity_words(text)
    return _unicode_pattern().findall(_fold(text))


@cache
def _unicode_pattern() -> re.Pattern[str]:
    marks = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char).startswith("M"))
    unspaced = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSPACED_SCRIPTS)
    # Python's \w has letters and digits of all scripts, but not the marks that are the vowels of Hindi.
    one_letter = rf"(?=\w)[{unspaced}][{marks}{_JOINERS}]*"
    spaced_word = rf"[^\W_{unspaced}](?:[^\W_{unspaced}]|[{marks}{_JOINERS}])*"
    return re.compile(f"{one_letter}|{spaced_word}")
