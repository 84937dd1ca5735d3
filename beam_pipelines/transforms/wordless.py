"""Texts in which Rouge-L finds no token, and which are therefore worth 0: how many there are, and a warning about many.

Under the parity tokenizer these are the texts of most scripts; under the unicode tokenizer those of symbols alone.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from beam_pipelines.report.text import plural, share
from cappy_model.metrics.rouge import RougeL
from schemas.stats import Stats

WORDLESS = "wordless"
"""First key of the counts: `all` candidates that are worth 0 for want of tokens, and those that have some in `unicode`.
"""

_MANY = 0.01


def count_wordless(stats: Stats, rouge: RougeL, response: str, references: Sequence[str]) -> None:
    """Count a candidate whose Rouge-L is 0, if that is because it, or each of its references, has no token.

    Blank texts are none of them: they have nothing to compare in any script.
    """
    texts = [text for text in references if text.strip()]
    if not response.strip() or not texts or _readable(rouge, response, texts):
        return
    stats.counts[WORDLESS, "all"] += 1
    stats.counts[WORDLESS, "unicode"] += _readable(_unicode(), response, texts)


def _readable(rouge: RougeL, response: str, references: Sequence[str]) -> bool:
    return not (rouge.is_wordless(response) or all(map(rouge.is_wordless, references)))


@cache
def _unicode() -> RougeL:
    return RougeL("unicode")


def wordless_warnings(counts: Mapping[str, int], candidates: int, *, remedy: str, worth: str) -> list[str]:
    """Return the warning about texts without tokens; none if they are at most 1% of the candidates.

    Args:
      counts: those under `WORDLESS`.
      candidates: the number of candidates that were compared with references.
      remedy: how the user asks for the unicode tokenizer.
      worth: what a candidate without tokens gets, such as "are worth 0".
    """
    lost, readable = counts.get("all", 0), counts.get("unicode", 0)
    if lost <= _MANY * candidates:
        return []
    found = (
        f"{lost:,} of {plural(candidates, 'response')} ({share(lost, candidates)}) {worth}, since they or their "
        "references have no token for Rouge-L"
    )
    if not readable:
        return [f"{found}: neither letters nor digits"]
    rest = "all of them" if readable == lost else f"{readable:,} of them"
    return [f"{found}, whose default tokenizer reads the letters a to z and digits; {remedy} reads {rest}"]
