"""Rouge-L: equality with rouge_score to the last bit, tokenizers, references, the bounded cache, threads."""

import pickle
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from cappy_model.metrics import rouge
from cappy_model.metrics.rouge import RougeL

CANDIDATES = Path(__file__).resolve().parents[4] / "shared" / "data" / "candidates"
PEER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
PEER_UNSTEMMED = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
OURS = RougeL()

TextPairs = list[tuple[str, str]]

# Words that share stems, lose suffixes by different rules, are irregular, sit at the length limit of stemming, are
# longer than what fits a machine word, or turn into ASCII only when lower-cased.
_WORD_LIST = (
    "the a of run runs running ran runner relational relate related conditional rational happily happy happiness "
    "skies sky dying die news innings flies dies cats cat hopping hoping agreed plastered caresses ponies singed "
    "internationalization internationalizations internationally characteristics characteristically uncharacteristic "
    "0 7 07 007 12 1234 12345678901234567890 3.5 1,000 it's don't well-known a_b X.Y. Straße naïve K2 İzmir 日本 ½ ß "
    "abcdefghijk abcdefghijkl 0abcdefghij yyyyyyyyy running7 hopping77 7ing 1990s 20th oed eed ing sing news's"
)
WORDS = _WORD_LIST.split()


def real_pairs(name: str) -> TextPairs:
    """Whole texts, side by side: solutions and their references; two models' answers to one instruction."""
    path = CANDIDATES / name
    if not path.exists():
        pytest.skip(f"needs {name} in {CANDIDATES}, which is not part of the project")
    table = pq.read_table(path)
    responses = table["response"].to_pylist()
    if "reference" in table.column_names:
        return list(zip(table["reference"].to_pylist(), responses, strict=True))
    keys = table["instruction_id"].to_pylist()
    rows = sorted(zip(keys, range(len(keys)), strict=True))
    return [(responses[i], responses[j]) for (key, i), (next_key, j) in pairwise(rows) if key == next_key]


def windows(pairs: TextPairs, words: int) -> Iterator[tuple[str, str]]:
    """The same `words` words of both sides, from a place that differs from pair to pair."""
    for number, (reference, response) in enumerate(pairs):
        split = reference.split(" "), response.split(" ")
        start = number % max(1, min(map(len, split)) - words)
        yield " ".join(split[0][start : start + words]), " ".join(split[1][start : start + words])


def generated_pairs(count: int) -> Iterator[tuple[str, str]]:
    """Responses that share words with their reference, from vocabularies of 2 to 70 words, so that LCS are long."""
    rng = random.Random(20)
    for _ in range(count):
        vocabulary = rng.sample(WORDS, rng.randint(2, len(WORDS)))
        reference = rng.choices(vocabulary, k=rng.randint(0, 24))
        response = [word if rng.random() < 0.6 else rng.choice(vocabulary) for word in reference]
        response[rng.randint(0, len(response)) :] = rng.choices(vocabulary, k=rng.randint(0, 8))
        yield rng.choice(" -\n").join(reference), " ".join(response)


def differing(pairs: Iterator[tuple[str, str]] | TextPairs) -> list[tuple[str, str, float, float]]:
    scored = ((a, b, PEER.score(a, b)["rougeL"].fmeasure, OURS.score([a], b)) for a, b in pairs)
    return [row for row in scored if row[2] != row[3]]


# 20,520 real and 5,000 generated pairs are compared here, a few thousand more by the properties below.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("gsm8k_solutions.parquet", 5_200, 20),
        ("gsm8k_solutions.parquet", 400, 1_000_000),
        ("alpaca_eval.parquet", 12_000, 20),
        ("alpaca_eval.parquet", 2_800, 40),
        ("alpaca_eval.parquet", 120, 1_000_000),
    ],
)
def test_real_pairs_equal_rouge_score(name: str, count: int, words: int) -> None:
    pairs = real_pairs(name)
    assert len(pairs) >= count
    stride = len(pairs) // count
    assert differing(windows(pairs[::stride][:count], words)) == []


def test_generated_pairs_equal_rouge_score() -> None:
    assert differing(generated_pairs(5_000)) == []


@settings(max_examples=1_000, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
@example("", "")
@example("\ud800 lone surrogate", "lone surrogate \udfff")
@example("\u212aelvin \u0130stanbul", "kelvin i stanbul")
@example("a\x00b\x1fc\xa0d\u2028e", "a b c d e")
def test_any_text_equals_rouge_score(reference: str, response: str) -> None:
    assert differing([(reference, response)]) == []


@settings(max_examples=1_000, deadline=None)
@given(st.text("ab1A é\n", max_size=120), st.text("ab1A é\n", max_size=120))
def test_small_alphabets_equal_rouge_score(reference: str, response: str) -> None:
    assert differing([(reference, response)]) == []


INFLECTED = st.from_regex(r"[a-z]{3,14}(s|ed|ing|ly)", fullmatch=True)


@settings(max_examples=500, deadline=None)
@given(*[st.lists(st.sampled_from(WORDS) | INFLECTED, max_size=30)] * 2)
def test_repeated_and_inflected_words_equal_rouge_score(reference: list[str], response: list[str]) -> None:
    assert differing([(" ".join(reference), " ".join(response + reference[3:9]))]) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30), st.lists(st.sampled_from(WORDS), max_size=30))
def test_without_stems_equals_rouge_score(reference: list[str], response: list[str]) -> None:
    texts = " ".join(reference), " ".join(response)
    assert RougeL(stem=False).score([texts[0]], texts[1]) == PEER_UNSTEMMED.score(*texts)["rougeL"].fmeasure


@pytest.mark.parametrize(
    ("reference", "response", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat sat", "sat cat the", 1 / 3),
        ("running dogs", "run dog", 1.0),
        ("a b c d", "b d", 2 / 3),
        ("one two", "three four", 0.0),
        ("", "one", 0.0),
        ("one", "", 0.0),
        ("", "", 0.0),
        ("+ - ?!", "+ - ?!", 0.0),
        ("你好", "你好", 0.0),
        ("07", "7", 0.0),
        ("A-b.C", "a b c", 1.0),
    ],
)
def test_scores(reference: str, response: str, expected: float) -> None:
    score = OURS.score([reference], response)
    assert isinstance(score, float)
    assert score == pytest.approx(expected)
    assert differing([(reference, response)]) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=5))
def test_best_of_several_references_equals_rouge_score(texts: list[str]) -> None:
    response, references = texts[0], texts[1:] or [texts[0]]
    assert OURS.score(references, response) == PEER.score_multi(references, response)["rougeL"].fmeasure


def test_f_measure_of_kept_tokens_equals_score() -> None:
    references = [OURS.tokens("The quick brown fox"), OURS.tokens("a slow red fox")]
    response = OURS.tokens("a quick red fox")
    assert max(OURS.f_measure(tokens, response) for tokens in references) == 0.75
    assert OURS.score(["The quick brown fox", "a slow red fox"], "a quick red fox") == 0.75


def test_no_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"at least one reference.*'forty-two'"):
        OURS.score([], "forty-two")


def test_one_text_in_place_of_a_list_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"list of texts.*'the cat'"):
        OURS.score("the cat", "the cat")


def test_unknown_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="'Parity': choose one of parity, unicode"):
        RougeL("Parity")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        RougeL(max_cached_words=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ünïcode STRASSE, naïve!", ["ünïcode", "strasse", "naïve"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Привет, мир", ["привет", "мир"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("我们hello世界2025", ["我", "们", "hello", "世", "界", "2025"]),
        ("カタカナ ﾊﾞｽ", list("カタカナバス")),  # half-width letters count as the full-width ones
        ("ที่นี่", ["ที่", "นี่"]),  # a Thai letter keeps its vowel and tone marks
        ("\uff11\uff12\uff21\uff22", ["12ab"]),  # full-width digits and letters
        ("ക്\u200dഷ", ["ക്\u200dഷ"]),  # a zero-width joiner inside a Malayalam word
        ("e\u0301te\u0301", ["été"]),
        ("snake_case it's", ["snake", "case", "it", "s"]),
        ("+ \u0301 😀 ، 。", []),
    ],
)
def test_unicode_words(text: str, words: list[str]) -> None:
    scorer = RougeL("unicode", stem=False)
    tokens = scorer.tokens(text)
    assert len(tokens) == len(words)
    assert tokens == tuple(token for word in words for token in scorer.tokens(word))
    assert scorer.is_wordless(text) == (not words)


def test_unicode_scores() -> None:
    scorer = RougeL("unicode")
    assert scorer.score(["我喜欢你"], "我爱你") == pytest.approx(4 / 7)
    assert scorer.score(["यह किताब है"], "यह किताब थी") == pytest.approx(2 / 3)
    assert scorer.score(["Größere Hunde running"], "größere runs") == pytest.approx(4 / 5)
    assert scorer.score(["x" * 12 + "é"], "x" * 12 + "è") == 0.0


class Characters:
    """Tokens of Chinese and Japanese as the field takes them: each ideograph or kana alone, other words whole."""

    def tokenize(self, text: str) -> list[str]:
        return "".join(f" {letter} " if self.is_alone(letter) else letter for letter in text).lower().split()

    @staticmethod
    def is_alone(letter: str) -> bool:
        return unicodedata.name(letter, "").startswith(("CJK UNIFIED IDEOGRAPH", "HIRAGANA LETTER", "KATAKANA LETTER"))


EAST_ASIAN = st.lists(
    st.sampled_from([*"我喜欢猫不他讨厌雨的一是在", *"ねこがすき", *"ネコ", " ", " tea ", " 2025 "]), max_size=30
)


@settings(max_examples=300, deadline=None)
@given(EAST_ASIAN, EAST_ASIAN)
def test_chinese_and_japanese_equal_rouge_score_over_characters(reference: list[str], response: list[str]) -> None:
    peer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Characters())
    texts = "".join(reference), "".join(response)
    assert RougeL("unicode", stem=False).score([texts[0]], texts[1]) == peer.score(*texts)["rougeL"].fmeasure


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=80), st.text(st.characters(max_codepoint=127), max_size=80))
def test_unicode_equals_parity_on_ascii(reference: str, response: str) -> None:
    assert RougeL("unicode").score([reference], response) == OURS.score([reference], response)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
@example("")
@example(" \n\t\u3000")
@example("+")
@example("\u212a")  # the Kelvin sign lower-cases to an ASCII k
@example("हिन्दी")
def test_wordless_text_is_text_without_tokens(text: str) -> None:
    for scorer in (OURS, RougeL("unicode")):
        assert scorer.is_wordless(text) == (bool(text.strip()) and not scorer.tokens(text))


def test_wordless_depends_on_the_tokenizer() -> None:
    assert OURS.is_wordless("你好")
    assert not RougeL("unicode").is_wordless("你好")
    assert RougeL("unicode").is_wordless("+")
    assert not OURS.is_wordless("")


def test_different_stems_have_different_tokens() -> None:
    texts = ["0", "00", "1", "z", "a" * 11, "a" * 12, "0" * 11, "0" * 12, "é", "日", "本", "é" * 4, "a" * 70, "a" * 71]
    scorer = RougeL("unicode", stem=False)
    assert len({scorer.tokens(text) for text in texts}) == len(texts)


def test_tokens_of_equal_hash_are_not_taken_for_equal() -> None:
    prime = sys.hash_info.modulus
    assert hash(prime + 5) == hash(5)
    assert OURS.f_measure((5, 6, prime + 5), (prime + 5, 6, 9)) == pytest.approx(1 / 3)
    assert OURS.f_measure((5,), (prime + 5,)) == 0.0
    assert OURS.f_measure((prime + 5,), (2 * prime + 5,)) == 0.0


def run_python(program: str) -> str:
    root = Path(rouge.__file__).parents[2]
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.strip()


def distinct_word_pairs(count: int) -> TextPairs:
    rng = random.Random(3)
    suffixes = ["", "s", "ing", "ed", "ational", "ness"]
    words = ["".join(rng.choices("abcdeiost", k=6)) for _ in range(count * 12)]
    texts = [" ".join(word + rng.choice(suffixes) for word in words[i : i + 12]) for i in range(0, len(words), 12)]
    return [(text, " ".join([*text.split()[2:9], "unrelated", *text.split()[:2]])) for text in texts]


@pytest.mark.parametrize("bound", [1, 50])
def test_cache_stays_bounded_and_scores_stay_equal(bound: int) -> None:
    scorer = RougeL(max_cached_words=bound)
    pairs = distinct_word_pairs(120)
    kept = [scorer.tokens(reference) for reference, _ in pairs]  # each outlives many emptyings of the cache
    for (reference, response), tokens in zip(pairs, kept, strict=True):
        expected = PEER.score(reference, response)["rougeL"].fmeasure
        assert scorer.f_measure(tokens, scorer.tokens(response)) == expected
        assert scorer.score([reference], response) == expected
        assert len(scorer._cache) <= bound


def test_very_long_words_are_scored_and_not_kept() -> None:
    scorer = RougeL()
    long_word = "y" * 5_000 + "ing"
    assert scorer.score([f"{long_word} dogs"], f"{long_word} cats") == 0.5
    assert scorer.score([long_word], long_word[1:]) == 0.0
    assert max(map(len, scorer._cache)) < 100


def test_threads_share_one_scorer() -> None:
    pairs = [*distinct_word_pairs(150), *generated_pairs(150)]
    expected = [RougeL().score([reference], response) for reference, response in pairs]
    scorer = RougeL(max_cached_words=20)

    def score_all(_: int) -> list[float]:
        return [scorer.score([reference], response) for reference, response in pairs]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(scores == expected for scores in pool.map(score_all, range(16)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("make", [RougeL, lambda: RougeL("unicode", False, max_cached_words=7)])
def test_pickles_its_settings_without_its_cache(make: Callable[[], RougeL]) -> None:
    scorer = make()
    tokens = scorer.tokens("Running ünder characteristics internationalization")
    copy = pickle.loads(pickle.dumps(scorer))
    settings_of = [(s.tokenizer, s.stem, s.max_cached_words) for s in (scorer, copy)]
    assert settings_of[0] == settings_of[1]
    assert not copy._cache
    assert copy.tokens("Running ünder characteristics internationalization") == tokens


def test_tokens_are_the_same_in_another_process() -> None:
    text = "Running characteristics internationalization 07 été"
    program = f"from cappy_model.metrics.rouge import RougeL; print(RougeL('unicode').tokens({text!r}))"
    assert run_python(program) == str(RougeL("unicode").tokens(text))


def test_importing_rouge_imports_no_torch_and_no_beam() -> None:
    unwanted = {"torch", "transformers", "scipy", "pandas", "apache_beam", "rouge_score"}
    assert run_python(f"import cappy_model.metrics.rouge, sys; print(*{unwanted} & set(sys.modules))") == ""
