"""Metrics from tallies equal scikit-learn's from rows; learning curves by hand."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from rayal import metrics
from rayal.errors import ConfigError

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("num_classes", [2, 7, 40])
def test_class_metrics_equal_scikit_learns(num_classes):
    true_N = RNG.integers(0, num_classes, 60)
    predicted_N = np.where(RNG.random(60) < 0.6, true_N, RNG.integers(0, num_classes, 60))
    tallies = metrics.confusion(true_N[:25], predicted_N[:25], num_classes)
    tallies += metrics.confusion(true_N[25:], predicted_N[25:], num_classes)
    assert tallies.dtype == np.int64
    wanted = sk.confusion_matrix(true_N, predicted_N, labels=range(num_classes))
    np.testing.assert_array_equal(tallies, wanted)
    for name, value in (
        ("accuracy", sk.accuracy_score(true_N, predicted_N)),
        ("macro_f1", sk.f1_score(true_N, predicted_N, average="macro")),
        ("micro_f1", sk.f1_score(true_N, predicted_N, average="micro")),
    ):
        found = metrics.metric_of("class", name, tallies)
        assert found.value == pytest.approx(value, abs=1e-12)
        assert (found.metric, found.higher_is_better, found.num_rows) == (name, True, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recall = sk.recall_score(true_N, predicted_N, average=None, labels=range(num_classes))
    mine = metrics.per_class_recall(tallies)
    shown = np.isin(np.arange(num_classes), true_N)
    np.testing.assert_allclose(mine[shown], recall[shown])
    assert np.isnan(mine[~shown]).all()


def test_multilabel_metrics_equal_scikit_learns():
    true_NC = RNG.random((50, 6)) < 0.3
    predicted_NC = np.where(RNG.random((50, 6)) < 0.8, true_NC, ~true_NC)
    true_NC[:, 5] = predicted_NC[:, 5] = False
    tallies = metrics.multilabel_counts(true_NC[:20], predicted_NC[:20].astype(np.float64))
    tallies += metrics.multilabel_counts(true_NC[20:].astype(int), predicted_NC[20:])
    found = metrics.metric_of("multilabel", "micro_f1", tallies, num_rows=50)
    assert found.value == pytest.approx(sk.f1_score(true_NC, predicted_NC, average="micro"))
    assert found.num_rows == 50
    macro = sk.f1_score(true_NC[:, :5], predicted_NC[:, :5], average="macro")
    assert metrics.metric_of("multilabel", "macro_f1", tallies).value == pytest.approx(macro)


def test_regression_metrics_equal_scikit_learns():
    true_N = RNG.normal(3.0, 2.0, 80)
    predicted_N = true_N + RNG.normal(0.0, 1.0, 80)
    tallies = metrics.regression_sums(true_N[:30], predicted_N[:30])
    tallies += metrics.regression_sums(true_N[30:], predicted_N[30:])
    for name, value, higher in (
        ("mse", sk.mean_squared_error(true_N, predicted_N), False),
        ("rmse", sk.root_mean_squared_error(true_N, predicted_N), False),
        ("r2", sk.r2_score(true_N, predicted_N), True),
    ):
        found = metrics.metric_of("number", name, tallies)
        assert found.value == pytest.approx(value, rel=1e-9)
        assert (found.higher_is_better, found.num_rows) == (higher, 80)


def test_without_rows_there_is_no_value():
    for kind, tallies in (
        ("class", np.zeros((3, 3), np.int64)),
        ("multilabel", np.zeros((3, 3), np.int64)),
        ("number", np.zeros(4)),
    ):
        for name in metrics.METRICS[kind]:
            assert metrics.metric_of(kind, name, tallies).value is None
    constant = metrics.regression_sums([0.1, 0.1, 0.1], [0.1, 0.2, 0.3])
    assert metrics.metric_of("number", "r2", constant).value is None


@pytest.mark.parametrize(("kind", "name"), [("class", "rmse"), ("multilabel", "accuracy")])
def test_a_metric_of_another_kind_is_refused(kind, name):
    with pytest.raises(ConfigError, match=f"kind '{kind}' have no metric '{name}'; choose one of"):
        metrics.metric_of(kind, name, np.zeros((2, 2)))


def test_labels_to_reach():
    curve = [(100, 0.5), (200, 0.7), (300, 0.6), (400, 0.9)]
    assert metrics.labels_to_reach(curve, 0.4) == 100
    assert metrics.labels_to_reach(curve, 0.7) == 200
    assert metrics.labels_to_reach(curve, 0.6) == pytest.approx(150)
    assert metrics.labels_to_reach(curve, 0.8) == pytest.approx(300 + 100 * 2 / 3)
    assert metrics.labels_to_reach(curve, 0.95) is None
    assert metrics.labels_to_reach([], 0.1) is None
    falling = [(10, 4.0), (20, 2.0)]
    assert metrics.labels_to_reach(falling, 3.0, higher_is_better=False) == pytest.approx(15)
    assert metrics.labels_saved(curve, [(100, 0.5), (500, 0.7)], 0.6) == pytest.approx(150)
    assert metrics.labels_saved(curve, [(100, 0.5)], 0.6) is None


def test_area_under_curve():
    assert metrics.area_under_curve([(100, 0.5), (200, 0.7), (400, 0.7)]) == pytest.approx(
        (60 + 140) / 300
    )
    assert metrics.area_under_curve([(100, 0.5)]) == 0.5
    assert metrics.area_under_curve([]) is None
