"""The rows of a slice as float32, and who of them is nearer to one new center than to its own.

A matrix-vector product over rows where they lie takes a pass over memory and little else. On
integers (mode q) it is exact. On floats (mode f) its rounding is bounded row by row: it gives lower
bounds, and the few rows that a bound leaves in doubt are measured in float64 as everywhere else.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from rayal.selectors.codes import Codes
from rayal.selectors.floats import squared_norms
from rayal.selectors.space import blocks, matrix
from rayal.types import Float64s, Slice

_BLOCK = 4_096  # rows of a product: 2 MiB of float32 at 128 coordinates
_LEAST, _GREATEST = 1e-12, 1e12  # norms between which squares are at home in float32

Float32s = np.ndarray


def view_of(part: Slice, space: Any) -> Integers | Floats32:
    """Gives the view of an opened slice."""
    return Integers(part, space) if isinstance(space, Codes) else Floats32(part, space)


class Integers:
    """Mode q: bounds are the distances themselves."""

    unit = 1.0  # of squared distances here, in those of the space
    is_bounded = True

    def __init__(self, part: Slice, space: Codes) -> None:
        self.part, self.space = part, space
        self.norms: Float32s = part.cache["code_norms"].cpu().numpy()
        codes = part.cache["codes"]
        self.codes = matrix(part, space.feature) if codes is None else codes

    def vectors(self, rows_nD: np.ndarray) -> Float32s:
        """Gives rows that travelled as float32."""
        return rows_nD.astype(np.float32)

    def norms_of(self, vectors_nD: Float32s) -> Float32s:
        """Gives what `bounds` adds for each vector."""
        norms: Float32s = np.einsum("nd,nd->n", vectors_nD, vectors_nD)
        return norms

    def nearer(self, row_1D: np.ndarray, near_M: Float64s) -> tuple[np.ndarray, Float64s]:
        """Gives the rows that are nearer to a center than `near_M`, ascending, and (n,) squared
        distances. One pass over all rows."""
        vector = self.vectors(row_1D)
        norm = self.norms_of(vector)
        rows, squared = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for lo, hi in blocks(len(self.part), _BLOCK):
            here = _bounds(self._block(slice(lo, hi)), self.norms[lo:hi], vector[0], norm)
            which = np.flatnonzero(here < near_M[lo:hi])
            rows.append(lo + which)
            squared.append(here[which])
        return np.concatenate(rows), np.concatenate(squared).astype(np.float64)

    def measured(self, rows: np.ndarray, row_1D: np.ndarray) -> Float64s:
        """Gives (n,) squared distances of some rows to a center."""
        vector = self.vectors(row_1D)
        norm = self.norms_of(vector)
        squared = np.empty(len(rows))
        for lo, hi in blocks(len(rows), _BLOCK):
            some = rows[lo:hi]
            squared[lo:hi] = _bounds(self._block(some), self.norms[some], vector[0], norm)
        return squared

    def _block(self, rows: slice | np.ndarray) -> torch.Tensor:
        codes = self.codes
        if isinstance(codes, torch.Tensor):
            at = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(codes.device)
            return codes[at].float()
        # Three times as fast as indexing by an array.
        some = codes[rows] if isinstance(rows, slice) else np.take(codes, rows, axis=0)
        if self.part.cache["codes"] is None:
            some = self.space.encode(some)
        return torch.from_numpy(some.astype(np.float32))


class Floats32:
    """Mode f: bounds are below the squared distances, by about 10^-4 of norms."""

    def __init__(self, part: Slice, space: Any) -> None:
        self.part = part
        self.values = matrix(part, space.features[0])
        self.as_they_lie = _tensor(self.values)
        self.scale = space.scales[0]
        self.unit = self.scale**2
        with np.errstate(over="ignore"):
            self.origin = space.origins[0].astype(np.float32)
        # A product of D coordinates, its two norms and their sum, twice; of either norm.
        self.doubt = (self.values.shape[1] + 8) * 2.0**-21
        self.moved = False
        self.norms = self._norms()
        # Where rows lie farther from 0 than they spread, their products say little.
        self.moved = float(squared_norms(space.origins[0][None])[0]) > 1.0 / self.unit
        if self.moved:
            self.norms = self._norms()
        self.is_bounded = _LEAST < float(np.sqrt(self.norms.max(initial=0.0))) < _GREATEST
        self.norms *= np.float32(1.0 - self.doubt)

    def vectors(self, rows_nD: np.ndarray) -> Float32s:
        """Gives rows that travelled as float32."""
        with np.errstate(over="ignore"):
            return self._vectors(rows_nD)

    def _vectors(self, rows_nD: np.ndarray) -> Float32s:
        if not self.moved:
            return rows_nD.astype(np.float32)
        # The difference alone is rounded to float32, not what it is made of.
        width = np.float32 if np.can_cast(rows_nD.dtype, np.float32) else np.float64
        moved = np.subtract(rows_nD, self.origin.astype(width), dtype=width)
        return moved.astype(np.float32, copy=False)

    def norms_of(self, vectors_nD: Float32s) -> Float32s:
        """Gives what `bounds` adds for each vector."""
        norms: Float32s = np.einsum("nd,nd->n", vectors_nD, vectors_nD)
        return norms * np.float32(1.0 - self.doubt)

    def nearer(self, row_1D: np.ndarray, near_M: Float64s) -> tuple[np.ndarray, Float64s]:
        """Gives the rows that are nearer to a center than `near_M`, ascending, and (n,) squared
        distances. One pass over all rows."""
        if self.is_bounded:
            vector = self.vectors(row_1D)
            norm = self.norms_of(vector)
            found = [np.empty(0, np.int64)]
            for lo, hi in blocks(len(self.part), _BLOCK):
                low = _bounds(self._block(lo, hi), self.norms[lo:hi], vector[0], norm)
                found.append(lo + np.flatnonzero(low * self.unit < near_M[lo:hi]))
            rows = np.concatenate(found)
        else:
            rows = np.flatnonzero(near_M >= 0.0)
        squared = self.measured(rows, row_1D)
        closer = squared < near_M[rows]
        return rows[closer], squared[closer]

    def measured(self, rows: np.ndarray, row_1D: np.ndarray) -> Float64s:
        """Gives (n,) squared distances of some rows to a center, to the bit those of `Floats`."""
        center = np.multiply(row_1D, self.scale, dtype=np.float64)
        squared = np.empty(len(rows))
        for lo, hi in blocks(len(rows)):
            some = np.take(self.values, rows[lo:hi], axis=0)
            placed = np.multiply(some, self.scale, dtype=np.float64, order="C")
            squared[lo:hi] = squared_norms(np.subtract(placed, center, out=placed))
        return squared

    def _norms(self) -> Float32s:
        norms = np.empty(len(self.part), np.float32)
        for lo, hi in blocks(len(self.part), _BLOCK):
            block = self._block(lo, hi).numpy()
            with np.errstate(over="ignore"):
                norms[lo:hi] = np.einsum("nd,nd->n", block, block)
        return norms

    def _block(self, lo: int, hi: int) -> torch.Tensor:
        if self.as_they_lie is not None and not self.moved:
            return self.as_they_lie[lo:hi]
        return torch.from_numpy(np.ascontiguousarray(self.vectors(self.values[lo:hi])))


def _tensor(values: np.ndarray) -> torch.Tensor | None:
    """Gives rows of float32 without a copy; None: a product needs one."""
    if values.dtype != np.float32 or not values.flags.c_contiguous:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a memory map cannot be written, and nobody does
        return torch.from_numpy(values)


def bounds(view: Integers | Floats32, vectors_nD: Float32s, norms_n: Float32s, row_1D: Any) -> Any:
    """Gives (n,) lower bounds of squared distances of vectors to a row, in units of the space."""
    if not view.is_bounded:
        return np.zeros(len(vectors_nD))
    vector = view.vectors(row_1D)
    found = _bounds(torch.from_numpy(vectors_nD), norms_n, vector[0], view.norms_of(vector))
    return found.astype(np.float64) * view.unit


def _bounds(
    block_nD: torch.Tensor, norms_n: Float32s, vector_D: Float32s, norm_1: Float32s
) -> Float32s:
    low: Float32s = torch.mv(block_nD, torch.from_numpy(vector_D).to(block_nD.device)).cpu().numpy()
    low *= np.float32(-2.0)
    low += norms_n
    low += norm_1
    return low
