"""Numbers from several annotators: a mean that outliers do not move, free of who measures high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rayal.consensus.answers import sorted_names
from rayal.errors import ConfigError, LabelError
from rayal.types import Float64s, Ids

_HUBER = 1.345  # 95 % efficient where the errors are normal: Huber, Annals of Math. Stat. 35, 1964
# An annotator whom the numbers follow seems exact, and would then be followed more: the spiral ends
# here.
_LEAST_SPREAD = 0.2
_KEPT = 0.7102  # of a normal's variance, where errors are cut off there: Huber's proposal 2
_OF_NORMAL = 1.4826  # a normal's standard deviation over its median absolute deviation


@dataclass(frozen=True)
class AgreedNumbers:
    """One number a sample, with its standard error; and how each annotator measures."""

    ids: Ids  # (L,) ascending
    value_L: Float64s
    error_L: Float64s  # standard error; 0 where all who answered agree, or nobody can be compared
    annotators: tuple[str, ...]
    bias_W: Float64s  # what an annotator's numbers lie above the agreed ones
    spread_W: Float64s  # standard deviation of its errors, the bias taken off


@dataclass(frozen=True)
class RobustMean:
    """Mean of the answers, each less its annotator's bias and weighted by its precision; answers
    beyond 1.345 standard deviations count less (Huber). O(A) a step.

    strength   answers' worth of belief that an annotator has no bias and the spread of all

    Reference: Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics
    35, 1964; the additive bias is the rater effect of a two-way layout. Biases are measured from
    their mean over the answers, since a bias that all share cannot be seen.
    """

    max_steps: int = 50
    tolerance: float = 1e-9  # of the change of a number, as a share of the spread
    strength: float = 4.0

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.tolerance < 0 or self.strength < 0:
            raise ConfigError(
                f"robust_mean has max_steps={self.max_steps}, tolerance={self.tolerance:g} and "
                f"strength={self.strength:g}; give at least 1, 0 and 0"
            )

    def agree(
        self,
        sample_ids: Sequence[int] | Ids,
        annotators: Sequence[str],
        who: Sequence[int] | npt.NDArray[np.integer],
        said: Sequence[float] | Float64s,
    ) -> AgreedNumbers:
        """Gives the number of every sample, of three columns: samples, places in `annotators`, and
        what was said.

        Raises:
            LabelError: an answer is not a finite number.
        """
        said_A = np.asarray(said, np.float64)
        bad = np.flatnonzero(~np.isfinite(said_A))
        if len(bad):
            raise LabelError(
                f"answer {int(bad[0])} (sample_id {int(sample_ids[int(bad[0])])}) is "
                f"{said_A[bad[0]]}; give finite numbers"
            )
        ids, row_A = np.unique(np.asarray(sample_ids, np.int64), return_inverse=True)
        names, annotator_A = sorted_names(annotators, who)
        order_A = np.lexsort((said_A, annotator_A, row_A))  # sums do not depend on arrival
        row_A, annotator_A, said_A = row_A[order_A], annotator_A[order_A], said_A[order_A]
        num_W = np.bincount(annotator_A, minlength=len(names)).astype(np.float64)
        bias_W, value_L = np.zeros(len(names)), _medians(row_A, said_A, len(ids))
        typical = _typical(said_A - value_L[row_A], row_A)
        spread_W = np.full(len(names), typical)
        for _ in range(self.max_steps if typical > 0 else 0):
            off_A = said_A - value_L[row_A]
            trust_A = _huber((off_A - bias_W[annotator_A]) / spread_W[annotator_A])
            trust_W = np.bincount(annotator_A, trust_A, len(names))
            sums_W = np.bincount(annotator_A, trust_A * off_A, len(names))
            bias_W = sums_W / (trust_W + self.strength)
            bias_W = bias_W - float((bias_W * num_W).sum() / num_W.sum())
            left_A = off_A - bias_W[annotator_A]
            squares_A = np.minimum(np.abs(left_A), _HUBER * spread_W[annotator_A]) ** 2
            squares_W = np.bincount(annotator_A, squares_A, len(names)) / _KEPT
            mixed_W = (squares_W + self.strength * typical**2) / (num_W + self.strength)
            spread_W = np.sqrt(mixed_W)
            spread_W = np.maximum(spread_W, _LEAST_SPREAD * typical)
            weight_A = trust_A / spread_W[annotator_A] ** 2
            sums_L = np.bincount(row_A, weight_A * (said_A - bias_W[annotator_A]), len(ids))
            after_L = sums_L / np.bincount(row_A, weight_A, len(ids))
            moved, value_L = np.abs(after_L - value_L).max(), after_L
            if moved <= self.tolerance * typical:
                break
        if typical == 0:
            return AgreedNumbers(ids, value_L, np.zeros(len(ids)), names, bias_W, spread_W)
        precision_L = np.bincount(row_A, spread_W[annotator_A] ** -2.0, len(ids))
        error_L = np.asarray(precision_L**-0.5, np.float64)
        return AgreedNumbers(ids, value_L, error_L, names, bias_W, spread_W)


def _huber(z_A: Float64s) -> Float64s:
    return np.minimum(1.0, _HUBER / np.maximum(np.abs(z_A), 1e-300))


def _medians(row_A: np.ndarray, said_A: Float64s, num_rows: int) -> Float64s:
    order_A = np.lexsort((said_A, row_A))
    start_L = np.searchsorted(row_A, np.arange(num_rows))
    num_L = np.bincount(row_A, minlength=num_rows)
    ranked_A = said_A[order_A]
    low_L = ranked_A[start_L + (num_L - 1) // 2]
    return np.asarray((low_L + ranked_A[start_L + num_L // 2]) / 2)


def _typical(off_A: Float64s, row_A: np.ndarray) -> float:
    """Gives the standard deviation of an answer, from rows that have several."""
    several_A = np.bincount(row_A)[row_A] > 1
    if not several_A.any():
        return 0.0
    num = np.bincount(row_A)[row_A][several_A]
    # A residual from a mean of n answers is too small by (n - 1) / n.
    wide = np.abs(off_A[several_A]) * np.sqrt(num / (num - 1))
    middle = _OF_NORMAL * float(np.median(wide))
    return middle or float(np.sqrt(np.mean(wide**2)))
