"""The space of last-layer gradients, as outer products that are never made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from rayal.selectors.grid import NORM_BITS, Grid, squared_norms
from rayal.selectors.space import Int64s, Payload, blocks, matrix
from rayal.types import Float64s, Slice

_LEAST_EXPONENT = -400  # of a unit: the longest norm has 2^25, and two units are multiplied
_SPARSE_CENTERS = 128  # their errors over J m classes stay within some 32 MiB


class GradientPoints(NamedTuple):
    """Rows: (n, C) errors and (n, D) features, each rounded, and (n,) squared norms."""

    errors: Float64s
    features: Float64s
    norms: Float64s


@dataclass(frozen=True, eq=False)
class Gradients:
    """The outer product of a = error of the probabilities and h = features.

    The squared distance of two is |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a.a')(h.h'): two matrix products
    instead of rows of C x D numbers. Every row of both factors is rounded to 2^-25 of its own norm,
    to a power of two. So the terms of a product of two rows are integers of one unit, that float64
    adds exactly in any order, and no blocking changes a distance; and a row far longer than the
    others takes no bits from them.
    """

    grids: tuple[Grid, Grid]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(grid.feature for grid in self.grids)

    @property
    def units(self) -> tuple[float, ...]:
        return tuple(1.0 / grid.scale for grid in self.grids)

    def open(self, part: Slice) -> None:
        """Keeps nothing: rows are read where they lie."""

    def rows(self, part: Slice, rows: np.ndarray) -> GradientPoints:
        """Gives the points of some rows."""
        return self.place(self.payload(part, rows))

    def payload(self, part: Slice, rows: np.ndarray) -> Payload:
        """Gives probabilities and features of some rows as they are."""
        return tuple(matrix(part, name)[rows] for name in self.features)

    def encoded(self, part: Slice, lo: int, hi: int) -> Payload:
        """Gives labelled rows [lo, hi) as they are."""
        return self.payload(part, np.arange(lo, hi))

    def place(self, payload: Payload) -> GradientPoints:
        """Gives the points of rows that travelled."""
        errors, features = (
            _rounded(grid.scaled(rows if grid.of is None else grid.of(rows.astype(np.float64))))
            for grid, rows in zip(self.grids, payload, strict=True)
        )
        return GradientPoints(errors, features, squared_norms(errors) * squared_norms(features))

    def take(self, points: GradientPoints, which: np.ndarray | slice) -> GradientPoints:
        """Gives some of the points."""
        return GradientPoints(*(array[which] for array in points))

    def nearest(
        self, points: GradientPoints, centers: GradientPoints, feature: int | None = None
    ) -> tuple[Int64s, Float64s]:
        """Gives (n,) the nearest of J centers, the lowest of equals, and (n,) squared distances."""
        product_nJ = _product(points.errors, centers.errors)
        product_nJ *= _product(points.features, centers.features)
        product_nJ *= -2.0
        product_nJ += points.norms[:, None]
        product_nJ += centers.norms
        nearest_n = product_nJ.argmin(axis=1)
        squared_n = product_nJ[np.arange(len(nearest_n)), nearest_n]
        return nearest_n, np.maximum(squared_n, 0.0)

    def squared_unit(self) -> float:
        """Gives what a squared distance of 1 is in units of squared gradients."""
        return math.prod(self.units) ** 2


def _rounded(rows_nD: Float64s) -> Float64s:
    """Puts rows into whole units, of 2^-25 of the next power of two above each one's norm."""
    exponents_n = np.frexp(np.sqrt(squared_norms(rows_nD)))[1]
    # Beside 1.5 x 2^52 units a float64 has no place for a part of one.
    shift_n1 = np.ldexp(1.5, 52 + np.maximum(exponents_n - NORM_BITS, _LEAST_EXPONENT))[:, None]
    rows, shift = torch.from_numpy(rows_nD), torch.from_numpy(shift_n1)
    rows += shift
    rows -= shift
    return rows_nD


def _product(rows_nD: Float64s, centers_JD: Float64s) -> Float64s:
    """Gives (n, J), by torch: its threads are those that a worker was given."""
    product: Float64s = torch.mm(torch.from_numpy(rows_nD), torch.from_numpy(centers_JD).T).numpy()
    return product


class SparsePoints(NamedTuple):
    """Rows of which only a few errors are kept: (n, m) classes, and the rest as of all rows."""

    classes: Int64s
    errors: Float64s
    features: Float64s
    norms: Float64s


@dataclass(frozen=True, eq=False)
class SparseGradients(Gradients):
    """The same where only the m likeliest classes of a row are known: the first feature holds their
    indices and their probabilities. The others count as 0. Where r and r' are the probability that
    two rows leave out, their squared distance is wrong by at most r^2 |h|^2 + r'^2 |h'|^2 +
    2 (r + r') |h.h'|: the last part is what one row leaves out where the other has an error, and
    falls with r alone.

    That mass is not put back as one class more, "the rest": rows whose rests lie on different
    classes would look alike there, and alone too long. Measured (softmax of normal logits, 100 to
    10,000 classes, 7 to 64 kept, 2 to 48 % left out): squared distances are wrong by 0.01 to 0.8 %
    on average as they are, by 0.1 to 15 % with such a class.

    The errors of J centers are laid out over the classes that occur in them, at most J m, so that a
    product costs m numbers a pair, and not C.
    """

    def place(self, payload: Payload) -> SparsePoints:  # type: ignore[override]
        """Gives the points of rows that travelled."""
        whole = super().place(payload)
        classes = payload[0][:, : whole.errors.shape[1]].astype(np.int64)
        return SparsePoints(classes, whole.errors, whole.features, whole.norms)

    def take(self, points: SparsePoints, which: np.ndarray | slice) -> SparsePoints:  # type: ignore[override]
        """Gives some of the points."""
        classes, errors, features, norms = points
        return SparsePoints(classes[which], errors[which], features[which], norms[which])

    def nearest(  # type: ignore[override]
        self, points: SparsePoints, centers: SparsePoints, feature: int | None = None
    ) -> tuple[Int64s, Float64s]:
        """Gives (n,) the nearest of J centers, the lowest of equals, and (n,) squared distances."""
        num_rows = len(points.norms)
        nearest_n, squared_n = np.zeros(num_rows, np.int64), np.full(num_rows, np.inf)
        for lo in range(0, len(centers.norms), _SPARSE_CENTERS):
            some = self.take(centers, np.arange(lo, min(lo + _SPARSE_CENTERS, len(centers.norms))))
            product_nJ = _sparse_product(points, some)
            product_nJ *= _product(points.features, some.features)
            product_nJ *= -2.0
            product_nJ += points.norms[:, None]
            product_nJ += some.norms
            at_n = product_nJ.argmin(axis=1)
            least_n = product_nJ[np.arange(num_rows), at_n]
            closer = least_n < squared_n
            squared_n[closer], nearest_n[closer] = least_n[closer], at_n[closer] + lo
        return nearest_n, np.maximum(squared_n, 0.0)


def top_errors(rows_n2m: Float64s) -> Float64s:
    """Gives (n, m) errors of the m likeliest classes, which come after their indices: that of the
    first is its probability less 1."""
    errors = rows_n2m[:, rows_n2m.shape[1] // 2 :].copy()
    errors[:, 0] -= 1.0
    return errors


def left_out(part: Slice, step: int, feature: str) -> float:
    """Asks a slice for the most probability that one of its rows leaves out."""
    rows_n2m = matrix(part, feature)
    most = 0.0
    for lo, hi in blocks(len(rows_n2m)):
        probs_nm = rows_n2m[lo:hi, rows_n2m.shape[1] // 2 :]
        most = max(most, 1.0 - float(probs_nm.sum(axis=1, dtype=np.float64).min()))
    return most


def _sparse_product(points: SparsePoints, centers: SparsePoints) -> Float64s:
    """Gives (n, J) dot products of errors; sums of integers, so exact in any order."""
    classes, place = np.unique(centers.classes, return_inverse=True)
    laid_out = np.zeros((len(classes), len(centers.norms)))
    place = place.reshape(centers.classes.shape)
    laid_out[place, np.arange(len(place))[:, None]] = centers.errors
    at = np.searchsorted(classes, points.classes)
    at[at == len(classes)] = 0
    errors = np.where(classes[at] == points.classes, points.errors, 0.0)
    product = np.zeros((len(errors), len(centers.norms)))
    for place_n, errors_n in zip(at.T, errors.T, strict=True):
        product += laid_out[place_n] * errors_n[:, None]
    return product
