"""How far a linear head's opinion of a row can have changed, from what little is kept of the row.

A row x lies in a cell with center mu, at a distance of at most r. Between two heads the logit of a
class k changes by d_k(x) = dw_k x + db_k, and the gap from the likeliest class c to k shrinks by

    d_k(x) - d_c(x) <= d_k(mu) - d_c(mu) + |dw_k - dw_c| r        (Cauchy and Schwarz)

That is signed: a head that became surer of c lets nothing shrink. With the gaps to the second and
the third class as they were, the gap to whoever is second now is at least

    min(gap_2 - shrinks for the second, gap_3 - the most that any shrinks),

and the probability of c at least p / (p + (1 - p) e^s) for the most s that any gap shrinks by.

Rounding is in it. A float32 logit of D products in any order, with or without fused operations, is
within gamma_(D+2) (|w| |x| + |b|) of the true one, gamma_n = n u / (1 - n u), u = 2^-24 (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); a gap is two of them, under both
heads. A float32 softmax of C classes is within `softmax_error` of that of its logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rayal.models.head import LinearHead, Matrix
from rayal.types import Float64s

_UNIT_32, _UNIT_64 = 2.0**-24, 2.0**-53
_LEAST_PROB = 1e-30  # below it a float32 probability may have lost its digits
_SCORE_ROUNDING = 1e-9  # of a scorer's own arithmetic, far above what float64 is off by
_FIRSTS = (0.03, 0.06, 0.12, 0.25, 0.5, 0.9)  # probabilities that rules are made for
Whole = npt.NDArray[np.intp]
Single = npt.NDArray[np.float32]


def softmax_error(num_classes: int) -> float:
    """Gives the largest relative error of a float32 softmax, from its logits on: differences of up
    to 104 (beyond, e^-x is 0 in float32), an exponential within two units, a sum, a quotient."""
    return (num_classes + 128) * 2.0 * _UNIT_32


@dataclass(frozen=True)
class Shrinkage:
    """By how much gaps may shrink between two heads, from then to now; rows are told by (top,
    second, cell, radius). Tables are flat and float32, so that a row costs five look-ups."""

    most: Single  # (C G) at a cell's center, for the rival that comes closest
    slope: Single  # (C,) and for each unit of distance from it
    rise: Single  # (C G) what logits change by at the centers
    fall: Single  # (C G) the same for the likeliest class, without what rounding may add
    norm: Single  # (C C) |dw_k - dw_c|
    num_classes: int
    num_cells: int

    def __call__(
        self, top_N: Whole, second_N: Whole, cell_N: Whole, radius_N: Single
    ) -> tuple[Single, Single]:
        """Gives (N,) the most that the gap to any class can have shrunk by, and (N,) to `second`.
        O(N)."""
        at_N = top_N * self.num_cells + cell_N
        any_N = self.most.take(at_N) + self.slope.take(top_N) * radius_N
        one_N = self.norm.take(top_N * self.num_classes + second_N) * radius_N
        one_N += self.rise.take(second_N * self.num_cells + cell_N)
        one_N -= self.fall.take(at_N)
        return any_N, one_N


@dataclass(frozen=True)
class AtMost:
    """A shrinkage by at most one number, whichever the row and the class."""

    most: float

    def __call__(
        self, top_N: Whole, second_N: Whole, cell_N: Whole, radius_N: Single
    ) -> tuple[Single, Single]:
        """Gives (N,) that number twice."""
        most_N = np.full(len(top_N), self.most, np.float32)
        return most_N, most_N


def shrinkage(then: LinearHead, now: LinearHead, centers_GD: Matrix, farthest: float) -> Shrinkage:
    """Gives by how much gaps may shrink, for rows at most `farthest` from their center.
    O(C G D + C^2 D)."""
    change_CD, shift_C = now.weights_CD - then.weights_CD, now.bias_C - then.bias_C
    at_CG = change_CD @ centers_GD.T + shift_C[:, None]
    ranked = np.sort(at_CG, axis=0)
    highest_G, next_G = ranked[-1], ranked[-2]
    most_CG = np.where(at_CG == highest_G, next_G, highest_G) - at_CG
    width = then.weights_CD.shape[1]
    squares_C = np.einsum("cd,cd->c", change_CD, change_CD)
    sums_CC = squares_C[:, None] + squares_C
    cancelled_CC = 4.0 * _gamma(width + 4, _UNIT_64) * sums_CC
    squares_CC = np.maximum(sums_CC - 2.0 * (change_CD @ change_CD.T), 0.0) + cancelled_CC
    norm_CC = np.sqrt(squares_CC) * (1.0 + 4.0 * _UNIT_64)
    lengths_G = np.sqrt(np.einsum("gd,gd->g", centers_GD, centers_GD)) * (1.0 + 1e-12)
    slope, level = _rounding(then)
    for more_slope, more_level in (_rounding(now), _in_tables(then, now)):
        slope, level = slope + more_slope, level + more_level
    largest = max(np.abs(at_CG).max(), np.abs(most_CG).max()) + norm_CC.max() * farthest
    rounding_G = slope * lengths_G + level + 16.0 * _UNIT_32 * float(largest)
    norm_CC = (norm_CC + slope) * (1.0 + 4.0 * _UNIT_32)
    return Shrinkage(
        most=_flat(most_CG + rounding_G),
        slope=_flat(norm_CC.max(axis=1)),
        rise=_flat(at_CG),
        fall=_flat(at_CG - rounding_G),
        norm=_flat(norm_CC),
        num_classes=len(at_CG),
        num_cells=len(centers_GD),
    )


def seen_of(ranked_NK: npt.NDArray[np.floating], error: float) -> tuple[Float64s, ...]:
    """Gives what is safe to keep of probabilities with that relative error, from the two or three
    highest of a row: at most the true logarithm of the odds of the highest, and at most the true
    gaps (logarithms of ratios) to the second and the third; infinite where there is none."""
    ranked = ranked_NK.astype(np.float64)
    first_N = ranked[:, 0] * (1.0 - error)
    odds_N = np.log(first_N) - np.log1p(-first_N) - 1e-9
    logs_NK = np.log(np.maximum(ranked, _LEAST_PROB))
    gaps_NK = logs_NK[:, :1] - logs_NK[:, 1:] - _of_ratio(error)
    third_N = gaps_NK[:, 1] if gaps_NK.shape[1] > 1 else np.full(len(ranked), np.inf)
    return odds_N, gaps_NK[:, 0], third_N


def rules(
    highest: Callable[[Float64s, Float64s], Float64s], floor: float, error: float
) -> list[tuple[float, float]]:
    """Gives pairs (odds, gap): a row whose likeliest class has now at least these odds, and whose
    gaps are at least that, before the rounding of a softmax, scores below `floor`. Both are
    logarithms, so that a row is judged by sums and comparisons alone. `highest`: see `Bounded`."""
    found = []
    for first in _FIRSTS:
        gap = _least(lambda gap, p=first: _at(highest, p, gap) < floor, 0.0, 60.0)  # type: ignore[misc]
        if gap is not None:
            found.append((first, gap))
    surest = _least(lambda p: _at(highest, p, 0.0) < floor, 0.0, 1.0)
    if surest is not None:
        found.append((surest, 0.0))
    return [(_logit(p * (1.0 + 2.0 * error)), gap + _of_ratio(error)) for p, gap in found]


def _at(highest: Callable[[Float64s, Float64s], Float64s], first: float, gap: float) -> float:
    return float(highest(np.array([first]), np.array([gap]))[0]) + _SCORE_ROUNDING


def _least(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """Gives about the least number from which on something holds, where it holds."""
    if not holds(high):
        return None
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _logit(first: float) -> float:
    return math.inf if first >= 1.0 else math.log(first / (1.0 - first)) + 1e-9


def _flat(table: Matrix) -> Single:
    return table.astype(np.float32).reshape(-1)


def _of_ratio(error: float) -> float:
    """Gives what the logarithm of a ratio of two numbers with this relative error is off by."""
    return math.log1p(error) - math.log1p(-error) + 1e-9


def _rounding(head: LinearHead) -> tuple[float, float]:
    """Gives what a gap of two float32 logits may be off by: for each unit of |x|, and beside."""
    gamma = _gamma(head.weights_CD.shape[1] + 2, _UNIT_32)
    longest = float(np.sqrt(np.einsum("cd,cd->c", head.weights_CD, head.weights_CD).max()))
    bias = float(np.abs(head.bias_C).max(initial=0.0))
    return 2.0 * gamma * longest * (1.0 + 1e-12), 2.0 * gamma * bias + 1e-30


def _in_tables(then: LinearHead, now: LinearHead) -> tuple[float, float]:
    """Gives what the tables above may be off by, float64 as they are: as a rounding of both."""
    (slope, level), (more_slope, more_level) = _rounding(then), _rounding(now)
    share = 8.0 * _UNIT_64 / _UNIT_32
    return share * (slope + more_slope), share * (level + more_level)


def _gamma(number: int, unit: float) -> float:
    return number * unit / (1.0 - number * unit)
