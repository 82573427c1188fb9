"""The stopping rules: labels, money, metric, time, pool. Each looks at `Progress` and nothing else.

A limit of labels or of money stops the run before the batch that would go past it. What a vendor
takes for an answer beyond its price is known only afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rayal.errors import ConfigError
from rayal.types import Progress, StoppingRule


@dataclass(frozen=True)
class MaxLabels:
    """Stops before a batch that would give the run more labels than this."""

    num_labels: int

    def __post_init__(self) -> None:
        _positive("num_labels", self.num_labels)

    def stop(self, progress: Progress) -> str | None:
        """Gives why to stop, or None."""
        after = progress.num_labels + progress.next_labels
        if progress.num_labels < self.num_labels and after <= self.num_labels:
            return None
        return (
            f"there are {progress.num_labels} labels and the next batch has "
            f"{progress.next_labels}, more than the limit of {self.num_labels}"
        )


@dataclass(frozen=True)
class MaxAmount:
    """Stops before a batch whose expected cost would bring the labels above this, in minor units of
    the labeler's currency. Answers that come dearer than expected are paid all the same: a run can
    end above the limit by what its last batch cost beyond the expected."""

    amount_minor: int

    def __post_init__(self) -> None:
        _positive("amount_minor", self.amount_minor)

    def stop(self, progress: Progress) -> str | None:
        """Gives why to stop, or None."""
        after = progress.amount_minor + progress.next_amount_minor
        if progress.amount_minor < self.amount_minor and after <= self.amount_minor:
            return None
        return (
            f"the labels cost {progress.amount_minor} minor units and the next batch "
            f"{progress.next_amount_minor}, more than the limit of {self.amount_minor}"
        )


@dataclass(frozen=True)
class TargetMetric:
    """Stops when the newest test result is at the target: at or above it where higher is better,
    at or below it where lower is. A result without a value, or NaN, never stops a run."""

    value: float

    def check(self, has_metric: bool) -> None:
        """Refuses a run whose test rows have no labels, before it costs anything.

        Raises:
            ConfigError: there will be no metric.
        """
        if not has_metric:
            raise ConfigError(
                f"the stopping rule TargetMetric(value={self.value}) needs a test metric, but no "
                "test row has a label; ingest with --label-column and a --test-share above 0, give "
                "test_labels or test_budget, or use another rule"
            )

    def stop(self, progress: Progress) -> str | None:
        """Gives why to stop, or None."""
        if not progress.tests or progress.tests[-1].value is None:
            return None
        test, found = progress.tests[-1], progress.tests[-1].value
        reached = found >= self.value if test.higher_is_better else found <= self.value
        if not reached:
            return None
        return f"{test.metric} {found:.6g} reaches the target of {self.value:.6g}"


@dataclass(frozen=True)
class WallTime:
    """Stops when the run has taken this long, waits for labels included."""

    hours: float

    def __post_init__(self) -> None:
        _positive("hours", self.hours)

    def stop(self, progress: Progress) -> str | None:
        """Gives why to stop, or None."""
        elapsed_h = progress.elapsed_s / 3600
        if elapsed_h < self.hours:
            return None
        return f"{elapsed_h:.3g} hours reach the limit of {self.hours:.3g}"


@dataclass(frozen=True)
class PoolExhausted:
    """Stops when every row of the pool has a label or is on order."""

    def stop(self, progress: Progress) -> str | None:
        """Gives why to stop, or None."""
        return "no unlabelled row is left in the pool" if progress.num_unlabelled <= 0 else None


@dataclass(frozen=True)
class AnyOf:
    """Stops when the first of its rules does, in their order; never where there are none."""

    rules: Sequence[StoppingRule] = ()

    def check(self, has_metric: bool) -> None:
        """Checks each rule that has something to check before the start.

        Raises:
            ConfigError: a rule cannot work in this run.
        """
        for rule in self.rules:
            check(rule, has_metric)

    def stop(self, progress: Progress) -> str | None:
        """Gives the first reason among the rules, or None."""
        reasons = (rule.stop(progress) for rule in self.rules)
        return next((reason for reason in reasons if reason is not None), None)


@runtime_checkable
class _Checked(Protocol):
    def check(self, has_metric: bool) -> None: ...


def check(rule: StoppingRule, has_metric: bool) -> None:
    """Refuses a rule that cannot work in a run with or without a test metric.

    Raises:
        ConfigError: the rule says so.
    """
    if isinstance(rule, _Checked):
        rule.check(has_metric)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"a stopping rule has {name}={value}; give a number above 0")
