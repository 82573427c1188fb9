"""A linear head: the whole of a model whose logits are one product with its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rayal.storage import atomic_path
from rayal.types import Float64s

Matrix = npt.NDArray[np.float64]


class HasLinear(Protocol):
    """A module that gives logits = `linear`(inputs flattened to (N, D)), and nothing else to them
    in eval mode."""

    @property
    def linear(self) -> nn.Linear: ...


@dataclass(frozen=True)
class LinearHead:
    """Logits are weights_CD x + bias_C; the float32 numbers of a checkpoint, as float64."""

    weights_CD: Matrix
    bias_C: Float64s

    @classmethod
    def of(cls, module: nn.Module) -> LinearHead | None:
        """Gives the head that a module says it is, or None, also where it gives other logits."""
        linear = getattr(module, "linear", None)
        if not isinstance(linear, nn.Linear) or not _is_all_of(linear, module):
            return None
        weights_CD = linear.weight.detach().cpu().double().numpy()
        bias = linear.bias
        nothing_C = np.zeros(len(weights_CD))
        return cls(weights_CD, nothing_C if bias is None else bias.detach().cpu().double().numpy())

    def write(self, path: Path) -> None:
        """Leaves the head in a file, or nothing."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, weights=self.weights_CD, bias=self.bias_C)

    @classmethod
    def read(cls, path: Path) -> LinearHead:
        """Gives what `write` left."""
        with np.load(path) as found:
            return cls(found["weights"], found["bias"])


def _is_all_of(linear: nn.Linear, module: nn.Module) -> bool:
    """Whether a module gives the logits of its layer `linear`: that is a common name, also of the
    last layer of many. Looked at with drawn rows, short and long."""
    rng = np.random.default_rng(0)
    rows_ND = rng.normal(size=(16, linear.in_features)) * np.logspace(-2, 3, 16)[:, None]
    inputs = torch.from_numpy(rows_ND.astype(np.float32))
    try:
        with torch.inference_mode():
            expected, found = linear(inputs), module.eval()(inputs)
            logits = found[0] if isinstance(found, tuple) else found
            return torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
    except Exception:  # of whatever kind: a module of the user's that takes no such rows
        return False


def products_are_float32() -> bool:
    """Whether this process multiplies float32 numbers as such, and not as shorter ones."""
    on_cuda = torch.cuda.is_available() and torch.backends.cuda.matmul.allow_tf32
    return torch.get_float32_matmul_precision() == "highest" and not on_cuda
