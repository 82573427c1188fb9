"""When each rule stops a run, and which rules are refused at the start."""

import math

import pytest

from rayal.errors import ConfigError
from rayal.stopping.rules import (
    AnyOf,
    MaxAmount,
    MaxLabels,
    PoolExhausted,
    TargetMetric,
    WallTime,
    check,
)
from rayal.types import Progress, StoppingRule, TestResult

START = {
    "round": 1,
    "num_labels": 100,
    "amount_minor": 50,
    "elapsed_s": 1_800.0,
    "num_unlabelled": 9,
    "tests": (),
}


def at(**changed):
    return Progress(**(START | changed))


def results(value, higher_is_better):
    """An older result that is at any target, and the newest."""
    older = 1e9 if higher_is_better else -1e9
    return tuple(TestResult("x", higher_is_better, each, 5) for each in (older, value))


@pytest.mark.parametrize(
    ("rule", "before", "reached", "reason"),
    [
        (MaxLabels(101), {}, {"num_labels": 101}, "there are 101 labels"),
        (
            MaxLabels(120),
            {"num_labels": 100, "next_labels": 20},
            {"num_labels": 101, "next_labels": 20},
            "101 labels and the next batch has 20, more than the limit of 120",
        ),
        (MaxAmount(60), {"amount_minor": 59}, {"amount_minor": 61}, "61 minor units"),
        (WallTime(0.5), {"elapsed_s": 1_799.0}, {}, "0.5 hours reach the limit of 0.5"),
        (PoolExhausted(), {"num_unlabelled": 1}, {"num_unlabelled": 0}, "no unlabelled row"),
        (
            TargetMetric(0.9),
            {"tests": results(0.89, True)},
            {"tests": results(0.9, True)},
            "x 0.9 reaches the target of 0.9",
        ),
        (
            TargetMetric(0.5),
            {"tests": results(0.51, False)},
            {"tests": results(0.5, False)},
            "x 0.5 reaches the target",
        ),
    ],
)
def test_a_rule_stops_at_its_limit(rule, before, reached, reason):
    assert isinstance(rule, StoppingRule)
    assert rule.stop(at(**before)) is None
    assert reason in rule.stop(at(**reached))
    check(rule, has_metric=True)


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_metric_without_a_value_stops_nothing(value):
    assert TargetMetric(0.0).stop(at()) is None
    assert TargetMetric(0.0).stop(at(tests=results(value, True))) is None


def test_any_of_gives_the_first_reason_in_its_order():
    rules = AnyOf([MaxLabels(10), MaxAmount(10), PoolExhausted()])
    assert "labels and the next" in rules.stop(at())
    assert "minor units" in rules.stop(at(num_labels=5))
    assert rules.stop(at(num_labels=5, amount_minor=5)) is None
    assert AnyOf().stop(at(num_unlabelled=0)) is None


def test_a_target_without_a_metric_is_refused_at_the_start():
    nested = AnyOf([MaxLabels(1), AnyOf([TargetMetric(0.9)])])
    for rule in (TargetMetric(0.9), nested):
        with pytest.raises(ConfigError, match=r"TargetMetric\(value=0.9\) needs a test metric"):
            check(rule, has_metric=False)
    check(AnyOf([MaxLabels(1), PoolExhausted()]), has_metric=False)


@pytest.mark.parametrize(
    "make", [lambda: MaxLabels(0), lambda: MaxAmount(-1), lambda: WallTime(math.nan)]
)
def test_limits_are_above_zero(make):
    with pytest.raises(ConfigError, match="give a number above 0"):
        make()
