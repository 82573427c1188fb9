"""Test metrics from tallies, and what a learning curve says.

Shards give small sums, which are added in shard order. One class a sample: a confusion matrix
(C, C) int64, true classes in rows. Multi-label: (C, 3) int64 true positives, false positives and
false negatives. A number: (4,) float64 [rows, sum of y, sum of y^2, sum of squared errors].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def confusion(true_N: npt.ArrayLike, predicted_N: npt.ArrayLike, num_classes: int) -> np.ndarray:
    """Gives the (C, C) int64 counts of (true class, predicted class). O(N + C^2)."""
    true_N, predicted_N = np.asarray(true_N, np.int64), np.asarray(predicted_N, np.int64)
    flat = np.bincount(true_N * num_classes + predicted_N, minlength=num_classes**2)
    return flat.astype(np.int64).reshape(num_classes, num_classes)


def multilabel_counts(true_NC: npt.ArrayLike, predicted_NC: npt.ArrayLike) -> np.ndarray:
    """Gives the (C, 3) int64 true positives, false positives and false negatives. O(N C)."""
    true_NC, predicted_NC = np.asarray(true_NC) > 0.5, np.asarray(predicted_NC) > 0.5
    parts = (true_NC & predicted_NC, ~true_NC & predicted_NC, true_NC & ~predicted_NC)
    return np.stack([part.sum(axis=0, dtype=np.int64) for part in parts], axis=1)


def regression_sums(true_N: npt.ArrayLike, predicted_N: npt.ArrayLike) -> Float64s:
    """Gives (4,) float64 [rows, sum of y, sum of y^2, sum of squared errors]. O(N)."""
    true_N, predicted_N = np.asarray(true_N, np.float64), np.asarray(predicted_N, np.float64)
    errors_N = true_N - predicted_N
    sums = (len(true_N), true_N.sum(), (true_N**2).sum(), (errors_N**2).sum())
    return np.asarray(sums, np.float64)


def no_rows(kind: Kind, num_outputs: int) -> np.ndarray:
    """Gives the tally of no rows: what sums start from."""
    if kind == "number":
        return np.zeros(4)
    return np.zeros((num_outputs, num_outputs if kind == "class" else 3), np.int64)


def tally(kind: Kind, truth_N: npt.ArrayLike, said_NC: np.ndarray) -> np.ndarray:
    """Gives the tally of N rows by their encoded labels and the (N, C) probs or (N, 1) preds."""
    if kind == "class":
        return confusion(truth_N, said_NC.argmax(1), said_NC.shape[1])
    if kind == "multilabel":
        return multilabel_counts(truth_N, said_NC)
    return regression_sums(truth_N, said_NC[:, 0])


# ------------------------------------------------------------------------------------- metrics


def accuracy(confusion_CC: np.ndarray) -> float | None:
    """Gives the share of rows on the diagonal, None without rows."""
    total = int(confusion_CC.sum())
    return int(np.trace(confusion_CC)) / total if total else None


def per_class_recall(confusion_CC: np.ndarray) -> Float64s:
    """Gives (C,) float64 shares of each true class that were found, NaN without rows of it."""
    rows_C = confusion_CC.sum(axis=1).astype(np.float64)
    found_C = np.diagonal(confusion_CC).astype(np.float64)
    recall_C: Float64s = np.full(len(rows_C), np.nan)
    np.divide(found_C, rows_C, out=recall_C, where=rows_C > 0)
    return recall_C


def class_counts(confusion_CC: np.ndarray) -> np.ndarray:
    """Gives the (C, 3) counts of a confusion matrix, in the form of `multilabel_counts`."""
    hits_C = np.diagonal(confusion_CC)
    misses = (confusion_CC.sum(axis=0) - hits_C, confusion_CC.sum(axis=1) - hits_C)
    return np.stack((hits_C, *misses), axis=1)


def micro_f1(counts_C3: np.ndarray) -> float | None:
    """Gives F1 of all decisions together, None where nothing is true or predicted."""
    hits, wrong, missed = (int(part) for part in counts_C3.sum(axis=0))
    total = 2 * hits + wrong + missed
    return 2 * hits / total if total else None


def macro_f1(counts_C3: np.ndarray) -> float | None:
    """Gives the mean F1 over the classes that are true or predicted somewhere, None without any.

    A class that the test rows never show and the model never says is left out of the mean, as it
    would otherwise count as zero or as perfect by convention alone.
    """
    hits_C, totals_C = counts_C3[:, 0], counts_C3 @ np.asarray([2, 1, 1])
    shown_C = totals_C > 0
    return float(np.mean(2 * hits_C[shown_C] / totals_C[shown_C])) if shown_C.any() else None


def mse(sums_4: Float64s) -> float | None:
    """Gives the mean squared error, None without rows."""
    return float(sums_4[3] / sums_4[0]) if sums_4[0] else None


def r2(sums_4: Float64s) -> float | None:
    """Gives the share of variance explained, None without rows or where y does not vary."""
    rows, sum_y, sum_yy, errors = (float(part) for part in sums_4)
    spread = sum_yy - sum_y * sum_y / rows if rows else 0.0
    # A spread within the rounding of its two terms is none at all.
    return 1.0 - errors / spread if spread > 1e-12 * sum_yy else None


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


def metric_of(
    kind: Kind, name: str, tallies: np.ndarray, num_rows: int | None = None
) -> TestResult:
    """Gives the metric of this name. `num_rows` is needed for multi-label, whose tallies do not
    hold it. A value of None means that the rows do not determine the metric.

    Raises:
        ConfigError: this kind of label has no such metric.
    """
    check_name(kind, name)
    if kind == "number":
        error = mse(tallies)
        root = None if error is None else math.sqrt(error)
        value = {"mse": error, "rmse": root, "r2": r2(tallies)}[name]
        rows = int(tallies[0])
    else:
        counts_C3 = class_counts(tallies) if kind == "class" else tallies
        if name == "accuracy":
            value = accuracy(tallies)
        else:
            value = macro_f1(counts_C3) if name == "macro_f1" else micro_f1(counts_C3)
        rows = int(tallies.sum()) if kind == "class" else 0
    return TestResult(
        metric=name,
        higher_is_better=name not in _LOWER_IS_BETTER,
        value=value,
        num_rows=rows if num_rows is None else num_rows,
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
