"""Mode f: squared distances of the values themselves, in float64, the same for any cut of rows.

A matrix product only says which centers may be nearest: in float32, and for rows of which that
leaves many in float64, where its rounding is bounded pair by pair. The distance to those, mostly
one a row, is a sum over float64 differences, each pair by itself and in one order. With several
features the distance of two rows is the product of those on each.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from rayal.errors import NeedsError
from rayal.selectors.codes import plain_rows, reach, unit_rows
from rayal.selectors.kernels import Kernel
from rayal.selectors.space import Int64s, Payload, check_extents, matrix, middle, normalised
from rayal.types import Candidates, Float64s, Slice

_CROWD = 4  # so many possible nearest centers a row ask for a tighter bound


class FloatPoints(NamedTuple):
    """Rows, one array a feature: values, values from the origin, and squared norms of those."""

    values: tuple[Float64s, ...]
    moved: tuple[Float64s, ...]
    norms: tuple[Float64s, ...]


@dataclass(frozen=True, eq=False)
class Floats:
    """Features as they are, times a power of two that keeps squares within float64."""

    features: tuple[str, ...]
    origins: tuple[Float64s, ...]  # (D,) each
    scales: tuple[float, ...]
    answered: tuple[bool, ...]  # labelled rows stand at their label, where they have one
    normalise: bool = False  # rows are divided by their norms first

    is_exact = False  # `squared` rounds, `nearest` does not

    @property
    def units(self) -> tuple[float, ...]:
        return tuple(1.0 / scale for scale in self.scales)

    def open(self, part: Slice) -> None:
        """Keeps nothing: blocks are read where they lie."""

    def rows(self, part: Slice, rows: np.ndarray) -> FloatPoints:
        """Gives the points of some rows."""
        return self.place(self.payload(part, rows))

    def payload(self, part: Slice, rows: np.ndarray) -> Payload:
        """Gives some rows as they are."""
        return tuple(matrix(part, name)[rows] for name in self.features)

    def encoded(self, part: Slice, lo: int, hi: int) -> Payload:
        """Gives labelled rows [lo, hi), at their label where that is asked for."""
        return tuple(
            answered_rows(part, name, lo, hi) if answered else matrix(part, name)[lo:hi]
            for name, answered in zip(self.features, self.answered, strict=True)
        )

    def place(self, payload: Payload) -> FloatPoints:
        """Gives the points of rows that travelled."""
        if self.normalise:
            payload = tuple(normalised(rows.astype(np.float64)) for rows in payload)
        values = tuple(
            np.multiply(rows, scale, dtype=np.float64, order="C")
            for rows, scale in zip(payload, self.scales, strict=True)
        )
        moved = tuple(
            rows - origin * scale
            for rows, origin, scale in zip(values, self.origins, self.scales, strict=True)
        )
        return FloatPoints(values, moved, tuple(squared_norms(rows) for rows in moved))

    def take(self, points: FloatPoints, which: np.ndarray | slice) -> FloatPoints:
        """Gives some of the points."""
        return FloatPoints(*(tuple(array[which] for array in arrays) for arrays in points))

    def middle(self, sample: Payload) -> Payload:
        """Gives the means of a sample, as a payload of one row."""
        return tuple(middle(rows)[None] for rows in sample)

    def nearest(
        self, points: FloatPoints, centers: FloatPoints, feature: int | None = None
    ) -> tuple[Int64s, Float64s]:
        """Gives (n,) the nearest of J centers, the lowest of equals, and (n,) squared distances;
        on one of several features where it is named by its place."""
        if feature is not None:
            points, centers = (
                FloatPoints(*(arrays[feature : feature + 1] for arrays in side))
                for side in (points, centers)
            )
        num_rows = len(points.norms[0])
        if len(centers.norms[0]) == 1:
            squared_n = self._exact(points, centers, slice(None), slice(None))
            return np.zeros(num_rows, np.int64), squared_n
        row_P, center_P = _maybe_nearest(points, centers)
        squared_P = np.empty(len(row_P))
        for lo in range(0, len(row_P), 4_096):
            which = slice(lo, lo + 4_096)
            squared_P[which] = self._exact(points, centers, row_P[which], center_P[which])
        if len(row_P) > num_rows:
            order_P = np.lexsort((center_P, squared_P, row_P))
            first_n = order_P[np.searchsorted(row_P, np.arange(num_rows))]
            center_P, squared_P = center_P[first_n], squared_P[first_n]
        return center_P, squared_P

    def squared(self, points: FloatPoints, centers: FloatPoints) -> Float64s:
        """Gives (n, J) squared distances on the one feature, as a product gives them: the last bits
        depend on the block."""
        (x_nD,), (c_JD,) = points.moved, centers.moved
        squared_nJ = _product(centers.norms[0], x_nD, c_JD)
        squared_nJ += points.norms[0][:, None]
        return np.maximum(squared_nJ, 0.0, out=squared_nJ)

    def squared_as_made(self, points: FloatPoints, centers: FloatPoints) -> np.ndarray:
        """Gives the same; a space of small numbers has them in fewer bytes."""
        return self.squared(points, centers)

    def doubt(self, points: FloatPoints, centers: FloatPoints) -> float:
        """Gives how far `squared` may be off."""
        longest = points.norms[0].max(initial=0.0) + centers.norms[0].max(initial=0.0)
        return float(longest * ((points.moved[0].shape[1] + 8) * 2.0**-51))

    def paired(self, points: FloatPoints, others: FloatPoints) -> Float64s:
        """Gives (n,) squared distances of rows and others, one each, each by itself."""
        return self._exact(points, others, slice(None), slice(None))

    def similar32(self, points: FloatPoints, centers: FloatPoints, kernel: Kernel) -> torch.Tensor:
        """Gives (n, J) similarities, float32, at most 2^-20 too low, whatever the length."""
        squared_nJ = self.squared_at_least(points, centers)
        if kernel.is_step:
            return torch.from_numpy(kernel.of(squared_nJ).astype(np.float32))
        return kernel.of32(torch.from_numpy(squared_nJ.astype(np.float32)))

    def squared_at_least(self, points: FloatPoints, centers: FloatPoints) -> Float64s:
        """Gives (n, J) squared distances or less, by no more than their doubt."""
        squared_nJ = self.squared(points, centers)
        squared_nJ -= self.doubt(points, centers)
        return np.maximum(squared_nJ, 0.0, out=squared_nJ)

    def _exact(
        self,
        points: FloatPoints,
        centers: FloatPoints,
        rows: np.ndarray | slice,
        which: np.ndarray | slice,
    ) -> Float64s:
        squared: Float64s | None = None
        for x, c in zip(points.values, centers.values, strict=True):
            one = squared_norms(x[rows] - c[which])
            squared = one if squared is None else squared * one
        assert squared is not None
        return squared


def squared_norms(rows_nD: Float64s) -> Float64s:
    """Gives (n,) squared norms; each row is summed by itself, in one fixed order."""
    norms_n: Float64s = np.einsum("nd,nd->n", rows_nD, rows_nD)
    return norms_n


def answered_rows(part: Slice, name: str, lo: int, hi: int) -> np.ndarray:
    """Gives predictions [lo, hi) of labelled rows, with the label in place of those that have one.

    Raises:
        NeedsError: labels and predictions differ in width.
    """
    values, labels = matrix(part, name)[lo:hi], matrix(part, "label")[lo:hi]
    if labels.shape != values.shape:
        raise NeedsError(
            f"labels have shape {labels.shape[1:]} a row, '{name}' {values.shape[1:]}, "
            "expected the same number of targets; greedy sampling on outputs is for regression"
        )
    pending = part.feature("pending")[lo:hi]
    return np.where(pending[:, None] | np.isnan(labels), values, labels)


def fit_floats(
    features: tuple[str, ...],
    answered: tuple[bool, ...],
    candidates: Candidates,
    labelled: Candidates,
    sample: Payload,
    first_step: int,
    normalise: bool = False,
) -> Floats:
    """Gives the space of these features. O((M + L) D): one pass over both sides a feature.

    Raises:
        ScoringError: a feature holds NaN, infinite numbers, or some too large to square; or its
            rows are too close together for that.
        NeedsError: labels and predictions differ in width.
    """
    origins, scales = [], []
    for j, (name, at_label) in enumerate(zip(features, answered, strict=True)):
        plain = unit_rows if normalise else plain_rows
        origin = middle(normalised(sample[j]) if normalise else sample[j])
        of = answered_rows if at_label else plain
        asked = [
            *candidates.each(reach, first_step + j, name, origin, plain),
            *labelled.each(reach, first_step + j, name, origin, of),
        ]
        extent = check_extents(name, asked)
        origins.append(origin)
        exponent = math.frexp(extent.norm)[1] if extent.norm else 0
        scales.append(math.ldexp(1.0, min(max(-exponent, -500), 500)))
    return Floats(features, tuple(origins), tuple(scales), answered, normalise)


def _maybe_nearest(points: FloatPoints, centers: FloatPoints) -> tuple[Int64s, Int64s]:
    """Gives pairs of rows, ascending, and the centers that rounding cannot rule out as nearest."""
    if len(points.moved) > 1 or not _is_whole_float32(torch.get_float32_matmul_precision()):
        return true_places(_may_be_nearest(points, centers))
    (x_nD,), (c_JD,) = points.moved, centers.moved
    (x_norms_n,), (c_norms_J,) = points.norms, centers.norms
    rounded = (array.astype(np.float32) for array in (c_norms_J, x_nD, c_JD))
    partial_nJ = _product(*rounded)
    # Rounding, of the rows, too, is (D + 4) 2^-23 of the sum of the two squared norms at most, of
    # which the largest is 1/4 or more (see `scales`); what float32 cannot hold is far below 2^-110.
    error_n = (x_norms_n + c_norms_J.max()) * ((x_nD.shape[1] + 8) * 2.0**-22) + 2.0**-110
    most_n = (partial_nJ.min(axis=1) + 2.0 * error_n).astype(np.float32)
    may_be = partial_nJ <= most_n[:, None]
    row_P, center_P = true_places(may_be)
    if len(row_P) <= _CROWD * len(may_be):
        return row_P, center_P
    crowded = np.flatnonzero(np.bincount(row_P, minlength=len(may_be)) > _CROWD)
    some = FloatPoints(*(tuple(array[crowded] for array in arrays) for arrays in points))
    may_be[crowded] = _may_be_nearest(some, centers)
    return true_places(may_be)


@functools.cache
def _is_whole_float32(precision: str) -> bool:
    """Whether products of float32 are of float32: torch takes fewer bits where it is told to."""
    rng = np.random.default_rng(0)
    x, c = (rng.uniform(0.5, 1.0, (96, 256)) for _ in range(2))
    said = torch.from_numpy(x.astype(np.float32)) @ torch.from_numpy(c.astype(np.float32)).T
    return precision == "highest" and bool(np.abs(said.numpy() - x @ c.T).max() < 2.0**-8)


def true_places(flags_nJ: np.ndarray) -> tuple[Int64s, Int64s]:
    """Gives where flags are true, like `np.nonzero`; eight are looked at together, as few are."""
    width = flags_nJ.shape[1]
    if width % 8 or not flags_nJ.flags.c_contiguous:
        rows, columns = np.nonzero(flags_nJ)
        return rows, columns
    words = flags_nJ.reshape(-1).view(np.uint64)
    there = np.flatnonzero(words)
    word, bit = np.nonzero(flags_nJ.reshape(-1, 8)[there])
    return np.divmod(there[word] * 8 + bit, width)


def _may_be_nearest(points: FloatPoints, centers: FloatPoints) -> np.ndarray:
    """Gives (n, J) False where the rounding of a product cannot hide the nearest center."""
    if len(points.moved) == 1:
        (x_nD,), (c_JD,) = points.moved, centers.moved
        (x_norms_n,), (c_norms_J,) = points.norms, centers.norms
        partial_nJ = _product(c_norms_J, x_nD, c_JD)
        # One bound a row, by the longest center. Rounding, here and in the sum over differences,
        # is (D + 8) 2^-51 of the sum of the two squared norms at most.
        error_n = (x_norms_n + c_norms_J.max()) * ((x_nD.shape[1] + 8) * 2.0**-51)
        may_be = partial_nJ <= (partial_nJ.min(axis=1) + 2.0 * error_n)[:, None]
        if np.count_nonzero(may_be) <= _CROWD * len(may_be):
            return may_be
    lows_nJ, highs_nJ = np.float64(1.0), np.float64(1.0)
    for x, c, x_norms, c_norms in zip(
        points.moved, centers.moved, points.norms, centers.norms, strict=True
    ):
        squared = _product(c_norms, x, c)
        squared += x_norms[:, None]
        error = np.add.outer(x_norms, c_norms) * ((x.shape[1] + 8) * 2.0**-51)
        lows_nJ = lows_nJ * np.maximum(squared - error, 0.0)
        highs_nJ = highs_nJ * (squared + error)
    least_n1 = highs_nJ.min(axis=1, keepdims=True)
    may_be = lows_nJ <= least_n1 * (1.0 + 2.0**-40)
    return may_be


def _product(norms_J: np.ndarray, x_nD: np.ndarray, c_JD: np.ndarray) -> np.ndarray:
    """Gives (n, J) |c|^2 - 2 x.c, by torch: its threads are those that a worker was given."""
    norms, x, c = (torch.from_numpy(array) for array in (norms_J, x_nD, c_JD))
    product: np.ndarray = torch.addmm(norms, x, c.T, alpha=-2.0).numpy()
    return product
