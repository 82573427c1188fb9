"""Similarities that fall with the distance: 1 at 0, and never below 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from rayal.types import Float64s

_SHORTEST, _LONGEST = 1e-150, 1e150  # lengths whose squares, and one over those, are numbers
_GREATEST32 = 3e38

KernelName = Literal["rbf", "cosine", "ball"]


@dataclass(frozen=True)
class Kernel:
    """k(d^2), elementwise in float64; `length` in units of the feature, `unit` of the distances."""

    name: KernelName
    length: float  # rbf: exp(-d^2 / length^2); ball: 1 up to it; cosine: unit vectors, none
    unit: float = 1.0  # what a distance of 1 is in units of the feature

    @property
    def is_step(self) -> bool:
        """Whether a rounding error of a distance can move the value by 1."""
        return self.name == "ball"

    def of(self, squared: Float64s) -> Float64s:
        """Gives the similarity at squared distances; each number by itself."""
        if self.name == "ball":
            return (squared <= self._length_squared).astype(np.float64)
        if self.name == "cosine":
            similar: Float64s = np.maximum(1.0 - squared * (0.25 * self.unit**2), 0.0)
            return similar
        scaled = squared * (-1.0 / self._length_squared)
        return np.exp(scaled, out=scaled)

    def of32(self, squared: torch.Tensor) -> torch.Tensor:
        """Gives the same in float32, in place; a ball's distances must be exact integers."""
        if self.name == "ball":
            return (squared <= math.floor(min(self._length_squared, 2.0**24))).float()
        if self.name == "cosine":
            return squared.mul_(-0.25 * self.unit**2).add_(1.0).clamp_(min=0.0)
        # Clamped, so that at a distance of 0 it is 0 times a number: similarities only rise by it.
        return squared.mul_(-min(1.0 / self._length_squared, _GREATEST32)).exp_()

    @property
    def _length_squared(self) -> float:
        # Beyond these no distance that a space gives tells one length from another.
        return min(max(self.length / self.unit, _SHORTEST), _LONGEST) ** 2
