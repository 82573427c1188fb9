"""Where distances are exact: what farthest-first, coverage and D^2 sampling ask of a feature.

Two spaces give squared distances that depend on the two rows alone, and not on how rows are cut,
blocked or threaded, so that a greedy choice among near-ties never changes: `Codes` on integers
(mode q) and `Floats` on the values themselves (mode f).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rayal.errors import ScoringError
from rayal.keys import hash_u64, salt
from rayal.types import Candidates, Float64s, Slice

Int64s = npt.NDArray[np.int64]
Payload = tuple[np.ndarray, ...]  # (n, D) rows as they travel, one array a feature

BLOCK_ROWS = 2_048  # by 512 centers a product is 4 MiB of float32: it stays in a cache
BLOCK_CENTERS = 512
SAMPLED = 4_096  # rows that say where the middle is
_CLOSE = 1e-153  # distances below have squares that float64 cannot hold with all their bits
_ORIGIN = salt("rayal", "space", "origin")


class Space(Protocol):
    """Squared distances between rows, from payloads that travel. `P` is a space's own form."""

    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[float, ...]:
        """What a distance of 1 here is in units of each feature."""
        ...

    def open(self, part: Slice) -> None:
        """Makes what the space keeps of a slice, in its cache."""
        ...

    def rows(self, part: Slice, rows: np.ndarray) -> Any:
        """Gives the points (P) of some rows of a slice of candidates."""
        ...

    def payload(self, part: Slice, rows: np.ndarray) -> Payload:
        """Gives those rows as they travel."""
        ...

    def place(self, payload: Payload) -> Any:
        """Gives the points (P) of rows that travelled."""
        ...

    def take(self, points: Any, which: np.ndarray | slice) -> Any:
        """Gives some of the points."""
        ...

    def encoded(self, part: Slice, lo: int, hi: int) -> Payload:
        """Gives rows [lo, hi) of a slice of labelled rows as they travel; it was not opened."""
        ...

    def middle(self, sample: Payload) -> Payload:
        """Gives the mean of a sample, one row."""
        ...

    def nearest(
        self, points: Any, centers: Any, feature: int | None = None
    ) -> tuple[Int64s, Float64s]:
        """Gives (n,) the nearest of J centers, the lowest of equals, and (n,) squared distances; on
        one of several features where its place is given."""
        ...


class Extent(NamedTuple):
    """How far rows lie from an origin; maxima, so the same in any order."""

    norm: float = 0.0
    coordinate: float = 0.0
    width: int = 0
    num_bad: int = 0
    first_bad_id: int = 0


def matrix(part: Slice, name: str) -> np.ndarray:
    """Gives a feature as (m, D) rows, perhaps memory-mapped; a column of numbers is (m, 1)."""
    values = part.feature(name)
    return values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64)))


def blocks(num_rows: int, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, int]]:
    """Gives the bounds of blocks of rows."""
    for lo in range(0, num_rows, rows):
        yield lo, min(lo + rows, num_rows)


def equal_rows(payload: Payload) -> Int64s:
    """Gives (n,) numbers below n, the same for rows of the same bytes."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in bytes_of(payload)], np.int64)


def bytes_of(payload: Payload) -> Iterator[bytes]:
    """Gives the bytes of each row, over all features."""
    rows = [np.ascontiguousarray(array) for array in payload]
    for at in range(len(rows[0])):
        yield b"".join(array[at].tobytes() for array in rows)


def drawn(part: Slice, step: int, names: tuple[str, ...], last: int) -> tuple[Any, Payload] | None:
    """Asks a slice for the rows that come first in an order that depends on ids alone."""
    if not len(part):
        return None
    order = hash_u64(_ORIGIN, part.ids)
    first = np.flatnonzero(order <= np.uint64(last))
    if not len(first):
        return None
    if len(first) > SAMPLED:
        first = np.sort(first[np.argpartition(order[first], SAMPLED - 1)[:SAMPLED]])
    return order[first], tuple(matrix(part, name)[first] for name in names)


def sample_of(candidates: Candidates, names: tuple[str, ...], step: int) -> Payload | None:
    """Gives up to 4,096 candidates, drawn by id, in the order drawn; None where there are none."""
    # Among so many hashes twice as many as are wanted lie below this one, give or take 2 %.
    last = min((2 * SAMPLED << 64) // max(candidates.num_rows, 1), (1 << 64) - 1)
    there = [one for one in candidates.each(drawn, step, names, last) if one is not None]
    if not there:
        return None
    first = np.argsort(np.concatenate([keys for keys, _ in there]), kind="stable")[:SAMPLED]
    return tuple(np.concatenate([rows[j] for _, rows in there])[first] for j in range(len(names)))


def normalised(rows_nD: np.ndarray) -> np.ndarray:
    """Gives rows of norm 1, float32 or float64; rows of zeros stay zeros. Each row by itself."""
    rows: Float64s = rows_nD.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squared_n = np.einsum("nd,nd->n", rows, rows)
        odd = np.flatnonzero(~((squared_n > _CLOSE**2) & (squared_n < np.inf)))
        if len(odd):  # zeros, or numbers whose squares are none: their largest becomes 1 first
            largest_n = np.abs(rows[odd]).max(axis=1, initial=0.0)
            largest_n[largest_n == 0.0] = 1.0
            rows[odd] /= largest_n[:, None]
            squared_n[odd] = np.einsum("nd,nd->n", rows[odd], rows[odd])
        squared_n[squared_n == 0.0] = 1.0
        rows /= np.sqrt(squared_n)[:, None]
    return rows if rows_nD.dtype.itemsize > 4 else rows.astype(np.float32)


def middle(rows_nD: np.ndarray) -> Float64s:
    """Gives (D,) the mean of a few rows; rows that are not finite are somebody else's to refuse."""
    rows_nD = rows_nD.astype(np.float64)
    finite = np.isfinite(rows_nD).all(axis=1)
    with np.errstate(over="ignore"):
        mean_D: Float64s = (
            rows_nD[finite].mean(axis=0) if finite.any() else np.zeros_like(rows_nD[0])
        )
    return np.where(np.isfinite(mean_D), mean_D, 0.0)


def check_extents(name: str, extents: list[Extent]) -> Extent:
    """Gives the extent of all slices.

    Raises:
        ScoringError: some rows hold NaN, infinite numbers, or some too large to square; or they
            differ, but by numbers too small to square.
    """
    bad = [one for one in extents if one.num_bad]
    if bad:
        raise ScoringError(
            f"'{name}' of {sum(one.num_bad for one in bad)} rows holds NaN, infinite "
            f"numbers, or some beyond 1e150 (first sample_id "
            f"{min(one.first_bad_id for one in bad)}), expected finite features; check the "
            "predictor's outputs or the pool column"
        )
    extent = Extent(
        max((one.norm for one in extents), default=0.0),
        max((one.coordinate for one in extents), default=0.0),
        max((one.width for one in extents), default=0),
    )
    if extent.coordinate > 0.0 and extent.norm < _CLOSE:
        raise ScoringError(
            f"all rows of '{name}' lie within {extent.coordinate:.3g} of their middle in every "
            f"coordinate, expected distances above {_CLOSE:g}, whose squares float64 holds; "
            "multiply the feature by a constant"
        )
    return extent
