"""From values of examples to means, macro averages, intervals and differences."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from cappy_model.metrics.evaluation import describe, describe_all, estimate_means, estimate_orders, macro_average

METHODS = ["scorer:old", "scorer:new", "first:beam4", "random", "oracle"]


def values(seed: int, count: int = 200) -> np.ndarray:
    generator = np.random.default_rng(seed)
    base = generator.random(count)
    return np.stack([base * 0.5, base * 0.6, base * 0.4, base * 0.3, base], axis=1)


def test_a_dataset_and_the_macro_average() -> None:
    tables = {"a": values(1), "b": values(2, 50)}
    estimates = {name: estimate_means(each, np.arange(len(each)), 7) for name, each in tables.items()}
    found = describe_all(estimates, METHODS)
    for name, each in tables.items():
        methods = found["datasets"][name]["methods"]
        assert [methods[method]["value"] for method in METHODS] == pytest.approx(each.mean(axis=0).tolist())
        assert {entry["count"] for entry in methods.values()} == {len(each)}
    macro = found["macro"]
    expected = np.mean([each.mean(axis=0) for each in tables.values()], axis=0)
    assert [macro["methods"][method]["value"] for method in METHODS] == pytest.approx(expected.tolist())
    assert macro["best_baseline"] == "first:beam4"
    pairs = [(entry["method"], entry["to"]) for entry in macro["differences"]]
    assert pairs == [("scorer:old", "first:beam4"), ("scorer:new", "first:beam4"), ("scorer:new", "scorer:old")]
    for entry in macro["differences"]:
        assert entry["value"] == pytest.approx(
            macro["methods"][entry["method"]]["value"] - macro["methods"][entry["to"]]["value"]
        )


def test_differences_are_paired() -> None:
    found = describe(estimate_means(values(3), np.arange(200), 7), METHODS)
    alone, paired = found["methods"]["scorer:new"], found["differences"][2]
    # The values differ by a sixth of the better one throughout, so the difference varies a sixth as much.
    assert paired["high"] - paired["low"] == pytest.approx((alone["high"] - alone["low"]) / 6)


def test_a_baseline_that_is_not_there_for_all_examples_is_shown_and_not_the_best() -> None:
    partly = values(4)
    partly[:, 2] = 2.0
    partly[5, 2] = np.nan
    estimate = estimate_means(partly, np.arange(200), 7)
    found = describe(estimate, METHODS)
    assert found["methods"]["first:beam4"]["count"] == 199 and found["methods"]["first:beam4"]["value"] == 2.0
    assert found["best_baseline"] == "random"
    nowhere = values(5)
    nowhere[:, 2] = np.nan
    macro = describe(macro_average([estimate, estimate_means(nowhere, np.arange(200), 7)]), METHODS)
    assert macro["methods"]["first:beam4"] == {"value": None, "low": None, "high": None, "count": 199}


def test_orders_over_all_candidates() -> None:
    generator = np.random.default_rng(6)
    label = (generator.random(300) < 0.4).astype(float)
    scores = np.stack([label + generator.normal(size=300), np.full(300, np.nan), label], axis=1)
    scores[::3, 2] = np.nan
    found = estimate_orders(scores, label, np.arange(300) // 4, 7)
    assert set(found) == {"spearman_over_all", "auc_over_all", "kendall_over_all"}
    assert found["auc_over_all"].value[0] == pytest.approx(roc_auc_score(label, scores[:, 0]))
    assert found["spearman_over_all"].value[0] == pytest.approx(stats.spearmanr(label, scores[:, 0]).statistic)
    assert found["kendall_over_all"].value[0] == pytest.approx(stats.kendalltau(label, scores[:, 0]).statistic)
    for estimate in found.values():
        assert np.isnan(estimate.value[1]) and estimate.value[2] == pytest.approx(1.0)
        assert estimate.counted.tolist() == [300, 0, 200, 300]
    assert [estimate.value[3] for estimate in found.values()] == [0.0, 0.5, 0.0]
    scope = describe(found["auc_over_all"], ["scorer:a", "scorer:b", "scorer:c", "random"])
    entry = scope["methods"]["scorer:a"]
    assert entry["low"] < entry["value"] < entry["high"] and entry["high"] - entry["low"] < 0.2
    assert (
        describe(found["kendall_over_all"], ["scorer:a", "scorer:b", "scorer:c", "random"])["methods"]["scorer:a"][
            "low"
        ]
        is None
    )


def test_auc_needs_labels_of_zero_and_one() -> None:
    label = np.array([0.0, 0.5, 1.0])
    assert set(estimate_orders(np.arange(3.0)[:, None], label, np.arange(3), 7)) == {
        "spearman_over_all",
        "kendall_over_all",
    }
