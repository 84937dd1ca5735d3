"""The diagnosis of a scorer: verdicts in words, each with a reason code, from scores computed in several ways.

All functions are pure. `beam_pipelines.doctor.model` computes the scores and prints the verdicts.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from cappy_model.score.check import Comparison

Status = Literal["ok", "warn", "wrong", "unknown"]

LEAST_COMPARISONS = 20
"""Fewer comparisons of right with wrong responses cannot tell chance from skill."""

_QUANTILE = 1.96  # of the normal distribution, for intervals of 95%
_STILL = 0.01  # of the spread of the scores: a smaller median movement is none
_MANY_CUT = 0.05


class Verdict(NamedTuple):
    """The outcome of one check: `code` is a short reason, empty where nothing is wrong; `remedy` may be empty."""

    name: str
    status: Status
    text: str
    code: str = ""
    remedy: str = ""


class Share(NamedTuple):
    """A share of `total` comparisons with its 95% interval (Wilson's): NaN, 0 and 1 for none."""

    value: float
    low: float
    high: float
    total: int

    def __str__(self) -> str:
        return f"{self.value:.0%} of {self.total} (95% interval {self.low:.0%} to {self.high:.0%})"


def share(won: np.ndarray) -> Share:
    """Return the share of comparisons that are won, of float[n] as from `wins`; NaN is left out."""
    won = won[~np.isnan(won)]
    total = len(won)
    if not total:
        return Share(float("nan"), 0.0, 1.0, 0)
    value, square = float(won.mean()), _QUANTILE**2 / total
    centre = (value + square / 2) / (1 + square)
    reach = _QUANTILE * float(np.sqrt(value * (1 - value) / total + square / (4 * total))) / (1 + square)
    return Share(value, max(0.0, centre - reach), min(1.0, centre + reach), total)


def wins(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return 1 where float[n] `right` is greater, 0.5 where it is equal, 0 where it is less, NaN without a score."""
    found = np.isfinite(right) & np.isfinite(wrong)
    return np.where(found, (right > wrong) + 0.5 * (right == wrong), np.nan)


class Flips(NamedTuple):
    """How two scorings of the same candidates differ within groups of two or more.

    `orders` of `pairs` are ordered otherwise, and `selections` of `groups` choose another candidate.
    """

    orders: int
    pairs: int
    selections: int
    groups: int

    def __str__(self) -> str:
        if not self.groups:
            return "no instruction has two responses here, so flips of ranks are unknown"
        return f"{self.selections:,} of {self.groups:,} selections and {self.orders:,} of {self.pairs:,} orders flip"


def flips(one: np.ndarray, other: np.ndarray, groups: np.ndarray) -> Flips:
    """Compare the ranks of candidates by two scores, float[n] each, within `groups` int64[n]; NaN is left out."""
    totals = np.zeros(4, dtype=np.int64)
    found = np.isfinite(one) & np.isfinite(other)
    for group in np.unique(groups[found]):
        rows = np.flatnonzero(found & (groups == group))
        if len(rows) < 2:
            continue
        first, second = np.triu_indices(len(rows), 1)
        signs = [np.sign(values[rows][first] - values[rows][second]) for values in (one, other)]
        chosen = [int(values[rows].argmax()) for values in (one, other)]
        totals += [int((signs[0] != signs[1]).sum()), len(first), int(chosen[0] != chosen[1]), 1]
    return Flips(*totals.tolist())


def judge_paths(found: Comparison, refused: Sequence[str], flipped: Flips, dtype: str) -> Verdict:
    """Judge the difference of the path that scores and the plain forward pass of the same model.

    `refused` are the reasons why it refuses pairs that the plain forward pass scores.
    """
    text = (
        f"largest difference {found.largest:.2g} to the plain forward pass over {found.compared:,} pairs in {dtype} "
        f"({found.tolerance:.2g} is allowed); {flipped}"
    )
    if found.agrees and not refused:
        return Verdict("paths", "ok", text)
    if refused:
        text = f"{len(refused):,} pairs of the plain forward pass are refused ({refused[0]}); {text}"
    remedy = "do not score with it; try --dtype float32, and report the model and this line if that differs, too"
    return Verdict("paths", "wrong", text, "paths_differ", remedy)


def judge_precision(largest: float, flipped: Flips, dtype: str) -> Verdict:
    """Judge the difference of the scores in `dtype` to those in float32."""
    text = f"largest difference {largest:.2g} of {dtype} to float32; {flipped}"
    if not flipped.selections:
        return Verdict("precision", "ok", text)
    remedy = "these responses are nearly equal to the model; where that matters, give --dtype float32"
    return Verdict("precision", "warn", text, "precision_flips", remedy)


def judge_movement(own: np.ndarray, swapped: np.ndarray, partner: np.ndarray, noise: float) -> list[Verdict]:
    """Judge whether the score moves with the response and with the instruction.

    Args:
        own: float[n], the scores of n pairs.
        swapped: float[n], those of each instruction with the response of another pair.
        partner: int64[n], that pair, whose instruction is another one; the pair itself if there is none.
        noise: the largest difference of two ways to compute the same score.
    """
    swapped = np.where(partner == np.arange(len(partner)), np.nan, swapped)
    scores = np.concatenate([own, swapped])
    scores = scores[np.isfinite(scores)]
    if len(scores) < 2:
        return [Verdict("movement", "unknown", "there are too few pairs to see whether the score moves")]
    spread, centre = float(scores.std()), float(scores.mean())
    if np.ptp(scores) <= max(2 * noise, 1e-6 * (1 + abs(centre))):
        text = f"all {len(scores):,} scores are {centre:.6g} within {max(2 * noise, np.ptp(scores)):.1g}"
        remedy = "the model was not trained, has collapsed, or lacks its head; take another checkpoint"
        return [Verdict("movement", "wrong", text, "constant", remedy)]
    return [
        _moves("response", "wrong", swapped - own, spread, noise),
        _moves("instruction", "warn", swapped - own[partner], spread, noise),
    ]


def _moves(name: str, status: Status, moved: np.ndarray, spread: float, noise: float) -> Verdict:
    """Judge by how much the score moves when one text of a pair is replaced by that of another pair."""
    typical = float(np.nanmedian(np.abs(moved))) if np.isfinite(moved).any() else float("nan")
    if np.isnan(typical):
        return Verdict(name, "unknown", f"no two pairs to swap the {name} of")
    text = f"another {name} moves the score by {typical:.2g} (median); all scores spread by {spread:.2g}"
    if typical > max(noise, _STILL * spread):
        return Verdict(name, "ok", text)
    remedy = (
        f"check --template, --max-length and the columns: the {name} seems not to reach the model, or the model was "
        f"trained to ignore it"
    )
    return Verdict(name, status, text, f"ignores_{name}", remedy)


def judge_right(found: Share, *, own_rows: bool) -> Verdict:
    """Judge how often the right response of a row beats that of another row.

    `own_rows`: whether the rows are the user's. A scorer of another kind of text may be at chance on built-in ones.
    """
    name, text = "right", f"a row's right response beats another row's: {found}"
    if not found.total:
        text = "without right responses it is unknown whether they win"
        return Verdict(
            name, "unknown", text, remedy="give --input with a column `references`, or `label` with 1 for right"
        )
    if found.low > 0.5:
        return Verdict(name, "ok", text)
    if found.high < 0.5:
        remedy = "the sign is turned, or another label is the right one: higher must be better; see --head"
        return Verdict(name, "wrong", text, "sign", remedy)
    if found.total < LEAST_COMPARISONS:
        return Verdict(name, "unknown", f"{text}: too few to tell from chance", remedy="give more rows")
    if not own_rows:
        remedy = "perhaps it scores another kind of text: give --input with rows of your own"
        return Verdict(name, "warn", f"{text}, on built-in questions: no better than chance", "chance", remedy)
    remedy = (
        "the head may be missing or shuffled, the template another one than in training, or the columns others than "
        "the model is meant for"
    )
    return Verdict(name, "wrong", f"{text}: no better than chance", "chance", remedy)


def judge_templates(used: str, won: np.ndarray, others: Mapping[str, np.ndarray]) -> Verdict:
    """Judge whether another template is better than the one that is used.

    `won` and each of `others` are `wins` of the same comparisons, float[n]. Another template is better if its right
    responses win more often than not, and if it wins significantly more of the comparisons on which the two differ.
    """
    better: list[tuple[float, str, str]] = []
    for name, theirs in others.items():
        found, ahead = share(theirs), np.sign(theirs - won)
        if found.low > 0.5 and share(np.where(ahead == 0, np.nan, ahead / 2 + 0.5)).low > 0.5:
            better.append((found.value, name, f"with --template {name} right responses win {found}"))
    if better:
        _, name, text = max(better)
        remedy = f"give --template {name}: with {used} the model does not read pairs as it was trained to"
        return Verdict("template", "wrong", f"{text}, with {used} {share(won)}", "template", remedy)
    tried = ", ".join(f"{name} {share(theirs)}" for name, theirs in others.items())
    return Verdict("template", "ok", f"{used}; no other is better ({tried})")


def judge_cuts(truncated: Sequence[bool] | np.ndarray, max_length: int) -> Verdict:
    """Judge how many pairs are longer than the model reads."""
    cut, count = int(np.sum(truncated)), len(truncated)
    text = f"{cut:,} of {count:,} pairs are longer than {max_length:,} tokens and cut"
    if cut <= _MANY_CUT * count:
        return Verdict("length", "ok", text)
    return Verdict("length", "warn", text, "truncated", "give a greater --max-length if the model has the positions")
