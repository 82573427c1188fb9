"""Which rows are like others: equal values, or a cosine above a threshold, the same in any order.

A float32 product says it of most pairs; the few whose cosine lies within its rounding of the
threshold are measured again in float64, row by row in a fixed order, so that the answer for two
rows depends on these two rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rayal.types import Float64s, Ids, Slice

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCK_ROWS = 1_024  # a product of two blocks is 4 MiB: it stays in a cache
_PAIRS = 4_096  # measured again at a time
_DIGEST_BYTES = 16


class Carried(NamedTuple):
    """What limits must know of n rows to judge them; it travels with them."""

    groups: Ids  # (n,) codes: whole numbers as they are, text as its tag
    texts: np.ndarray  # (n,) bytes: how the group is called, where it has a name
    costs: Int64s  # (n,) in steps
    digests: np.ndarray  # (n, 16) uint8: equal where rows are duplicates; (n, 0): nobody asks
    vectors: np.ndarray  # (n, D) as they lie; (n, 0): nobody asks

    def take(self, which: Any) -> Carried:
        """Gives some of the rows."""
        return Carried(*(column[which] for column in self))


class Points(NamedTuple):
    """Rows whose cosines are asked for."""

    units: np.ndarray  # (n, D) float32 of length 1; 0 where a row has no length
    rows: np.ndarray  # (n, D) as they lie


def flat(values: np.ndarray) -> np.ndarray:
    """Gives (n, D) of n rows of any shape, also where there are none."""
    return values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64)))


def points(rows_nD: np.ndarray) -> Points:
    """Gives rows with their directions."""
    scaled_nD, lengths_n = _scaled(rows_nD)
    lengths_n[lengths_n == 0.0] = 1.0
    return Points((scaled_nD / lengths_n[:, None]).astype(np.float32), rows_nD)


def near(x: Points, y: Points, threshold: float, open_n: Mask | None = None) -> Mask:
    """Gives (n, J) where the cosine of two rows is above the threshold. O(n J D).

    With `open_n` only rows that are open must be right in every column; of the others it is enough
    that one is true.
    """
    cosines = torch.mm(torch.from_numpy(x.units), torch.from_numpy(y.units).T).numpy()
    # Rounding of both factors, and of D products and sums, to 24 bits.
    doubt = (x.units.shape[1] + 8) * 2.0**-23
    above = cosines > threshold + doubt
    open_rows = np.ones(len(above), bool) if open_n is None else open_n & ~above.any(axis=1)
    in_doubt = (np.abs(cosines - threshold) <= doubt) & open_rows[:, None]
    for which in _pairs(in_doubt):
        above[which] = _is_near(x.rows[which[0]], y.rows[which[1]], threshold)
    return above


def near_any(x: Points, others: list[Points], threshold: float) -> Mask:
    """Gives (n,) whether a row is near any of the others."""
    found = np.zeros(len(x.rows), bool)
    for y in others:
        at = np.flatnonzero(~found)
        if not len(at):
            break
        some = Points(x.units[at], x.rows[at])
        found[at] = near(some, y, threshold, np.ones(len(at), bool)).any(axis=1)
    return found


def _pairs(mask: Mask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    row_P, other_P = np.nonzero(mask)
    for lo in range(0, len(row_P), _PAIRS):
        yield row_P[lo : lo + _PAIRS], other_P[lo : lo + _PAIRS]


def _is_near(x_PD: np.ndarray, y_PD: np.ndarray, threshold: float) -> Mask:
    (x_PD, x_lengths_P), (y_PD, y_lengths_P) = _scaled(x_PD), _scaled(y_PD)
    dots_P = np.einsum("pd,pd->p", x_PD, y_PD)
    return dots_P > threshold * (x_lengths_P * y_lengths_P)


def _scaled(rows_nD: np.ndarray) -> tuple[Float64s, Float64s]:
    """Gives rows in float64, each times a power of two that keeps its square at home, and (n,)
    their lengths: no bit of a number changes, nor does a cosine."""
    values_nD = rows_nD.astype(np.float64)
    exponents_n = np.frexp(np.abs(values_nD).max(axis=1, initial=0.0))[1]
    values_nD = np.ldexp(values_nD, -exponents_n[:, None])
    return values_nD, np.sqrt(np.einsum("nd,nd->n", values_nD, values_nD))


# ---------------------------------------------------------------------------- equal values


def digests_of(values: np.ndarray) -> np.ndarray:
    """Gives (n, 16) uint8, equal where rows are; 0.0 and -0.0 are one. About 1 us a row."""
    rows = np.ascontiguousarray(flat(values))
    if rows.dtype.kind == "f":
        rows = rows + rows.dtype.type(0)
    raw, width = rows.tobytes(), rows.shape[1] * rows.itemsize
    found = b"".join(
        blake2b(raw[lo : lo + width], digest_size=_DIGEST_BYTES).digest()
        for lo in range(0, len(raw), max(width, 1))
    )
    return np.frombuffer(found, np.uint8).reshape(len(values), _DIGEST_BYTES)


def as_bytes(digests_nK: np.ndarray) -> list[bytes]:
    """Gives each digest as one value that a set can hold."""
    raw, width = np.ascontiguousarray(digests_nK).tobytes(), digests_nK.shape[1]
    return [raw[lo : lo + width] for lo in range(0, len(raw), width)] if width else []


# ------------------------------------------------------------------- what was taken before


class Kept:
    """The rows of a batch so far, and whether others are like them."""

    def __init__(self, threshold: float | None) -> None:
        self.threshold = threshold
        self.digests: set[bytes] = set()
        self._blocks: list[Points] = []
        self._rows: list[np.ndarray] = []  # less than a block
        self._num_rows = 0

    def add(self, carried: Carried) -> None:
        """Takes rows into the batch."""
        self.digests.update(as_bytes(carried.digests))
        if self.threshold is not None and len(carried.vectors):
            self._rows.append(carried.vectors)
            self._num_rows += len(carried.vectors)
            if self._num_rows >= BLOCK_ROWS:
                self._blocks.append(points(np.concatenate(self._rows)))
                self._rows, self._num_rows = [], 0

    def like(self, carried: Carried) -> Mask:
        """Gives (n,) which rows are like one of the batch. O(n B D)."""
        found = np.array([one in self.digests for one in as_bytes(carried.digests)], bool)
        if not len(found):
            found = np.zeros(len(carried.groups), bool)
        if self.threshold is None or not len(carried.vectors):
            return found
        rest = [points(np.concatenate(self._rows))] if self._rows else []
        others = [*self._blocks, *rest]
        for lo in range(0, len(found), BLOCK_ROWS):
            some = slice(lo, lo + BLOCK_ROWS)
            found[some] |= near_any(points(carried.vectors[some]), others, self.threshold)
        return found


def like_labelled(
    part: Slice, step: int, limits: Any, digests: np.ndarray, vectors: np.ndarray
) -> Mask:
    """Asks a slice of labelled rows which of some candidates are like one of its own."""
    found = np.zeros(len(vectors), bool)
    if not len(part):
        return found
    if digests.shape[1]:
        name = f"digests of {limits.value_need}"
        if name not in part.cache:
            part.cache[name] = set(as_bytes(digests_of(part.feature(limits.value_need))))
        found = np.array([one in part.cache[name] for one in as_bytes(digests)], bool)
    if limits.near is None:
        return found
    own = flat(part.feature(limits.feature))
    asked = [
        (lo, points(vectors[lo : lo + BLOCK_ROWS])) for lo in range(0, len(vectors), BLOCK_ROWS)
    ]
    for start in range(0, len(own), BLOCK_ROWS):
        block = points(own[start : start + BLOCK_ROWS])
        for lo, some in asked:
            found[lo : lo + BLOCK_ROWS] |= near_any(some, [block], limits.near)
    return found
