"""Metrics from tallies equal scikit-learn's from rows; learning curves by hand."""

import warnings
from fractions import Fraction

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
    probs_NC = np.eye(num_classes)[predicted_N]
    tallies = metrics.no_rows("class", num_classes)
    tallies = tallies + metrics.tally("class", true_N[:25].astype(float), probs_NC[:25])
    tallies = tallies + metrics.tally("class", true_N[25:].astype(float), probs_NC[25:])
    assert tallies.dtype == np.int64
    wanted_CC = sk.confusion_matrix(true_N, predicted_N, labels=range(num_classes))
    hits_C = wanted_CC.diagonal()
    wanted = np.stack([hits_C, wanted_CC.sum(0) - hits_C, wanted_CC.sum(1) - hits_C], axis=1)
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
    found = metrics.metric_of("multilabel", "micro_f1", tallies)
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


def test_many_classes_take_little_memory():
    places_N = np.arange(1000) * 60
    found = metrics.no_rows("class", 60_000) + metrics.class_counts(places_N, places_N, 60_000)
    assert found.nbytes == 60_000 * 3 * 8
    assert metrics.accuracy(found) == 1.0


@pytest.mark.parametrize("origin", [0.0, 1e8, -1e12])
def test_r2_does_not_cancel_far_from_zero_and_adds_up_in_any_order(origin):
    true_N = origin + RNG.normal(0.0, 2.0, 3000)
    predicted_N = true_N + RNG.normal(0.0, 1.0, 3000)
    cuts = [slice(lo, lo + 300) for lo in range(0, 3000, 300)]
    parts = [metrics.regression_sums(true_N[cut], predicted_N[cut]) for cut in cuts]
    forwards = sum(parts, metrics.no_rows("number", 1))
    exact = [Fraction(y) for y in true_N.tolist()]
    assert list(forwards[:3]) == [3000, sum(exact), sum(y * y for y in exact)]
    assert list(sum(parts[::-1], metrics.no_rows("number", 1))[:3]) == list(forwards[:3])
    assert list(metrics.regression_sums(true_N, predicted_N)[:3]) == list(forwards[:3])
    found = metrics.metric_of("number", "r2", forwards).value
    assert found == pytest.approx(sk.r2_score(true_N - origin, predicted_N - origin), rel=1e-9)


def test_none_of_a_metric_with_rows_means_that_they_do_not_determine_it():
    silent = metrics.tally("multilabel", np.zeros((4, 2)), np.zeros((4, 2)))
    constant = metrics.tally("number", np.full(5, 2.7), np.full((5, 1), 2.0))
    for kind, name, tallies, num_rows in (
        ("multilabel", "micro_f1", silent, 4), ("number", "r2", constant, 5)
    ):  # fmt: skip
        found = metrics.metric_of(kind, name, tallies)
        assert (found.value, found.num_rows) == (None, num_rows)


def test_without_rows_there_is_no_value():
    for kind, tallies in (
        ("class", metrics.no_rows("class", 3)),
        ("multilabel", metrics.no_rows("multilabel", 3)),
        ("number", metrics.no_rows("number", 1)),
    ):
        for name in metrics.METRICS[kind]:
            found = metrics.metric_of(kind, name, tallies)
            assert (found.value, found.num_rows) == (None, 0)
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
