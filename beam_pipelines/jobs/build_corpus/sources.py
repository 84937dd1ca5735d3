"""Label sources, as reports show them."""

from dataclasses import dataclass

from schemas.records import GENERATED, GROUND_TRUTH, LABEL_SOURCES, MISMATCH, WRONG_CHOICE


@dataclass(frozen=True)
class LabelSource:
    """A label source in words, with its colour in the theme."""

    key: str
    label: str
    plural: str
    colour: str
    meaning: str


_ALL = (
    LabelSource(
        GROUND_TRUTH,
        "Ground truth",
        "ground truth",
        "ground-truth",
        "The dataset's own response, rendered by the template. Label 1.",
    ),
    LabelSource(
        GENERATED,
        "Generated",
        "generated",
        "generated",
        "Sampled from a language model. The label is its highest Rouge-L against the ground truths.",
    ),
    LabelSource(
        WRONG_CHOICE,
        "Wrong choice",
        "wrong choices",
        "wrong-choice",
        "Another answer choice of the same instruction. Label 0.",
    ),
    LabelSource(
        MISMATCH,
        "Mismatch",
        "mismatched",
        "mismatch",
        "The response of another example of the same dataset and template. Label 0.",
    ),
)
_BY_KEY = {source.key: source for source in _ALL}

SOURCES = tuple(_BY_KEY[key] for key in LABEL_SOURCES)
"""Ordered by precedence: the first source of equal pairs labels the merged pair."""
