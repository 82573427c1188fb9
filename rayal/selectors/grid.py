"""Distances that are exact, and therefore the same however rows are cut, blocked or threaded.

A matrix product changes in its last bits with the shape of its blocks, the number of threads and
the library, and a greedy choice among near-ties changes with it. So features are rounded to a grid
of a power of two first, with norms up to 2^25 grid units: then every product, partial sum and
squared distance is an integer below 2^53, which float64 holds exactly in any order of summation,
and ties are real ties. The price is a resolution of 2^-25 of the largest norm, about that of the
float32 features themselves; a row 10^5 times longer than the others would take it from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.errors import NeedsError, ScoringError
from rayal.types import Candidates, Float64s, Slice

_NORM_BITS = 25  # |x - c|^2 <= (2 x 2^25)^2 = 2^52; one bit is left for the rounding
_BLOCK = 1 << 17  # numbers of a block of rows: 1 MiB of float64, the fastest measured
_CENTERS = 1024  # labelled rows a slice sends at a time


@dataclass(frozen=True)
class Grid:
    """A feature, or a function of it, as integers: rint(value x scale)."""

    feature: str
    scale: float = 1.0  # a power of two, set by `fit`
    answered: bool = False  # labelled rows stand at their label, where they have one
    of: Callable[[Float64s], Float64s] | None = None  # a module-level function of (N, D) rows

    def place(self, values_ND: npt.ArrayLike) -> Float64s:
        """Gives the (N, D) integers, as float64."""
        placed = np.multiply(values_ND, self.scale, dtype=np.float64)
        return np.rint(placed, out=placed)

    def rows(self, part: Slice, lo: int, hi: int) -> Float64s:
        """Gives rows [lo, hi) of a slice of candidates on the grid."""
        return self.place(self.plain(part, lo, hi))

    def centers(self, part: Slice, lo: int, hi: int) -> Float64s:
        """Gives rows [lo, hi) of a slice of labelled rows on the grid."""
        return self.place(self.plain_centers(part, lo, hi))

    def plain(self, part: Slice, lo: int, hi: int) -> np.ndarray:
        """Gives rows [lo, hi) of a slice of candidates, not yet rounded."""
        values = _plain(part, self.feature, lo, hi)
        return values if self.of is None else self.of(values.astype(np.float64))

    def plain_centers(self, part: Slice, lo: int, hi: int) -> np.ndarray:
        """Gives rows [lo, hi) of a slice of labelled rows, not yet rounded."""
        values = self.plain(part, lo, hi)
        if not self.answered:
            return values
        labels, pending = _plain(part, "label", lo, hi), part.feature("pending")[lo:hi]
        if labels.shape != values.shape:
            raise NeedsError(
                f"labels have shape {labels.shape[1:]} a row, '{self.feature}' {values.shape[1:]}, "
                "expected the same number of targets; greedy sampling on outputs is for regression"
            )
        return np.where(pending[:, None] | np.isnan(labels), values, labels)


class Reach(NamedTuple):
    """How far a slice's rows are from the origin, and its first row that is nowhere."""

    norm: float
    num_bad: int
    first_bad_id: int


def reach(part: Slice, step: int, grids: tuple[Grid, ...], of_labelled: bool) -> list[Reach]:
    """Asks a slice for its largest norm in each grid's feature; forgets what earlier asks left."""
    part.cache.clear()
    return [_reach(part, grid, of_labelled) for grid in grids]


def fit(grids: tuple[Grid, ...], candidates: Candidates, labelled: Candidates) -> tuple[Grid, ...]:
    """Gives the grids with the scales of these rows; asks both sides once, as step 0.

    Raises:
        ScoringError: a feature holds NaN or infinite numbers.
    """
    asked = candidates.each(reach, 0, grids, False) + labelled.each(reach, 0, grids, True)
    fitted = []
    for j, grid in enumerate(grids):
        answers = [answer[j] for answer in asked]
        bad = [answer for answer in answers if answer.num_bad]
        if bad:
            raise ScoringError(
                f"'{grid.feature}' of {sum(answer.num_bad for answer in bad)} rows holds NaN or "
                f"infinite numbers (first sample_id {min(answer.first_bad_id for answer in bad)}), "
                "expected finite features; check the predictor's outputs or the pool column"
            )
        norm = max((answer.norm for answer in answers), default=0.0)
        bits = min(_NORM_BITS - math.frexp(norm)[1], 200) if norm > 0.0 else 0
        fitted.append(replace(grid, scale=math.ldexp(1.0, bits)))
    return tuple(fitted)


def squared_distances(points_ND: Float64s, centers_JD: Float64s) -> Float64s:
    """Gives (N, J) squared distances in grid units: exact integers. One GEMM."""
    squared_NJ = points_ND @ (-2.0 * centers_JD.T)
    squared_NJ += squared_norms(points_ND)[:, None]
    squared_NJ += squared_norms(centers_JD)
    return squared_NJ


def squared_norms(points_ND: Float64s) -> Float64s:
    """Gives (N,) squared norms; each row is summed by itself, in one fixed order."""
    norms_N: Float64s = np.einsum("nd,nd->n", points_ND, points_ND)
    return norms_N


def blocks(num_rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Gives the bounds of blocks of rows whose arrays of this width fit a cache."""
    rows = max(1, _BLOCK // max(width, 1))
    for lo in range(0, num_rows, rows):
        yield lo, min(lo + rows, num_rows)


def labelled_centers(
    labelled: Candidates, grids: tuple[Grid, ...]
) -> Iterator[tuple[Float64s, ...]]:
    """Gives all labelled and pending rows on the grids, a block at a time; asks from step 1 on."""
    longest, lo = max(labelled.each(_length, 1), default=0), 0
    while lo < longest:
        answers = labelled.each(_centers, 2 + lo // _CENTERS, grids, lo, lo + _CENTERS)
        lo += _CENTERS
        there = [answer for answer in answers if answer is not None]
        yield tuple(np.concatenate([answer[j] for answer in there]) for j in range(len(grids)))


def _length(part: Slice, step: int) -> int:
    return len(part)


def _centers(
    part: Slice, step: int, grids: tuple[Grid, ...], lo: int, hi: int
) -> list[Float64s] | None:
    if lo >= len(part):  # an empty slice may carry no features at all
        return None
    return [grid.centers(part, lo, hi) for grid in grids]


def _reach(part: Slice, grid: Grid, of_labelled: bool) -> Reach:
    norm, num_bad, first_bad_id = 0.0, 0, 0
    if not len(part):
        return Reach(norm, num_bad, first_bad_id)
    for lo, hi in blocks(len(part), _width(part, grid.feature)):
        values = grid.plain_centers(part, lo, hi) if of_labelled else grid.plain(part, lo, hi)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = squared_norms(values.astype(np.float64))
        bad = np.flatnonzero(~np.isfinite(norms))
        if len(bad):
            first_bad_id = first_bad_id if num_bad else int(part.ids[lo + bad[0]])
            num_bad += len(bad)
            continue
        norm = max(norm, math.sqrt(float(norms.max(initial=0.0))))
    return Reach(norm, num_bad, first_bad_id)


def _plain(part: Slice, name: str, lo: int, hi: int) -> np.ndarray:
    values = part.feature(name)[lo:hi]
    return values.reshape(len(values), _width(part, name))  # a column of numbers is (n, 1)


def _width(part: Slice, name: str) -> int:
    return math.prod(part.feature(name).shape[1:])
