"""What lies near each pick: for methods that decide by something else, after they decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rayal.selectors.farthest import labelled_payloads, payload, payloads_of
from rayal.selectors.floats import FloatPoints, Floats, squared_norms
from rayal.selectors.space import blocks
from rayal.types import NO_ID, Candidates, Float64s, Ids, Picks

_STEP = 1 << 40  # beyond the steps of any method
_BLOCK_ROWS = 256
_MOST_PAIRS = 1 << 31  # of picks with labelled rows and earlier picks: seconds
_NAMES = ("labelled_distance", "nearest_id", "nearest_distance")
_LEAST, _GREATEST = 1e-100, 1e100  # largest norms between which squares are at home in float64


def feature_of(selector: Any) -> str | None:
    """Gives the feature whose distances matter to a selector, if candidates carry it."""
    feature = getattr(selector, "feature", None)
    limits = getattr(selector, "limits", None)
    if feature is None and limits is not None and limits.near is not None:
        feature = limits.feature
    return feature if feature in selector.needs else None


def with_nearest(picks: Picks, candidates: Candidates, labelled: Candidates, feature: str) -> Picks:
    """Gives the picks with the distance to the nearest labelled or pending row and with the nearest
    of those and of earlier picks, on the Euclidean distance of `feature`; what a method said of its
    own accord stays. O((B + L) B D) on the driver, left out (with a note) beyond 2^31 pairs.
    """
    if not len(picks.ids) or all(name in picks.details for name in _NAMES):
        return picks
    num_rows = len(picks.ids)
    if num_rows * (labelled.num_rows + num_rows // 2) > _MOST_PAIRS:
        said = f"{num_rows} picks are too many to say what is near each"
        return replace(picks, note="; ".join(one for one in (picks.note, said) if one))
    space = Floats((feature,), (np.zeros(1),), (1.0,), (False,))
    answers = candidates.each(payload, _STEP, space, np.sort(picks.ids))
    rows = payloads_of(answers, picks.ids.tolist()).payload
    scale = _scale(rows[0])
    if scale is None:
        return picks
    space = Floats((feature,), (np.zeros(1),), (scale,), (False,))
    points = space.place(rows)
    to_labelled, nearest_ids = _labelled(space, points, labelled)
    nearest, nearest_ids = _earlier(space, points, picks.ids, to_labelled, nearest_ids)
    found = {
        "labelled_distance": np.sqrt(to_labelled) / scale,
        "nearest_id": nearest_ids,
        "nearest_distance": np.sqrt(nearest) / scale,
    }
    found = {name: np.where(np.isinf(of), np.nan, of) for name, of in found.items()}
    found["nearest_id"] = nearest_ids
    details = dict(picks.details)
    if "labelled_distance" not in details and labelled.num_rows:
        details["labelled_distance"] = found["labelled_distance"]
    if "nearest_id" not in details and (nearest_ids != NO_ID).any():
        details["nearest_id"] = found["nearest_id"]
        details["nearest_distance"] = found["nearest_distance"]
    return replace(picks, details=details)


def _labelled(space: Floats, points: FloatPoints, labelled: Candidates) -> tuple[Float64s, Ids]:
    """Gives (B,) squared distances to the nearest labelled row, and its id."""
    num_rows = len(points.norms[0])
    least, ids = np.full(num_rows, np.inf), np.full(num_rows, NO_ID)
    if not labelled.num_rows:
        return least, ids
    for known, rows in labelled_payloads(labelled, space, _STEP):
        centers = space.place(rows)
        for lo, hi in blocks(num_rows):
            nearest, squared = space.nearest(space.take(points, np.arange(lo, hi)), centers)
            closer = squared < least[lo:hi]
            least[lo:hi][closer] = squared[closer]
            ids[lo:hi][closer] = known[nearest[closer]]
    return least, ids


def _earlier(
    space: Floats, points: FloatPoints, picked: Ids, least: Float64s, ids: Ids
) -> tuple[Float64s, Ids]:
    """Gives the same where earlier picks count, too; of equals the first."""
    least, ids = least.copy(), ids.copy()
    (values,) = points.values
    for lo, hi in blocks(len(picked), _BLOCK_ROWS):
        block = space.take(points, np.arange(lo, hi))
        for start, stop in blocks(lo, 4 * _BLOCK_ROWS):
            centers = space.take(points, np.arange(start, stop))
            nearest, squared = space.nearest(block, centers)
            closer = squared < least[lo:hi]
            least[lo:hi][closer] = squared[closer]
            ids[lo:hi][closer] = picked[start:stop][nearest[closer]]
        for row in range(lo + 1, hi):
            squared = squared_norms(values[lo:row] - values[row])
            at = int(squared.argmin())
            if squared[at] < least[row]:
                least[row], ids[row] = squared[at], picked[lo + at]
    return least, ids


def _scale(rows_BD: np.ndarray) -> float | None:
    """Gives a power of two that keeps squares within float64; None: nothing does."""
    longest = float(np.abs(rows_BD.astype(np.float64)).max(initial=0.0))
    if not np.isfinite(longest):
        return None
    if longest == 0.0 or _LEAST < longest < _GREATEST:
        return 1.0
    return float(np.ldexp(1.0, -int(np.clip(np.frexp(longest)[1], -900, 900))))
