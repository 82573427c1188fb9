"""Distances that are the same however rows are cut, blocked or threaded.

A matrix product changes in its last bits with the shape of its blocks, the number of threads and
the library, and a greedy choice among near-ties changes with it. So features are moved to an origin
among them and rounded to a grid of a power of two, with norms up to 2^25 grid units: then every
product, partial sum and squared distance is an integer below 2^53, which float64 holds exactly in
any order of summation, and ties are real ties. The price is a resolution of 2^-25 of the longest
norm, about that of float32 features themselves.

One row far out would take that resolution from all others. Where an eighth of the rows have norms
2^8 times shorter than the longest, the grid is fine: norms go up to 2^50 units, and distances are
those of exact differences (see `rayal.selectors.nearest`). `resolution` says what even that cannot
tell apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.errors import NeedsError, ScoringError
from rayal.keys import hash_u64, salt
from rayal.types import Candidates, Float64s, Slice

NORM_BITS = 25  # |x - c|^2 <= (2 x 2^25)^2 = 2^52; one bit is left for the rounding
_FINE_BITS = 50  # differences of two are below 2^53, so exact
_SHARE = 8  # one row in eight must gain from a grid that is moved or fine
_MOVE_BITS = 4  # by which their norms fall where a grid moves: most stay at 0
_FAR_BITS = 8  # by which their norms are shorter than the longest where a grid is fine
_CLEAR = 128.0  # a distance of so many times its possible error needs no remark
_BLOCK = 1 << 17  # numbers of a block of rows: 1 MiB of float64, the fastest measured
_CENTERS = 1024  # labelled rows a slice sends at a time
_DRAWN = 15  # rows of which one is the origin
_LOWEST = 1_100  # no float64 has an exponent below -1,100
_ORIGIN = salt("rayal", "grid", "origin")

AFTER_FIT = 3  # the first step that `fit` leaves free


@dataclass(frozen=True, eq=False)
class Grid:
    """A feature, or a function of it, as integers: rint((value - origin) x scale).

    What follows `moves` is set by `fit`.
    """

    feature: str
    answered: bool = False  # labelled rows stand at their label, where they have one
    of: Callable[[Float64s], Float64s] | None = None  # a module-level function of (N, D) rows
    moves: bool = True  # False: norms and dot products count, which depend on the origin
    origin: Float64s | None = None  # (D,); None: 0
    scale: float = 1.0  # a power of two
    fine: bool = False  # norms up to 2^50 units, not 2^25
    norm: float = 0.0  # of the row that is longest from the origin, in units of the feature
    longest_id: int = 0  # that row
    blur: float = 0.0  # in units of the feature; two distances differ for sure if by more

    def scaled(self, values_ND: npt.ArrayLike) -> Float64s:
        """Gives (N, D) values in grid units, not yet rounded."""
        if self.origin is None:
            return np.multiply(values_ND, self.scale, dtype=np.float64, order="C")
        moved = np.subtract(values_ND, self.origin, dtype=np.float64, order="C")
        return np.multiply(moved, self.scale, out=moved)

    def place(self, values_ND: npt.ArrayLike) -> Float64s:
        """Gives the (N, D) integers, as float64."""
        placed = self.scaled(values_ND)
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

    exponents: Counter[int]  # of all norms but 0, by power of two
    norm: float = 0.0  # the longest
    longest_id: int = 0  # the smallest id of that norm
    width: int = 0
    num_bad: int = 0
    first_bad_id: int = 0


def fit(grids: tuple[Grid, ...], candidates: Candidates, labelled: Candidates) -> tuple[Grid, ...]:
    """Gives the grids with origins and scales for these rows. O((M + L) D) time; asks both sides,
    in steps before `AFTER_FIT`, and at most 15 rows a slice travel.

    The origin is one of a few candidates drawn by id, the one that is nearest to half of them,
    where rows are nearer to it than to 0 by 4 bits; else it is 0.

    Raises:
        ScoringError: a feature holds NaN, infinite numbers, or some too large to square.
    """
    from_zero = _reaches(0, grids, candidates, labelled)
    if not any(grid.moves for grid in grids):
        return tuple(map(_scaled, grids, from_zero))
    drawn = [answer for answer in candidates.each(draw, 1, grids) if answer is not None]
    moved = tuple(_moved(grid, j, drawn) for j, grid in enumerate(grids))
    from_origin = _reaches(2, moved, candidates, labelled)
    return tuple(map(_nearer, grids, from_zero, moved, from_origin))


def reach(part: Slice, step: int, grids: tuple[Grid, ...], of_labelled: bool) -> list[Reach]:
    """Asks a slice for its longest norm on each grid; forgets what earlier asks left."""
    part.cache.clear()
    return [_reach(part, grid, of_labelled) for grid in grids]


def draw(
    part: Slice, step: int, grids: tuple[Grid, ...]
) -> tuple[npt.NDArray[np.uint64], list[np.ndarray]] | None:
    """Asks a slice for its first rows in an order that depends on ids alone: keys and features."""
    if not len(part):
        return None
    order = hash_u64(_ORIGIN, part.ids)
    rows = np.argpartition(order, min(_DRAWN, len(order)) - 1)[:_DRAWN]
    return order[rows], [
        np.concatenate([grid.plain(part, row, row + 1) for row in rows]) for grid in grids
    ]


def resolution(squares: Sequence[float], grids: tuple[Grid, ...]) -> str:
    """Gives a remark for a reason, where rounding may have moved a distance by a percent or so.

    `squares` are squared distances in units of each grid; with two grids the distance is the
    product of the two. Empty where nothing needs saying.
    """
    distances = [math.sqrt(one) / grid.scale for one, grid in zip(squares, grids, strict=True)]
    blurred = [one + grid.blur for one, grid in zip(distances, grids, strict=True)]
    blur = math.prod(blurred) - math.prod(distances)
    if math.prod(distances) >= _CLEAR * blur:
        return ""
    shares = [
        grid.blur / one if one > 0.0 else 0.0 for one, grid in zip(blurred, grids, strict=True)
    ]
    widest = grids[shares.index(max(shares))]
    return (
        f", distances give or take {blur:.2g} on a grid that reaches out to sample_id "
        f"{widest.longest_id} ({widest.norm:.3g})"
    )


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
    """Gives all labelled and pending rows on the grids, a block at a time; asks after `fit`."""
    longest, lo = max(labelled.each(_length, AFTER_FIT), default=0), 0
    while lo < longest:
        step = AFTER_FIT + 1 + lo // _CENTERS
        answers = labelled.each(_centers, step, grids, lo, lo + _CENTERS)
        lo += _CENTERS
        there = [answer for answer in answers if answer is not None]
        yield tuple(np.concatenate([answer[j] for answer in there]) for j in range(len(grids)))


# ------------------------------------------------------------------------- what slices answer


def _length(part: Slice, step: int) -> int:
    return len(part)


def _centers(
    part: Slice, step: int, grids: tuple[Grid, ...], lo: int, hi: int
) -> list[Float64s] | None:
    if lo >= len(part):  # an empty slice may carry no features at all
        return None
    return [grid.centers(part, lo, hi) for grid in grids]


def _reach(part: Slice, grid: Grid, of_labelled: bool) -> Reach:
    found = Reach(Counter())
    if not len(part):
        return found
    for lo, hi in blocks(len(part), _width(part, grid.feature)):
        values = grid.plain_centers(part, lo, hi) if of_labelled else grid.plain(part, lo, hi)
        with np.errstate(over="ignore", invalid="ignore"):
            norms_n = np.sqrt(squared_norms(grid.scaled(values)))
        bad = np.flatnonzero(~np.isfinite(norms_n))
        if len(bad):
            first_bad_id = found.first_bad_id if found.num_bad else int(part.ids[lo + bad[0]])
            found = found._replace(num_bad=found.num_bad + len(bad), first_bad_id=first_bad_id)
            continue
        counts = np.bincount(np.frexp(norms_n[norms_n > 0.0])[1] + _LOWEST)
        here = Counter({int(one) - _LOWEST: int(counts[one]) for one in np.flatnonzero(counts)})
        found = found._replace(exponents=found.exponents + here, width=values.shape[1])
        row = int(norms_n.argmax())  # the first of equals: ids ascend in a slice
        if norms_n[row] > found.norm:
            found = found._replace(norm=float(norms_n[row]), longest_id=int(part.ids[lo + row]))
    return found


def _plain(part: Slice, name: str, lo: int, hi: int) -> np.ndarray:
    values = part.feature(name)[lo:hi]
    return values.reshape(len(values), _width(part, name))  # a column of numbers is (n, 1)


def _width(part: Slice, name: str) -> int:
    return math.prod(part.feature(name).shape[1:])


# ------------------------------------------------------------------------ what the driver does


def _reaches(
    step: int, grids: tuple[Grid, ...], candidates: Candidates, labelled: Candidates
) -> list[Reach]:
    asked = candidates.each(reach, step, grids, False) + labelled.each(reach, step, grids, True)
    return [_reach_of_all(grid, [answer[j] for answer in asked]) for j, grid in enumerate(grids)]


def _reach_of_all(grid: Grid, answers: list[Reach]) -> Reach:
    bad = [answer for answer in answers if answer.num_bad]
    if bad:
        raise ScoringError(
            f"'{grid.feature}' of {sum(answer.num_bad for answer in bad)} rows holds NaN, infinite "
            "numbers, or some beyond 1e150 "
            f"(first sample_id {min(answer.first_bad_id for answer in bad)}), "
            "expected finite features; check the predictor's outputs or the pool column"
        )
    exponents = sum((answer.exponents for answer in answers), Counter[int]())
    width = max((answer.width for answer in answers), default=0)
    longest = max(answers, key=lambda one: (one.norm, -one.longest_id), default=Reach(exponents))
    return longest._replace(exponents=exponents, width=width)


def _moved(
    grid: Grid, j: int, drawn: list[tuple[npt.NDArray[np.uint64], list[np.ndarray]]]
) -> Grid:
    if not grid.moves or not drawn:
        return grid
    order = np.concatenate([keys for keys, _ in drawn])
    rows_nD = np.concatenate([rows[j] for _, rows in drawn])[np.argsort(order)[:_DRAWN]]
    rows_nD = rows_nD.astype(np.float64)
    with np.errstate(over="ignore"):
        squared_nn = [squared_norms(rows_nD - row_D) for row_D in rows_nD]
    return replace(grid, origin=rows_nD[np.median(squared_nn, axis=1).argmin()])


def _nearer(grid: Grid, from_zero: Reach, moved: Grid, from_origin: Reach) -> Grid:
    """Gives the fitted grid, moved where that brings rows nearer to the origin."""
    before, after = (_exponent(one.exponents) for one in (from_zero, from_origin))
    if moved.origin is None or (from_origin.norm > 0.0 and before - after < _MOVE_BITS):
        return _scaled(grid, from_zero)
    return _scaled(moved, from_origin)


def _exponent(exponents: Counter[int]) -> int:
    """Gives the exponent that an eighth of the norms above 0 do not pass, 0 if there are none."""
    below = 0
    for exponent in sorted(exponents):
        below += exponents[exponent]
        if _SHARE * below >= exponents.total():
            return exponent
    return 0


def _scaled(grid: Grid, reached: Reach) -> Grid:
    if reached.norm == 0.0:
        return grid
    exponent = math.frexp(reached.norm)[1]
    fine = grid.moves and exponent - _exponent(reached.exponents) > _FAR_BITS
    scale = math.ldexp(1.0, min((_FINE_BITS if fine else NORM_BITS) - exponent, 200))
    # Half a unit a coordinate and row moves a distance by sqrt(D); twice that parts two of them.
    blur = 2.0 * math.sqrt(reached.width) / scale
    return replace(
        grid, scale=scale, fine=fine, norm=reached.norm, longest_id=reached.longest_id, blur=blur
    )
