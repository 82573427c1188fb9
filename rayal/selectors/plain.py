"""Farthest-first the plain way, for small batches: one pass over the rows a pick, in mode f.

A pass is a float32 matrix-vector product over rows where they lie. Its rounding is bounded, and the
few rows that it leaves in doubt are measured exactly, so the picks are those of mode f. Below about
50 picks this is faster than lazy greedy, which has to learn thresholds first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from rayal.journal import journal_of
from rayal.selectors.floats import Floats, squared_norms
from rayal.selectors.lazy import TAKEN
from rayal.selectors.nearest_center import Center, News, rows_of, weights_of
from rayal.selectors.space import Extent, Payload, blocks, check_extents, matrix, middle
from rayal.types import Candidates, Float64s, Ids, Picks, Slice

if TYPE_CHECKING:
    from rayal.selectors.farthest import Farthest

MOST_PICKS = 50
MOST_CENTERS = 512
_LEAST, _GREATEST = 1e-12, 1e12  # norms between which squares are at home in float32
_IN_DOUBT = 256  # rows of a slice; more, and float32 cannot tell these rows apart


class Best(NamedTuple):
    """A slice's farthest row."""

    center: Center
    payload: Payload


def farthest(
    candidates: Candidates,
    labelled: Candidates,
    budget: int,
    method: Farthest,
    sample: Payload,
    names: tuple[Any, ...] = (),
) -> Picks | None:
    """Gives the picks, or None where float32 cannot tell the rows apart. `names`: see the journal.

    Raises:
        ScoringError: the feature holds NaN, infinite numbers, or some too large to square.
    """
    from rayal.selectors.farthest import labelled_payloads, payload, payloads_of

    (name,) = method.features
    weighted = method.weighted
    extents = [*candidates.each(_open, 3, name), *labelled.each(_open, 3, name)]
    extent = check_extents(name, [one for one, _ in extents])
    least = min((norm for _, norm in extents), default=0.0)
    if not (least > _LEAST and extent.norm < _GREATEST):
        return None
    origin = middle(sample[0])
    space = Floats((name,), (np.zeros_like(origin),), (1.0,), (False,))
    known: list[Ids] = []
    step = 30
    bounds: list[tuple[float, float] | None] = []
    for ids, rows in labelled_payloads(labelled, space, 4):
        known.append(ids)
        news = News(rows, np.empty(0, np.int64))
        bounds = candidates.each(_cover, step, news, weighted)
        step += 1
    num_labelled = sum(len(ids) for ids in known)
    journal = journal_of(candidates)
    entries = journal.begin("plain", method, budget, candidates.num_rows, num_labelled, *names)
    centers = [Center(*one) for entry in entries for one in entry["picks"]][:budget]
    if centers:
        picked = [center.sample_id for center in centers]
        news = payloads_of(candidates.each(payload, step, space, np.sort(picked)), picked)
        bounds = candidates.each(_cover, step + 1, news, weighted)
        step += 2
    while len(centers) < budget:
        if bounds:
            least = max(far - doubt for far, doubt in filter(None, bounds))
            answers = candidates.each(_exact, step, space, num_labelled, weighted, least)
        else:
            answers = candidates.each(_from, step, space, origin[None], method.start)
        best = max(
            (one for one in answers if one is not None),
            key=lambda one: (one.center.gain, -one.center.sample_id),
        )
        centers.append(best.center)
        journal.add(picks=[best.center])
        if len(centers) == budget:
            break
        news = News(best.payload, np.array([best.center.sample_id]))
        bounds = candidates.each(_cover, step + 1, news, weighted)
        step += 2
    known_ids = np.concatenate([np.empty(0, np.int64), *known])
    note = f"mode f, a small batch: {len(centers)} passes"
    return method.to_picks(centers, known_ids, (1.0,), note)


# ------------------------------------------------------------------------- what slices answer


def _open(part: Slice, step: int, name: str) -> tuple[Extent, float]:
    """Gives the extent from 0, and the least norm above 0."""
    part.cache.clear()
    if not len(part):
        return Extent(), np.inf
    values = matrix(part, name)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = _norms32(values)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        norms64 = squared_norms(values[bad].astype(np.float64))
        bad = bad[~np.isfinite(norms64)]
        if len(bad):
            return Extent(num_bad=len(bad), first_bad_id=int(part.ids[bad[0]])), 0.0
        return Extent(np.inf, np.inf, values.shape[1]), 0.0
    part.cache["name"] = name
    part.cache["norms"] = norms
    part.cache["longest"] = float(np.sqrt(norms.max()))
    part.cache["near"] = np.full(len(part), np.inf, np.float32)
    part.cache["taken"] = np.empty(0, np.int64)
    part.cache["centers"] = []
    part.cache["told"] = step
    above = norms[norms > 0.0]
    least = float(np.sqrt(above.min())) if len(above) else np.inf
    return Extent(float(np.sqrt(norms.max())), 0.0, values.shape[1]), least


def _norms32(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.float32:
        norms: np.ndarray = np.einsum("nd,nd->n", values, values)
        return norms
    norms = np.empty(len(values), np.float32)
    for lo, hi in blocks(len(values)):
        block = values[lo:hi].astype(np.float32)
        norms[lo:hi] = np.einsum("nd,nd->n", block, block)
    return norms


def _products(values: np.ndarray, center_D: np.ndarray) -> np.ndarray:
    vector = torch.from_numpy(center_D.astype(np.float32))
    if values.dtype == np.float32 and values.flags.c_contiguous:
        return torch.mv(_tensor(values), vector).numpy()
    products = np.empty(len(values), np.float32)
    for lo, hi in blocks(len(values)):
        block = torch.from_numpy(values[lo:hi].astype(np.float32))
        products[lo:hi] = torch.mv(block, vector).numpy()
    return products


def _tensor(values: np.ndarray) -> torch.Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a memory map cannot be written, and nobody does
        return torch.from_numpy(values)


def _cover(part: Slice, step: int, news: News, weighted: bool) -> tuple[float, float] | None:
    """Tells a slice of centers; asks how far its farthest row is and how far that may be off."""
    if not len(part):
        return None
    cache = part.cache
    if cache["told"] != step:  # else it is asked again: an answer was lost
        cache["told"] = step
        values, near = matrix(part, cache["name"]), cache["near"]
        (rows,) = news.payload
        norms = squared_norms(rows.astype(np.float64))
        for center_D, norm in zip(rows, norms, strict=True):
            squared = _products(values, center_D)
            squared *= np.float32(-2.0)
            squared += cache["norms"]
            squared += np.float32(norm)
            np.minimum(near, squared, out=near)
        cache["centers"].append(rows)
        cache["reach"] = max(cache.get("reach", 0.0), float(norms.max()))
        taken = rows_of(part.ids, news.ids)
        if len(taken):
            cache["taken"] = np.concatenate([cache["taken"], taken])
        near[cache["taken"]] = TAKEN
    gains, doubt = _gains(part, weights_of(part) if weighted else None)
    return float(gains.max()), doubt


def _exact(
    part: Slice, step: int, space: Floats, num_labelled: int, weighted: bool, least: float
) -> Best | None:
    """Asks for the farthest row, measured exactly; a slice where all are nearer than `least` has
    none."""
    if not len(part):
        return None
    factors = weights_of(part) if weighted else None
    gains, doubt = _gains(part, factors)
    highest = float(gains.max())
    if highest == TAKEN or highest + doubt < least:
        return None
    rows = np.flatnonzero(gains >= max(highest - 2.0 * doubt, least - doubt))
    rows = rows[gains[rows] > TAKEN]
    centers = np.concatenate(part.cache["centers"])
    if len(rows) > _IN_DOUBT:
        rows = _settled(part, space, rows, centers, factors)
    points = space.rows(part, rows)
    nearest, squared = space.nearest(points, space.place((centers,)))
    exact = squared if factors is None else squared * factors[rows]
    row = int(exact.argmax())
    to_labelled = np.inf
    if num_labelled:
        known = space.place((centers[:num_labelled],))
        to_labelled = float(space.nearest(space.take(points, np.array([row])), known)[1][0])
    at = int(rows[row])
    center = Center(
        int(part.ids[at]),
        float(part.scores[at]),
        float(exact[row]),
        float(squared[row]),
        int(nearest[row]),
        to_labelled,
    )
    return Best(center, space.payload(part, np.array([at])))


def _gains(part: Slice, factors: Float64s | None) -> tuple[np.ndarray, float]:
    """Gives float32 gains, those of taken rows below all others, and how far they may be off."""
    near, doubt = part.cache["near"], _doubt(part, part.cache["reach"])
    if factors is None:
        return near, doubt
    gains = np.full(len(near), TAKEN)
    np.multiply(near, factors, out=gains, where=near > TAKEN)  # 0 times that would be no number
    return gains, doubt * float(factors.max())


def _settled(
    part: Slice, space: Floats, rows: np.ndarray, centers: np.ndarray, factors: Float64s | None
) -> np.ndarray:
    """Gives the rows of the highest gain among many in doubt, measured block by block."""
    place = space.place((centers,))
    highest, kept = -np.inf, rows[:0]
    for lo, hi in blocks(len(rows)):
        some = rows[lo:hi]
        squared = space.nearest(space.rows(part, some), place)[1]
        gains = squared if factors is None else squared * factors[some]
        if gains.max() > highest:
            highest, kept = float(gains.max()), some[gains == gains.max()]
        elif gains.max() == highest:
            kept = np.concatenate([kept, some[gains == highest]])
    return kept[:1]


def _doubt(part: Slice, longest: float) -> float:
    """Gives how far a float32 squared distance may be off, for centers up to this squared norm.

    Twice what rounding can do to a product, its two norms and their sum.
    """
    width = matrix(part, part.cache["name"]).shape[1]
    norm = part.cache["longest"]
    return float((norm + np.sqrt(longest)) ** 2 * ((width + 8) * 2.0**-22))


def _from(part: Slice, step: int, space: Floats, origin_1D: Float64s, start: str) -> Best | None:
    """Asks for the row farthest from, or nearest to, a place."""
    if not len(part):
        return None
    values, place = matrix(part, part.cache["name"]), space.place((origin_1D,))
    norm = float(squared_norms(origin_1D)[0])
    gains = _products(values, origin_1D[0]) * np.float32(-2.0) + part.cache["norms"]
    sign = 1.0 if start == "farthest" else -1.0
    gains *= np.float32(sign)
    some = np.flatnonzero(gains >= gains.max() - 2.0 * _doubt(part, norm))
    exact = np.empty(len(some))
    for lo, hi in blocks(len(some)):
        exact[lo:hi] = sign * space.nearest(space.rows(part, some[lo:hi]), place)[1]
    row = int(exact.argmax())
    at = int(some[row])
    center = Center(
        int(part.ids[at]), float(part.scores[at]), float(exact[row]), np.inf, -1, np.inf
    )
    return Best(center, space.payload(part, np.array([at])))
