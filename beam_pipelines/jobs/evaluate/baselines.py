"""Baselines that are computed over all examples: the first samples of language models, and the majority choice."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cappy_model.metrics.evaluation import FIRST
from schemas.errors import CappyError

MOST_DECODINGS = 64
"""The most decodings, and the most language models, that an evaluation compares."""


def first_samples(examples: pa.Table) -> dict[str, np.ndarray]:
    """Return the value of the first sample of each decoding in each example, float64[n] by method, NaN without one.

    Where an example has samples of several language models, each model and decoding is a method. Raises CappyError for
    more than 64 decodings or language models.
    """
    lists = examples["first"].combine_chunks()
    parents, firsts = pc.list_parent_indices(lists).to_pylist(), lists.flatten()
    drawn = {name: firsts.field(name).to_pylist() for name in ("generator", "decoding")}
    for column, what in (("decoding", "decodings"), ("generator", "language models")):
        known = sorted(set(drawn[column]) - {None})
        if len(known) > MOST_DECODINGS:
            raise CappyError(
                f"the column {column!r} has {len(known):,} values, such as {known[0]!r} and {known[1]!r}; at most "
                f"{MOST_DECODINGS} {what} are compared: rename that column"
            )
    pairs = list(zip(drawn["generator"], drawn["decoding"], strict=True))
    several = len(set(zip(parents, drawn["generator"], strict=True))) > len(set(parents))
    names = [f"{FIRST}{model} {name}" if several and model is not None else f"{FIRST}{name}" for model, name in pairs]
    found = {name: np.full(examples.num_rows, np.nan) for name in sorted(set(names))}
    for parent, name, value in zip(parents, names, firsts.field("value").to_pylist(), strict=True):
        found[name][parent] = value
    return found


def majority(examples: pa.Table) -> np.ndarray:
    """Return 1 where the right choice is the most frequent one of its dataset and template, else 0: float64[n]."""
    places = list(zip(*(examples[name].to_pylist() for name in ("dataset", "template")), strict=True))
    right = examples["right"].to_pylist()
    counts: dict[tuple[str, str | None], Counter[str]] = {}
    for place, text in zip(places, right, strict=True):
        counts.setdefault(place, Counter()).update([text] if text is not None else [])
    commonest = {
        place: min(found, key=lambda text, found=found: (-found[text], text), default=None)  # type: ignore[misc]
        for place, found in counts.items()
    }
    return np.array(
        [text is not None and text == commonest[place] for place, text in zip(places, right, strict=True)],
        dtype=np.float64,
    )
