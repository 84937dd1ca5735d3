"""Texts without Rouge tokens: which count, and when a run warns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.jobs.evaluate.config import TOKENIZERS
from beam_pipelines.transforms.wordless import WORDLESS, count_wordless, wordless_warnings
from cappy_model.metrics import rouge
from cappy_model.metrics.rouge import RougeL
from schemas.stats import Stats


def counted(response: str, references: list[str], mode: str = "parity") -> dict[str, int]:
    stats = Stats()
    count_wordless(stats, RougeL(mode), response, references)
    return {name: count for name, count in stats.under(WORDLESS).items() if count}


@pytest.mark.parametrize(
    ("response", "references", "parity", "unicode"),
    [
        ("cat", ["dog"], {}, {}),
        ("猫", ["犬"], {"all": 1, "unicode": 1}, {}),
        ("किताब", ["book"], {"all": 1, "unicode": 1}, {}),
        ("cat", ["แมว", "猫"], {"all": 1, "unicode": 1}, {}),
        ("cat", ["dog", "猫"], {}, {}),
        ("+", ["-"], {"all": 1}, {"all": 1}),
        ("cat", ["", "😀"], {"all": 1}, {"all": 1}),
        ("", ["猫"], {}, {}),
        (" \u3000", ["猫"], {}, {}),
        ("cat", ["", " "], {}, {}),
        ("猫", ["+"], {"all": 1}, {"all": 1}),
    ],
)
def test_candidates_that_count(
    response: str, references: list[str], parity: dict[str, int], unicode: dict[str, int]
) -> None:
    assert counted(response, references) == parity
    assert counted(response, references, "unicode") == unicode


@given(st.text(max_size=8), st.lists(st.text(max_size=8), min_size=1, max_size=3))
def test_what_counts_is_worth_nothing_and_what_unicode_reads_is_not_wordless_there(
    response: str, references: list[str]
) -> None:
    for mode in TOKENIZERS:
        found = counted(response, references, mode)
        if found:
            assert RougeL(mode).score(references, response) == 0
        assert found.get("unicode", 0) <= found.get("all", 0) <= 1
    assert bool(counted(response, references).get("unicode")) <= (not counted(response, references, "unicode"))


WORDS = {"remedy": "--rouge unicode", "worth": "are worth 0"}


def test_warnings() -> None:
    assert wordless_warnings({}, 0, **WORDS) == wordless_warnings({"all": 1, "unicode": 1}, 100, **WORDS) == []
    (some,) = wordless_warnings({"all": 20, "unicode": 12}, 1000, **WORDS)
    assert some.startswith("20 of 1,000 responses (2.0%) are worth 0") and "--rouge unicode reads 12 of them" in some
    (every,) = wordless_warnings({"all": 1, "unicode": 1}, 1, **WORDS)
    assert every.startswith("1 of 1 response (100%)") and every.endswith("--rouge unicode reads all of them")
    (none,) = wordless_warnings({"all": 2, "unicode": 0}, 3, **WORDS)
    assert none.endswith("neither letters nor digits") and "--rouge" not in none


def test_the_flags_name_the_tokenizers() -> None:
    assert TOKENIZERS == rouge.TOKENIZERS
