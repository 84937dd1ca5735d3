"""Verdicts about a scorer from its scores: intervals, flips, and the limits between ok, chance and wrong."""

import numpy as np
import pytest
from scipy import stats

from cappy_model.score.check import Comparison
from cappy_model.score.diagnosis import (
    LEAST_COMPARISONS,
    flips,
    judge_cuts,
    judge_movement,
    judge_paths,
    judge_precision,
    judge_right,
    judge_templates,
    share,
    wins,
)

NONE = flips(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))


def won(right: int, total: int) -> np.ndarray:
    return np.arange(total) < right * np.ones(total)


@pytest.mark.parametrize(("right", "total"), [(0, 7), (7, 7), (12, 40), (64, 128)])
def test_intervals_are_wilsons(right: int, total: int) -> None:
    expected = stats.binomtest(right, total).proportion_ci(method="wilson")
    found = share(won(right, total).astype(float))
    assert (found.value, found.total) == (right / total, total)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_equal_scores_win_by_half_and_missing_ones_do_not_count() -> None:
    found = wins(np.array([1.0, 2.0, 3.0, np.nan]), np.array([0.0, 2.0, 4.0, 1.0]))
    assert found[:3].tolist() == [1.0, 0.5, 0.0] and np.isnan(found[3])
    assert (share(found).value, share(found).total) == (0.5, 3)


def test_flips_are_counted_within_groups() -> None:
    one = np.array([3.0, 2.0, 1.0, 0.0, 9.0, 5.0, 6.0])
    other = np.array([3.0, 1.0, 2.0, 7.0, 8.0, np.nan, 1.0])
    found = flips(one, other, np.array([0, 0, 0, 1, 1, 2, 2]))
    assert found == (1, 4, 0, 2)
    assert str(found) == "0 of 2 selections and 1 of 4 orders flip"
    assert flips(one, -one, np.array([0, 0, 0, 1, 1, 2, 2])) == (5, 5, 3, 3)
    assert "unknown" in str(NONE)


def test_a_path_is_wrong_if_it_differs_or_refuses() -> None:
    near, far = (Comparison(largest, 0.01, 0, 5) for largest in (0.001, 0.5))
    assert judge_paths(near, [], NONE, "float32").status == "ok"
    for verdict in (judge_paths(far, [], NONE, "float32"), judge_paths(near, ["odd"], NONE, "float32")):
        assert (verdict.status, verdict.code) == ("wrong", "paths_differ") and verdict.remedy


def test_precision_warns_of_selections_alone() -> None:
    groups = np.array([0, 0, 0])
    order = flips(np.array([3.0, 2.0, 1.0]), np.array([3.0, 1.0, 2.0]), groups)
    selection = flips(np.array([3.0, 2.0, 1.0]), np.array([2.0, 3.0, 1.0]), groups)
    assert judge_precision(0.1, order, "bfloat16").status == "ok"
    assert judge_precision(0.1, selection, "bfloat16").code == "precision_flips"


PARTNER = np.arange(40)[::-1].copy()
FIRST, SECOND = np.random.default_rng(0).normal(size=(2, 40))


@pytest.mark.parametrize(
    ("own", "swapped", "found"),
    [
        (FIRST + SECOND, FIRST + SECOND[PARTNER], {"response": "", "instruction": ""}),
        (FIRST, FIRST + 1e-7, {"response": "ignores_response", "instruction": ""}),
        (SECOND, SECOND[PARTNER] + 1e-7, {"response": "", "instruction": "ignores_instruction"}),
        (np.full(40, 2.5), np.full(40, 2.5), {"movement": "constant"}),
    ],
)
def test_movement(own: np.ndarray, swapped: np.ndarray, found: dict[str, str]) -> None:
    verdicts = judge_movement(own, swapped, PARTNER, 1e-6)
    assert {verdict.name: verdict.code for verdict in verdicts} == found
    fatal = {verdict.code for verdict in verdicts if verdict.status == "wrong"}
    assert fatal == set(found.values()) & {"constant", "ignores_response"}


def test_movement_within_the_noise_is_none() -> None:
    own = FIRST + 0.02 * SECOND
    noisy = judge_movement(own, FIRST + 0.02 * SECOND[PARTNER], PARTNER, 0.1)
    assert noisy[0].code == "ignores_response"
    assert judge_movement(own, own, np.arange(40), 1e-6)[0].status == "unknown"
    assert judge_movement(own[:0], own[:0], PARTNER[:0], 0.0)[0].status == "unknown"


@pytest.mark.parametrize(
    ("right", "total", "own_rows", "status", "code"),
    [
        (90, 128, True, "ok", ""),
        (64, 128, True, "wrong", "chance"),
        (64, 128, False, "warn", "chance"),
        (30, 128, True, "wrong", "sign"),
        (3, 40, False, "wrong", "sign"),
        (6, LEAST_COMPARISONS - 1, True, "unknown", ""),
        (0, 0, True, "unknown", ""),
    ],
)
def test_right_responses(right: int, total: int, own_rows: bool, status: str, code: str) -> None:
    verdict = judge_right(share(won(right, total).astype(float)), own_rows=own_rows)
    assert (verdict.status, verdict.code) == (status, code)
    assert verdict.remedy or status == "ok"


def test_another_template_must_be_significantly_better() -> None:
    bad, good = won(64, 128).astype(float), won(120, 128).astype(float)
    better = judge_templates("none", bad, {"chat": good})
    assert (better.status, better.code) == ("wrong", "template") and "--template chat" in better.remedy
    for used, other in ((good, bad), (good, good), (bad, won(67, 128).astype(float)), (good[::-1].copy(), good)):
        assert judge_templates("chat", used, {"none": other}).status == "ok"


def test_many_cut_pairs_warn() -> None:
    assert judge_cuts([True] + [False] * 19, 512).status == "ok"
    assert judge_cuts([True, True] + [False] * 18, 512).code == "truncated"
