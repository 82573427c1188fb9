"""Test metrics from tallies, and what a learning curve says.

Shards give small sums, which are added in shard order. One class a sample: (C, 3) int64 hits,
rows that were given the class wrongly, and rows of the class that were given another. Multi-label:
(C, 4) int64 true positives, false positives, false negatives and true negatives. A number: (4,)
objects [rows, sum of y, sum of y^2, sum of squared errors], of which the sums of y are exact
fractions: where y is large and varies little, what r2 takes of them is lost in the rounding of
float64 sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from rayal.errors import ConfigError
from rayal.types import Float64s, Kind, TestResult

METRICS: dict[Kind, tuple[str, ...]] = {  # the first of each is the default
    "class": ("accuracy", "macro_f1", "micro_f1"),
    "multilabel": ("micro_f1", "macro_f1"),
    "number": ("rmse", "mse", "r2"),
}
_LOWER_IS_BETTER = ("mse", "rmse")


# ------------------------------------------------------------------------------------- tallies


def class_counts(true_N: npt.ArrayLike, predicted_N: npt.ArrayLike, num_classes: int) -> np.ndarray:
    """Gives the (C, 3) int64 hits, wrongly given and missed rows of each class. O(N + C)."""
    true_N, predicted_N = np.asarray(true_N, np.int64), np.asarray(predicted_N, np.int64)
    is_hit_N = true_N == predicted_N
    parts = (true_N[is_hit_N], predicted_N[~is_hit_N], true_N[~is_hit_N])
    return np.stack([np.bincount(part, minlength=num_classes) for part in parts], axis=1)


def multilabel_counts(true_NC: npt.ArrayLike, predicted_NC: npt.ArrayLike) -> np.ndarray:
    """Gives the (C, 4) int64 true positives, false positives, false negatives and true negatives.
    O(N C)."""
    true_NC, predicted_NC = np.asarray(true_NC) > 0.5, np.asarray(predicted_NC) > 0.5
    parts = (
        true_NC & predicted_NC,
        ~true_NC & predicted_NC,
        true_NC & ~predicted_NC,
        ~true_NC & ~predicted_NC,
    )
    return np.stack([part.sum(axis=0, dtype=np.int64) for part in parts], axis=1)


def regression_sums(true_N: npt.ArrayLike, predicted_N: npt.ArrayLike) -> np.ndarray:
    """Gives (4,) objects [rows, sum of y, sum of y^2, sum of squared errors]. O(N)."""
    true_N, predicted_N = np.asarray(true_N, np.float64), np.asarray(predicted_N, np.float64)
    sum_y, sum_yy = _exact_sums(true_N)
    errors = float(((true_N - predicted_N) ** 2).sum())
    return np.asarray([len(true_N), sum_y, sum_yy, errors], object)


def _exact_sums(values_N: Float64s) -> tuple[Fraction, Fraction]:
    """Gives the sum of the values and that of their squares, without rounding: float64 numbers of
    one exponent are integers of 53 bits, and Python adds integers of any size. 0.2 us a value."""
    mantissas_N, exponents_N = np.frexp(values_N)
    integers_N = np.ldexp(mantissas_N, 53).astype(np.int64)
    total = squares = Fraction(0)
    for exponent in np.unique(exponents_N):
        integers = integers_N[exponents_N == exponent].tolist()
        unit = Fraction(2) ** (int(exponent) - 53)
        total += sum(integers) * unit
        squares += sum(integer * integer for integer in integers) * unit**2
    return total, squares


def no_rows(kind: Kind, num_outputs: int) -> np.ndarray:
    """Gives the tally of no rows: what sums start from."""
    if kind == "number":
        return np.zeros(4, object)
    return np.zeros((num_outputs, 3 if kind == "class" else 4), np.int64)


def tally(kind: Kind, truth_N: npt.ArrayLike, said_NC: np.ndarray) -> np.ndarray:
    """Gives the tally of N rows by their encoded labels and the (N, C) probs or (N, 1) preds."""
    if kind == "class":
        return class_counts(truth_N, said_NC.argmax(1), said_NC.shape[1])
    if kind == "multilabel":
        return multilabel_counts(truth_N, said_NC)
    return regression_sums(truth_N, said_NC[:, 0])


def num_tallied(kind: Kind, tallies: np.ndarray) -> int:
    """Gives how many rows a tally holds."""
    if kind == "number":
        return int(tallies[0])
    # A row is a hit or a miss of its class; with several labels, one of four things in each class.
    return int(tallies[:, [0, 2]].sum() if kind == "class" else tallies[:1].sum())


# ------------------------------------------------------------------------------------- metrics


def accuracy(counts_C3: np.ndarray) -> float | None:
    """Gives the share of rows that were given their class, None without rows."""
    total = num_tallied("class", counts_C3)
    return int(counts_C3[:, 0].sum()) / total if total else None


def per_class_recall(counts_C3: np.ndarray) -> Float64s:
    """Gives (C,) float64 shares of each true class that were found, NaN without rows of it."""
    rows_C = (counts_C3[:, 0] + counts_C3[:, 2]).astype(np.float64)
    recall_C: Float64s = np.full(len(rows_C), np.nan)
    np.divide(counts_C3[:, 0], rows_C, out=recall_C, where=rows_C > 0)
    return recall_C


def micro_f1(counts_C: np.ndarray) -> float | None:
    """Gives F1 of all decisions together, None where nothing is true or predicted."""
    hits, wrong, missed = (int(part) for part in counts_C[:, :3].sum(axis=0))
    total = 2 * hits + wrong + missed
    return 2 * hits / total if total else None


def macro_f1(counts_C: np.ndarray) -> float | None:
    """Gives the mean F1 over the classes that are true or predicted somewhere, None without any.

    A class that the test rows never show and the model never says is left out of the mean, as it
    would otherwise count as zero or as perfect by convention alone.
    """
    hits_C, totals_C = counts_C[:, 0], counts_C[:, :3] @ np.asarray([2, 1, 1])
    shown_C = totals_C > 0
    return float(np.mean(2 * hits_C[shown_C] / totals_C[shown_C])) if shown_C.any() else None


def mse(sums_4: np.ndarray) -> float | None:
    """Gives the mean squared error, None without rows."""
    return float(sums_4[3]) / int(sums_4[0]) if sums_4[0] else None


def r2(sums_4: np.ndarray) -> float | None:
    """Gives the share of variance explained, None without rows or where y does not vary."""
    rows, sum_y, sum_yy, errors = sums_4
    if not rows or not math.isfinite(errors):
        return None
    spread: Fraction = sum_yy - sum_y**2 / rows
    # A spread within the rounding of y itself is none at all.
    varies = spread > sum_yy * Fraction(1, 10**30)
    return 1.0 - float(Fraction(errors) / spread) if varies else None


def check_name(kind: Kind, name: str) -> None:
    """Refuses a metric that this kind of label does not have.

    Raises:
        ConfigError: it does not; the message lists those it has.
    """
    if name not in METRICS[kind]:
        raise ConfigError(
            f"labels of kind '{kind}' have no metric '{name}'; choose one of: "
            f"{', '.join(METRICS[kind])}"
        )


def metric_of(kind: Kind, name: str, tallies: np.ndarray) -> TestResult:
    """Gives the metric of this name. A value of None with rows means that they do not determine
    the metric.

    Raises:
        ConfigError: this kind of label has no such metric.
    """
    check_name(kind, name)
    if kind == "number":
        error = mse(tallies)
        root = None if error is None else math.sqrt(error)
        value = {"mse": error, "rmse": root, "r2": r2(tallies)}[name]
    else:
        value = {"accuracy": accuracy, "macro_f1": macro_f1, "micro_f1": micro_f1}[name](tallies)
    return TestResult(
        metric=name,
        higher_is_better=name not in _LOWER_IS_BETTER,
        value=value,
        num_rows=num_tallied(kind, tallies),
    )


# ------------------------------------------------------------------------------ learning curves


def labels_to_reach(
    curve: Sequence[tuple[float, float]], value: float, higher_is_better: bool = True
) -> float | None:
    """Gives the number of labels at which a curve first reaches a value, None where it never does.

    `curve` holds (number of labels, metric) with labels going up; between points it is a line.
    """
    sign = 1.0 if higher_is_better else -1.0
    before: tuple[float, float] | None = None
    for labels, metric in curve:
        gap = sign * (metric - value)
        if gap >= 0.0:
            if before is None:
                return float(labels)
            share = -before[1] / (gap - before[1])
            return before[0] + share * (labels - before[0])
        before = (float(labels), gap)
    return None


def labels_saved(
    curve: Sequence[tuple[float, float]],
    baseline: Sequence[tuple[float, float]],
    value: float,
    higher_is_better: bool = True,
) -> float | None:
    """Gives how many labels fewer a curve needs than a baseline to reach a value (negative: more),
    None where one of them never does."""
    mine = labels_to_reach(curve, value, higher_is_better)
    theirs = labels_to_reach(baseline, value, higher_is_better)
    return None if mine is None or theirs is None else theirs - mine


def area_under_curve(curve: Sequence[tuple[float, float]]) -> float | None:
    """Gives the mean height of a learning curve over its range of labels (trapezoids), the metric
    itself where it has one point, None where it has none."""
    if not curve:
        return None
    labels, metric = np.asarray(curve, np.float64).T
    width = labels[-1] - labels[0]
    return float(np.trapezoid(metric, labels) / width) if width > 0 else float(metric[-1])
