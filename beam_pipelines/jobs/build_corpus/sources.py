"""Where labels come from, in words and colours."""

from dataclasses import dataclass

from schemas.records import GENERATED, GROUND_TRUTH, LABEL_SOURCES, MISMATCH, WRONG_CHOICE


@dataclass(frozen=True)
class Source:
    """A label source as the report shows it. `colour` is a name of the theme."""

    key: str
    label: str
    plural: str
    colour: str
    meaning: str


_ALL = (
    Source(
        GROUND_TRUTH,
        "Ground truth",
        "ground truth",
        "ground-truth",
        "The dataset's own response, as its template gives it. Label 1.",
    ),
    Source(
        GENERATED,
        "Generated",
        "generated",
        "generated",
        "Sampled from a language model. The label is its Rouge-L with the ground truth, the best of several.",
    ),
    Source(
        WRONG_CHOICE,
        "Wrong choice",
        "wrong choices",
        "wrong-choice",
        "Another answer choice of the same instruction. Label 0.",
    ),
    Source(
        MISMATCH,
        "Mismatch",
        "mismatched",
        "mismatch",
        "The response of another example of the same dataset and template. Label 0.",
    ),
)
_BY_KEY = {source.key: source for source in _ALL}

SOURCES = tuple(_BY_KEY[key] for key in LABEL_SOURCES)
"""In the order in which one outranks the next when equal pairs merge."""
