"""Mode q: embeddings as small integers, whose distances are exact in float32 in any order.

Rows are moved to an origin and scaled so that norms stay up to 2047. Then every product, partial
sum and squared distance is an integer below 2^24, which float32 holds exactly whatever the order of
summation, the block, the thread or the device; ties are real ties. With coordinates up to 127 a row
takes a quarter of the bytes of float32. A feature that is int8 already, with such norms, is its own
code and stays where it lies, memory-mapped.

Rounding must be small beside the distances that matter; `fit_codes` says where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rayal.errors import ScoringError
from rayal.selectors.kernels import Kernel
from rayal.selectors.space import (
    Extent,
    Int64s,
    Payload,
    blocks,
    check_extents,
    matrix,
    middle,
    normalised,
)
from rayal.types import Candidates, Float64s, Slice

MAX_NORM = 2_047.0
_MAX_COORDINATE = 127.0  # of int8, a quarter of the memory of float32
_GATE = 0.5  # of 1 / (scale x median coordinate): beyond, most coordinates round to 0
_CLEAR_STEPS = 24.0  # between neighbours of the sample: rounding moves them by 0.4 steps
_NEIGHBOURS = 1_024  # rows of the sample whose neighbours are looked at
_LEAST32 = 1e-30  # squared norms below lose bits in float32, and then all of them
_CODES_BYTES = 1 << 30  # a slice whose codes are larger makes them anew at every use


class CodePoints(NamedTuple):
    """Rows on a device: (n, D) float32 integers and (n,) squared norms."""

    values: torch.Tensor
    norms: torch.Tensor


@dataclass(frozen=True, eq=False)
class Codes:
    """One feature as integers: rint((value - origin) x scale)."""

    feature: str
    origin: Float64s | None  # (D,); None: the feature is its own code
    scale: float
    dtype: str  # int8 or int16
    normalise: bool = False  # rows are divided by their norms first

    is_exact = True  # `squared` gives what `nearest` does

    @property
    def features(self) -> tuple[str, ...]:
        return (self.feature,)

    @property
    def units(self) -> tuple[float, ...]:
        return (1.0 / self.scale,)

    def open(self, part: Slice) -> None:
        """Makes codes (unless they are too many to keep) and norms of a slice."""
        if not len(part):  # it may carry no features at all
            return
        device = device_here()
        values = matrix(part, self.feature)
        norms = np.empty(len(part), np.float32)
        kept = self.origin is not None and values.size * np.dtype(self.dtype).itemsize
        codes = np.empty(values.shape, self.dtype) if 0 < kept <= _CODES_BYTES else None
        for lo, hi in blocks(len(part)):
            block = self.encode(values[lo:hi])
            norms[lo:hi] = np.einsum("nd,nd->n", block, block, dtype=np.float32)
            if codes is not None:
                codes[lo:hi] = block
        part.cache["code_norms"] = torch.from_numpy(norms).to(device)
        part.cache["codes"] = codes
        if device.type != "cpu" and codes is not None:
            part.cache["codes"] = torch.from_numpy(codes).to(device)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Gives the (n, D) codes of values of the feature."""
        if self.origin is None:
            return values
        if self.normalise:
            values = normalised(values)
        moved_nD = moved(values, self.origin, must_be_64=not 1e-30 < self.scale < 1e30)
        np.multiply(moved_nD, moved_nD.dtype.type(self.scale), out=moved_nD)
        return np.rint(moved_nD, out=moved_nD).astype(self.dtype)

    def rows(self, part: Slice, rows: np.ndarray) -> CodePoints:
        """Gives the points of some rows."""
        norms, codes = part.cache["code_norms"], part.cache["codes"]
        if isinstance(codes, torch.Tensor):
            at = torch.from_numpy(rows).to(codes.device)
            return CodePoints(codes[at].float(), norms[at])
        return CodePoints(
            torch.from_numpy(self._codes(part, rows)).to(norms.device).float(),
            norms[torch.from_numpy(rows).to(norms.device)],
        )

    def payload(self, part: Slice, rows: np.ndarray) -> Payload:
        """Gives the codes of some rows."""
        return (self._codes(part, rows),)

    def encoded(self, part: Slice, lo: int, hi: int) -> Payload:
        """Gives codes of rows [lo, hi) of a slice that was not opened, one of labelled rows."""
        return (np.ascontiguousarray(self.encode(matrix(part, self.feature)[lo:hi])),)

    def place(self, payload: Payload) -> CodePoints:
        """Gives the points of codes that travelled."""
        values = torch.from_numpy(payload[0].astype(np.float32)).to(device_here())
        return CodePoints(values, (values * values).sum(dim=1))

    def middle(self, sample: Payload) -> Payload:
        """Gives the mean of a sample, as a payload of one row."""
        if self.origin is None:
            return (np.rint(middle(sample[0])[None]).astype(self.dtype),)
        return (np.zeros((1, len(self.origin)), self.dtype),)  # it is the origin

    def take(self, points: CodePoints, which: np.ndarray | slice) -> CodePoints:
        """Gives some of the points."""
        is_slice = isinstance(which, slice)
        at = which if is_slice else torch.from_numpy(which).to(points.values.device)
        return CodePoints(points.values[at], points.norms[at])

    def nearest(
        self, points: CodePoints, centers: CodePoints, feature: int | None = None
    ) -> tuple[Int64s, Float64s]:
        """Gives (n,) the nearest of J centers and (n,) exact squared distances. One GEMM."""
        if len(centers.values) == 1:
            squared_n = torch.mv(points.values, centers.values[0]).mul_(-2.0)
            squared_n += points.norms + centers.norms[0]
            return np.zeros(len(points.norms), np.int64), squared_n.cpu().double().numpy()
        partial_nJ = torch.addmm(centers.norms, points.values, centers.values.T, alpha=-2.0)
        if partial_nJ.device.type == "cpu":
            partial = partial_nJ.numpy()
            nearest_n = partial.argmin(axis=1)  # ten times as fast as torch's, ties to the lowest
            least = torch.from_numpy(partial[np.arange(len(partial)), nearest_n])
        else:
            least, at = partial_nJ.min(dim=1)
            nearest_n = at.cpu().numpy()
        return nearest_n, (least + points.norms).cpu().double().numpy()

    def squared(self, points: CodePoints, centers: CodePoints) -> Float64s:
        """Gives (n, J) squared distances, float64; here they are exact."""
        return self._squared(points, centers).cpu().double().numpy()

    def squared_as_made(self, points: CodePoints, centers: CodePoints) -> np.ndarray:
        """Gives the same in float32, which holds them."""
        return self._squared(points, centers).cpu().numpy()

    def doubt(self, points: CodePoints, centers: CodePoints) -> float:
        """Gives how far `squared` may be off."""
        return 0.0

    def paired(self, points: CodePoints, others: CodePoints) -> Float64s:
        """Gives (n,) exact squared distances of rows and others, one each."""
        apart = points.values - others.values
        return (apart * apart).sum(dim=1).cpu().double().numpy()

    def similar32(self, points: CodePoints, centers: CodePoints, kernel: Kernel) -> torch.Tensor:
        """Gives (n, J) similarities on the CPU, float32, at most 2^-20 too low."""
        return kernel.of32(self._squared(points, centers)).cpu()

    def squared_at_least(self, points: CodePoints, centers: CodePoints) -> Float64s:
        """Gives (n, J) squared distances or less; here they are exact."""
        return self.squared(points, centers)

    def _squared(self, points: CodePoints, centers: CodePoints) -> torch.Tensor:
        squared_nJ = torch.addmm(centers.norms, points.values, centers.values.T, alpha=-2.0)
        return squared_nJ.add_(points.norms[:, None])

    def _codes(self, part: Slice, rows: np.ndarray) -> np.ndarray:
        codes = part.cache["codes"]
        if codes is None:
            return self.encode(matrix(part, self.feature)[rows])
        if _on_device(codes):
            return codes[torch.from_numpy(rows)].cpu().numpy()
        return np.take(codes, rows, axis=0)  # twice as fast as codes[rows]


def fit_codes(
    feature: str,
    candidates: Candidates,
    labelled: Candidates,
    sample_nD: np.ndarray,
    budget: int,
    first_step: int,
    force: bool = False,
    normalise: bool = False,
) -> tuple[Codes | None, str]:
    """Gives the codes, or None, and in either case why. O((M + L) D): one pass over both sides.

    int8 where the gate passes, else int16 (without the cap on coordinates), else none, or int16 by
    `force`: the gate is 1 / (scale x median |coordinate|) of at most 0.5, and neighbours in a
    sample at least 24 steps apart. The sample is drawn by id and the rest are maxima, so no slicing
    changes what is decided.

    Raises:
        ScoringError: the feature holds NaN, infinite numbers, or some too large to square; or its
            rows are too close together for that.
    """
    raw_nD, of = sample_nD, unit_rows if normalise else plain_rows
    if normalise:
        sample_nD = normalised(sample_nD)
    origin = middle(sample_nD)
    if sample_nD.dtype == np.int8 and not normalise:
        extent = _extent(feature, None, candidates, labelled, first_step, of)
        if extent.norm <= MAX_NORM:
            return Codes(feature, None, 1.0, "int8"), "int8 features are their own codes"
    extent = _extent(feature, origin, candidates, labelled, first_step + 1, of)
    if extent.norm == 0.0:
        return None, "all rows are equal"
    typical = float(np.median(np.abs(sample_nD - origin)))
    # Rounding adds up to half a step a coordinate to a norm; the rest is for float32 norms.
    by_norm = (MAX_NORM - math.sqrt(extent.width) / 2.0) / extent.norm * (1.0 - 1e-5)
    by_coordinate = _MAX_COORDINATE / extent.coordinate * (1.0 - 1e-6)
    why = ""
    for dtype, scale in (("int8", min(by_norm, by_coordinate)), ("int16", by_norm)):
        if not 0.0 < scale < math.inf:
            return None, f"{extent.width} coordinates do not fit norms of {MAX_NORM:g}"
        codes = Codes(feature, origin, scale, dtype, normalise)
        share = 1.0 / (scale * typical) if typical > 0.0 else math.inf
        steps = _typical_steps(codes.encode(raw_nD), budget)
        said = f"a step is {share:.2g} of the median coordinate (at most {_GATE} wanted), "
        said += f"neighbours are {steps:.3g} steps apart (at least {_CLEAR_STEPS:g} wanted)"
        if share <= _GATE and steps >= _CLEAR_STEPS:
            return codes, f"{dtype}: {said}"
        if force and dtype == "int16":
            return codes, f"int16 as asked, though {said}"
        why = said
    return None, why


def reach(
    part: Slice, step: int, feature: str, origin: Float64s | None, of: Callable[..., np.ndarray]
) -> Extent:
    """Asks a slice for the extent of its rows around an origin. `of(part, lo, hi)` gives rows."""
    found = Extent()
    for lo, hi in blocks(len(part)):
        values = of(part, feature, lo, hi)
        norms_n, highest_n = _norms(values, origin)
        # Row by row, so that no cut of the rows into blocks changes what is found.
        odd = np.flatnonzero(~((norms_n > _LEAST32) & (norms_n < np.inf)))
        if len(odd) and norms_n.dtype == np.float32:
            norms_n, highest_n = norms_n.astype(np.float64), highest_n.astype(np.float64)
            norms_n[odd], highest_n[odd] = _norms(values[odd], origin, must_be_64=True)
        bad = np.flatnonzero(~np.isfinite(norms_n))
        if len(bad):
            first = found.first_bad_id if found.num_bad else int(part.ids[lo + bad[0]])
            found = found._replace(num_bad=found.num_bad + len(bad), first_bad_id=first)
            continue
        norm = math.sqrt(float(norms_n.max()))
        found = found._replace(
            norm=max(found.norm, norm),
            coordinate=max(found.coordinate, float(highest_n.max())),
            width=values.shape[1],
        )
    return found


def plain_rows(part: Slice, feature: str, lo: int, hi: int) -> np.ndarray:
    """Gives rows [lo, hi) of a feature."""
    return matrix(part, feature)[lo:hi]


def unit_rows(part: Slice, feature: str, lo: int, hi: int) -> np.ndarray:
    """Gives rows [lo, hi) of a feature, of norm 1."""
    return normalised(matrix(part, feature)[lo:hi])


def moved(
    values: np.ndarray, origin: Float64s | None, must_be_64: bool = False
) -> npt.NDArray[np.floating]:
    """Gives values from an origin: float32 where that holds each value as it is, else float64."""
    holds = values.dtype.itemsize <= (4 if values.dtype.kind == "f" else 2)
    width = np.float32 if holds and not must_be_64 else np.float64
    if origin is None:
        return values.astype(width)
    from_origin: npt.NDArray[np.floating] = np.subtract(values, origin.astype(width), dtype=width)
    return from_origin


def _norms(
    values: np.ndarray, origin: Float64s | None, must_be_64: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Gives (n,) squared norms and (n,) largest coordinates."""
    with np.errstate(over="ignore", invalid="ignore"):
        moved_nD = moved(values, origin, must_be_64)
        norms_n = np.einsum("nd,nd->n", moved_nD, moved_nD)
    high_n, low_n = moved_nD.max(axis=1, initial=0.0), moved_nD.min(axis=1, initial=0.0)
    return norms_n, np.maximum(high_n, -low_n)


def _extent(
    feature: str,
    origin: Float64s | None,
    candidates: Candidates,
    labelled: Candidates,
    step: int,
    of: Callable[..., np.ndarray],
) -> Extent:
    asked = [
        *candidates.each(reach, step, feature, origin, of),
        *labelled.each(reach, step, feature, origin, of),
    ]
    return check_extents(feature, asked)


def _typical_steps(codes_nD: np.ndarray, budget: int) -> float:
    """Gives the median distance to the nearest other row of as many as will be picked, in steps.

    A batch of B is about as dense as a sample of B rows.
    """
    some = codes_nD[: min(len(codes_nD), max(budget, 64), _NEIGHBOURS)].astype(np.float32)
    if len(some) < 2:
        return math.inf
    norms = (some * some).sum(axis=1)
    squared = norms[:, None] + norms - 2.0 * (some @ some.T)
    np.fill_diagonal(squared, np.inf)
    return math.sqrt(float(np.median(squared.min(axis=1))))


_devices: dict[str, torch.device] = {}


def device_here() -> torch.device:
    """Gives where this process works on integers; checked once that its products are exact.

    Raises:
        ScoringError: they are not: the device rounds inside a float32 product.
    """
    name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in _devices:
        device = torch.device(name)
        check_exact(device)
        _devices[name] = device
    return _devices[name]


def check_exact(device: torch.device) -> None:
    """Multiplies integers of norms up to 2047 and compares with int64.

    Raises:
        ScoringError: they differ.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    rng = np.random.default_rng(0)
    for width, highest in ((16, 511), (256, 127), (1_024, 63)):
        a, b = (rng.integers(-highest, highest + 1, (96, width)) for _ in range(2))
        left, right = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (a, b))
        found = torch.addmm(left.new_zeros(96), left, right.T, alpha=-2.0)
        if not np.array_equal(found.cpu().numpy().astype(np.int64), -2 * (a @ b.T)):
            raise ScoringError(
                f"products of integers are not exact on '{device}' (width {width}), expected those "
                "of int64; set the selector's precision to 'float', or select on CPU workers"
            )


def _on_device(codes: object) -> bool:
    return isinstance(codes, torch.Tensor)
