"""Class probabilities, fast where classes are few.

Row by row, torch and numpy take (N, C) one number at a time where C is small; class by class they
take N at once. So on a CPU the probabilities of few classes lie class by class, as a transposed
view. A bare pass of the smallest model takes 1.3 to 1.4 times as long by `softmax(1)` and `topk(2)`
(benchmarks/score.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rayal.types import Outputs

FEW = 32  # classes; with more the transposition costs what it saves
ROUGH = 2.0**-18  # what `top_three` may be off by, as a share
_NO_CLASS = np.uint32(0xFFFFFFE0)  # of the bits of a float32: all but those of 32 places
_OF_NUMPY = (torch.float32, torch.float64, torch.float16)  # it has no bfloat16

Array = npt.NDArray[Any]


def softmax(logits_NC: torch.Tensor) -> torch.Tensor:
    """Gives (N, C) probabilities, up to the last bits those of `torch.softmax`. O(N C)."""
    if not _are_few(logits_NC):
        return logits_NC.softmax(1)
    exp_CN = torch.from_numpy(np.array(logits_NC.detach().numpy().T, order="C"))
    exp_CN.sub_(exp_CN.amax(0)).exp_()
    return exp_CN.div_(exp_CN.sum(0)).t()


def top_two(outputs: Outputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives (N,) the highest and (N,) the second highest of a row's probs, 0 where there is one
    class alone. O(N C)."""
    probs_NC = outputs.probs
    if not _are_few(probs_NC) or probs_NC.shape[1] < 2:
        # Two passes for a maximum take 0.4 of the time of topk(2) on a CPU (65,536 x 30).
        first_N, place_N = outputs.likeliest
        return first_N, probs_NC.scatter(1, place_N[:, None], 0.0).amax(dim=1)
    probs_CN = _by_class(probs_NC)
    first, second = np.maximum(*probs_CN[:2]), np.minimum(*probs_CN[:2])
    low = np.empty_like(first)
    for probs_N in probs_CN[2:]:
        np.minimum(first, probs_N, out=low)
        np.maximum(second, low, out=second)
        np.maximum(first, probs_N, out=first)
    return torch.from_numpy(first), torch.from_numpy(second)


def top_three(outputs: Outputs) -> tuple[Array, Array]:
    """Gives (N, 2) the two likeliest classes of a row and (N, 3) the three highest probabilities,
    (N, 2) where there are two classes: not above the true ones, and at most `ROUGH` of them below,
    so that of nearly equal ones any comes first. O(N C)."""
    probs_NC = outputs.probs
    if not _are_few(probs_NC) or probs_NC.shape[1] < 3 or probs_NC.dtype is not torch.float32:
        found = probs_NC.topk(min(3, probs_NC.shape[1]), dim=1)
        return found.indices[:, :2].cpu().numpy(), found.values.cpu().numpy()
    # Positive floats compare as their bits do. The class takes the place of the last five bits, so
    # that maxima carry it along: a tenth of the time of topk(3) for 4,096 x 21.
    bits_CN = _by_class(probs_NC).view(np.uint32)
    ranked_3N = np.zeros((3, bits_CN.shape[1]), np.uint32)
    first, second, third = ranked_3N
    own, low, lower = (np.empty_like(first) for _ in range(3))
    for place, bits_N in enumerate(bits_CN):
        np.bitwise_and(bits_N, _NO_CLASS, out=own)
        np.bitwise_or(own, np.uint32(place), out=own)
        np.minimum(first, own, out=low)
        np.maximum(first, own, out=first)
        np.minimum(second, low, out=lower)
        np.maximum(second, low, out=second)
        np.maximum(third, lower, out=third)
    classes_2N = (ranked_3N[:2] & ~_NO_CLASS).astype(np.intp)
    return classes_2N.T, (ranked_3N & _NO_CLASS).view(np.float32).T


def class_counts(outputs: Outputs, fresh_N: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """Gives (C,) of how many rows each class is the likeliest, among the fresh ones (None: all).
    O(N C)."""
    probs_NC = outputs.probs
    if _are_few(probs_NC):
        probs_CN = _by_class(probs_NC)
        if fresh_N is not None:
            probs_CN = probs_CN[:, fresh_N]
        highest_N = probs_CN.max(0)
        counts = [np.count_nonzero(probs_N == highest_N) for probs_N in probs_CN]
        # Of equals the first is the likeliest, and NaN before all.
        if sum(counts) == len(highest_N) and not np.isnan(highest_N).any():
            return np.array(counts, np.int64)
    class_N = outputs.likeliest[1].cpu().numpy()
    if fresh_N is not None:
        class_N = class_N[fresh_N]
    return np.bincount(class_N, minlength=probs_NC.shape[1])


def _are_few(values_NC: torch.Tensor) -> bool:
    return values_NC.is_cpu and 0 < values_NC.shape[1] <= FEW and values_NC.dtype in _OF_NUMPY


def _by_class(values_NC: torch.Tensor) -> Array:
    """Gives (C, N), contiguous; no copy if that is how it lies. numpy transposes 4,096 x 10 in a
    third of torch's time."""
    return np.ascontiguousarray(values_NC.detach().numpy().T)
