"""The loops that a careful person writes: one pass over all rows a pick, nothing else.

They are what benchmarks/select.py measures rayal beside, and what its picks must equal. Products
are torch's on one thread, the rest is NumPy in place; norms are made once. Where two rows are
equally good the first is picked. A loop yields picks for as long as it is asked for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

Array = np.ndarray


class Gradients(NamedTuple):
    """What BADGE measures distances between."""

    to_row: Callable[[int], Array]  # (N,) squared distances to a row
    norms_N: Array  # squared
    num_bytes: int  # that a pick passes over


def farthest(rows_ND: Array, first: int | None = None) -> Iterator[int]:
    """Yields picks of k-center, each the farthest from those before; in the rows' own precision.
    Without a first one it is the row farthest from the mean."""
    rows = torch.from_numpy(rows_ND)
    norms_N = np.einsum("nd,nd->n", rows_ND, rows_ND)
    squared = torch.empty(len(rows), dtype=rows.dtype)
    squared_N = squared.numpy()  # the same memory

    def measure(center: torch.Tensor) -> None:
        torch.mv(rows, center, out=squared)
        np.multiply(squared_N, -2.0, out=squared_N)
        np.add(squared_N, norms_N, out=squared_N)
        np.add(squared_N, float(center @ center), out=squared_N)

    if first is None:
        measure(rows.mean(dim=0))
        first = int(squared_N.argmax())
    nearest_N = np.full(len(rows), np.inf, rows_ND.dtype)
    at = first
    while True:
        yield at
        measure(rows[at])
        np.minimum(nearest_N, squared_N, out=nearest_N)
        nearest_N[at] = -np.inf
        at = int(nearest_N.argmax())


def textbook(rows_ND: Array, known_LD: Array, first: int | None = None) -> Iterator[int]:
    """Yields picks of k-center by float64 differences, from labelled rows or from a first pick."""
    rows_ND = rows_ND.astype(np.float64)
    nearest_N = np.full(len(rows_ND), np.inf)

    def cover(center_D: Array) -> None:
        apart_ND = rows_ND - center_D
        np.minimum(nearest_N, np.einsum("nd,nd->n", apart_ND, apart_ND), out=nearest_N)

    for center_D in known_LD.astype(np.float64):
        cover(center_D)
    at = int(nearest_N.argmax()) if first is None else first
    while True:
        yield at
        cover(rows_ND[at])
        nearest_N[at] = -np.inf
        at = int(nearest_N.argmax())


def d_squared(to_row: Callable[[int], Array], first: int, seed: int) -> Iterator[int]:
    """Yields picks drawn in proportion to the squared distance to the nearest one before. One
    uniform number a pick: what gives the same distances picks the same rows."""
    rng = np.random.default_rng(seed)
    nearest_N = np.full(len(to_row(first)), np.inf)
    at = first
    while True:
        yield at
        squared_N = to_row(at)
        np.maximum(squared_N, 0.0, out=squared_N)
        np.minimum(nearest_N, squared_N, out=nearest_N)
        nearest_N[at] = 0.0
        sums_N = np.cumsum(nearest_N)
        at = int(np.searchsorted(sums_N, rng.random() * sums_N[-1], side="right"))
        at = min(at, len(sums_N) - 1)


def rows_apart(rows_ND: Array) -> Callable[[int], Array]:
    """Gives what measures all rows against one: a matrix-vector product."""
    rows, norms_N = torch.from_numpy(rows_ND), np.einsum("nd,nd->n", rows_ND, rows_ND)

    def to_row(at: int) -> Array:
        squared_N = torch.mv(rows, rows[at]).numpy()
        np.multiply(squared_N, -2.0, out=squared_N)
        np.add(squared_N, norms_N, out=squared_N)
        return np.add(squared_N, norms_N[at], out=squared_N)

    return to_row


def materialised(errors_NC: Array, features_ND: Array) -> Gradients:
    """Gives BADGE's distances on gradients that are made: N rows of C x D numbers."""
    outer = errors_NC[:, :, None] * features_ND[:, None, :]
    rows_NP = outer.reshape(len(errors_NC), -1)
    norms_N = np.einsum("np,np->n", rows_NP, rows_NP)
    return Gradients(rows_apart(rows_NP), norms_N, rows_NP.nbytes)


def factorised(errors_NC: Array, features_ND: Array) -> Gradients:
    """Gives the same distances by two matrix-vector products: (a.a') (h.h')."""
    errors, features = torch.from_numpy(errors_NC), torch.from_numpy(features_ND)
    norms_N = np.einsum("nc,nc->n", errors_NC, errors_NC)
    norms_N *= np.einsum("nd,nd->n", features_ND, features_ND)

    def to_row(at: int) -> Array:
        squared_N = torch.mv(errors, errors[at]).numpy()
        np.multiply(squared_N, torch.mv(features, features[at]).numpy(), out=squared_N)
        np.multiply(squared_N, -2.0, out=squared_N)
        np.add(squared_N, norms_N, out=squared_N)
        return np.add(squared_N, norms_N[at], out=squared_N)

    return Gradients(to_row, norms_N, errors_NC.nbytes + features_ND.nbytes)


def errors_of(probs_NC: Array) -> Array:
    """Gives p - onehot(argmax p)."""
    errors_NC = probs_NC.copy()
    errors_NC[np.arange(len(errors_NC)), probs_NC.argmax(axis=1)] -= 1.0
    return errors_NC


def similarities(rows_ND: Array, references_RD: Array, length_squared: float) -> Array:
    """Gives (N, R) float32 exp(-d^2 / length^2): the kernel, kept whole."""
    rows, references = torch.from_numpy(rows_ND), torch.from_numpy(references_RD)
    norms_R = (references * references).sum(dim=1)
    similar = torch.empty(len(rows), len(references))
    for lo in range(0, len(rows), 4_096):
        block = rows[lo : lo + 4_096]
        squared = torch.addmm(norms_R, block, references.T, alpha=-2.0)
        squared += (block * block).sum(dim=1)[:, None]
        torch.exp(squared.clamp_(min=0.0).mul_(-1.0 / length_squared), out=similar[lo : lo + 4_096])
    return similar.numpy()


def coverage(similar_NR: Array) -> Iterator[int]:
    """Yields picks that add most to sum_r max over picks of k(r, x), one pass over the kernel each,
    128 rows at a time: what they add stays in a cache."""
    similar = torch.from_numpy(similar_NR)
    best_R = torch.zeros(similar.shape[1])
    ones_R = torch.ones(similar.shape[1])
    added = torch.empty(128, similar.shape[1])
    gains = torch.empty(len(similar))
    picks: list[int] = []
    while True:
        for lo in range(0, len(similar), len(added)):
            block = similar[lo : lo + len(added)]
            room = torch.sub(block, best_R, out=added[: len(block)]).clamp_(min=0.0)
            torch.mv(room, ones_R, out=gains[lo : lo + len(block)])
        gains[picks] = -1.0
        picks.append(int(gains.numpy().argmax()))
        yield picks[-1]
        best_R = torch.maximum(best_R, similar[picks[-1]])


def log_det(rows_ND: Array, ridge: float) -> Iterator[int]:
    """Yields picks that add most to log det(ridge I + sum of x x'), in float64: a matrix-vector
    product a pick brings x' M^-1 x of all rows up to date."""
    rows = torch.from_numpy(rows_ND.astype(np.float64))
    inverse = torch.eye(rows.shape[1], dtype=torch.float64) / ridge
    volumes_N = (torch.einsum("nd,nd->n", rows, rows) / ridge).numpy()
    dots = torch.empty(len(rows), dtype=torch.float64)
    dots_N = dots.numpy()  # the same memory
    while True:
        at = int(volumes_N.argmax())
        yield at
        row = rows[at]
        moved = inverse @ row
        stretch = 1.0 + float(row @ moved)
        torch.mv(rows, moved, out=dots)
        np.multiply(dots_N, dots_N, out=dots_N)
        np.multiply(dots_N, 1.0 / stretch, out=dots_N)
        np.subtract(volumes_N, dots_N, out=volumes_N)
        volumes_N[at] = -np.inf
        inverse -= torch.outer(moved, moved) / stretch
