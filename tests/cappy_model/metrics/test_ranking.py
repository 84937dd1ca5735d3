"""The measures against scipy, scikit-learn and brute force on the same arrays."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from cappy_model.metrics import ranking as metrics
from cappy_model.metrics.ranking import Tied

FEW = st.sampled_from([-np.inf, -1.5, 0.0, 0.25, 0.5, 1.0, 7.0, np.inf])
ANY = st.floats(-1e6, 1e6) | FEW


def two_columns(least: int = 2, most: int = 30) -> st.SearchStrategy[np.ndarray]:
    """float[2, n], with ties and infinities."""
    return st.integers(least, most).flatmap(
        lambda size: st.lists(st.tuples(ANY, FEW), min_size=size, max_size=size).map(lambda rows: np.array(rows).T)
    )


def scipy_or_nan(function: object, *arrays: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*arrays).statistic)  # type: ignore[operator]


def ones(count: int) -> np.ndarray:
    return np.ones((1, count))


@given(two_columns())
def test_spearman_is_scipys(columns: np.ndarray) -> None:
    score, label = columns
    expected = scipy_or_nan(stats.spearmanr, score, label)
    assert metrics.spearman_rows(score[None], label[None])[0] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    found = metrics.spearman(Tied.of(score), Tied.of(label), ones(len(score)))
    assert found[0] == pytest.approx(expected, nan_ok=True, abs=1e-12)


@given(two_columns())
@example(np.array([[0.0, 1.0], [-np.inf, -1.5]]))
def test_kendall_is_scipys(columns: np.ndarray) -> None:
    score, label = columns
    expected = scipy_or_nan(stats.kendalltau, score, label)
    assert metrics.pair_rows(score[None], label[None]).kendall[0] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert metrics.kendall(score, label) == pytest.approx(expected, nan_ok=True, abs=1e-12)


@given(two_columns())
def test_pairwise_accuracy_is_the_share_of_pairs(columns: np.ndarray) -> None:
    score, label = columns
    right = [
        0.5 if score[i] == score[j] else float((score[i] > score[j]) == (label[i] > label[j]))
        for i, j in itertools.combinations(range(len(score)), 2)
        if label[i] != label[j]
    ]
    found = metrics.pair_rows(score[None], label[None]).accuracy[0]
    assert found == pytest.approx(np.mean(right) if right else np.nan, nan_ok=True)


def test_long_rows_are_counted_without_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    score, label = generator.integers(0, 40, (3, 100)).astype(float), generator.integers(0, 3, (3, 100)).astype(float)
    score[1], label[2] = 4.0, 1.0
    by_pairs = metrics.pair_rows(score, label)
    monkeypatch.setattr(metrics, "_MAX_PAIRWISE", 10)
    for found, expected in zip(metrics.pair_rows(score, label), by_pairs, strict=True):
        assert found.tolist() == expected.tolist()


@given(two_columns(), st.data())
def test_auc_is_scikit_learns(columns: np.ndarray, data: st.DataObject) -> None:
    score = np.clip(columns[0], -1e9, 1e9)  # it takes no infinities
    positive = np.array(data.draw(st.lists(st.booleans(), min_size=len(score), max_size=len(score))))
    found = metrics.auc(Tied.of(score), positive, ones(len(score)))[0]
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(positive, score))
        assert metrics.pair_rows(score[None], positive[None].astype(float)).accuracy[0] == pytest.approx(found)


@given(two_columns(), st.data())
def test_weights_stand_for_repeated_rows(columns: np.ndarray, data: st.DataObject) -> None:
    score, label = columns
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(score), max_size=len(score))))
    weights = np.stack([times, np.ones_like(times)]).astype(float)
    repeated = [np.repeat(column, times) for column in columns]
    found = metrics.spearman(Tied.of(score), Tied.of(label), weights)
    expected = scipy_or_nan(stats.spearmanr, *repeated) if times.sum() > 1 else np.nan
    assert found[0] == pytest.approx(expected, nan_ok=True, abs=1e-9)
    found = metrics.auc(Tied.of(score), label > 0.3, weights)
    expected = metrics.auc(Tied.of(repeated[0]), repeated[1] > 0.3, ones(times.sum()))[0] if times.sum() else np.nan
    assert found[0] == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.integers(1, 9))
def test_expected_best_is_the_mean_over_all_subsets(values: list[float], drawn: int) -> None:
    count = min(drawn, len(values))
    choices = [values[min(subset)] for subset in itertools.combinations(range(len(values)), count)]
    assert metrics.expected_best(np.array([values]), [drawn])[0, 0] == pytest.approx(np.mean(choices))


def test_expected_best_at_the_ends() -> None:
    values = np.random.default_rng(1).random((4, 1000))
    found = metrics.expected_best(values, [1, 999, 1000, 5000])
    assert found[:, 0] == pytest.approx(values.mean(axis=1))
    assert (found[:, 2] == values[:, 0]).all() and (found[:, 3] == values[:, 0]).all()
    assert found[:, 1] == pytest.approx(0.999 * values[:, 0] + 0.001 * values[:, 1])


@pytest.mark.parametrize(
    ("most", "sizes"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (17, [1, 2, 4, 8, 16, 17])]
)
def test_draws(most: int, sizes: list[int]) -> None:
    assert metrics.draws(most) == sizes


def test_resamples_draw_as_many_as_there_are_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(metrics.resamples(7, 3)))
    assert whole.shape == (metrics.REPLICATES, 7) and (whole.sum(axis=1) == 7).all()
    monkeypatch.setattr(metrics, "_MAX_ARRAY", 100)
    parts = list(metrics.resamples(7, 3, rows=20))
    assert {len(part) for part in parts} == {5}
    assert (np.concatenate(parts) == whole).all()
    assert (np.concatenate(list(metrics.resamples(7, 4))) != whole).any()


def test_bootstrap_means_of_whole_members() -> None:
    generator = np.random.default_rng(2)
    values = generator.random((50, 2))
    values[::7, 1] = np.nan
    members = np.arange(50) // 2
    found = metrics.bootstrap_means(values, members, 11)
    counts = np.concatenate(list(metrics.resamples(25, 11)))
    for replicate in (0, 1, 999):
        repeated = np.repeat(values, counts[replicate][members].astype(int), axis=0)
        assert found[replicate] == pytest.approx(np.nanmean(repeated, axis=0))


def test_intervals_of_a_mean_are_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(size=(2000, 1))
    ends = metrics.interval(metrics.bootstrap_means(values, np.arange(2000), 0)[:, 0])
    assert ends is not None
    assert ends[0] < values.mean() < ends[1]
    assert ends[1] - ends[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.1)


def test_an_interval_of_nothing_is_none() -> None:
    assert metrics.interval(np.full(5, np.nan)) is None
    assert metrics.interval(np.array([np.nan, 2.0])) == (2.0, 2.0)
