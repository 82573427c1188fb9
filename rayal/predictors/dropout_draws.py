"""Dropout with fixed masks, so that a draw is one function of the whole pool.

Reference: Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016; with one mask for all
rows of a draw, as Kirsch et al., BatchBALD, NeurIPS 2019, need it for joint predictions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from rayal.errors import NeedsError
from rayal.keys import Keys

_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class FixedDropout(nn.Module):
    """Drops the same features of every row, by a mask that (keys, layer, draw) alone decide.

    `draw` None passes everything. A feature is one value of a row, or a channel, as it was before.
    """

    def __init__(self, layer: str, share: float, by_channel: bool, keys: Keys) -> None:
        super().__init__()
        self.layer, self.share, self.by_channel, self.keys = layer, share, by_channel, keys
        self.draw: int | None = None
        self._masks: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Gives the inputs with the draw's features set to zero, the others scaled up."""
        if self.draw is None:
            return inputs
        shape = tuple(inputs.shape[1:])
        if self.by_channel:
            shape = (shape[0], *(1 for _ in shape[1:]))
        mask = self._masks.get((self.draw, shape))
        if mask is None:
            mask = self._masks[self.draw, shape] = self._mask(self.draw, shape).to(inputs.device)
        return inputs * mask.to(inputs.dtype)

    def _mask(self, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        stream = self.keys.stream(f"dropout/{self.layer}/{draw}")
        kept = stream.uniform(np.arange(math.prod(shape), dtype=np.int64)) >= self.share
        scale = 1.0 / (1.0 - self.share) if self.share < 1.0 else 0.0
        return torch.from_numpy((kept * scale).astype(np.float32)).reshape(shape)


def fix_dropout(module: nn.Module, keys: Keys) -> list[FixedDropout]:
    """Puts a FixedDropout in the place of every dropout layer and gives them, in order of name.

    Raises:
        NeedsError: the module has no dropout layer that drops anything; or one whose noise is not
            a mask of features.
    """
    fixed = []
    for name, layer in sorted(module.named_modules()):
        if not isinstance(layer, nn.modules.dropout._DropoutNd) or layer.p == 0.0:
            continue
        if not isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            raise NeedsError(
                f"dropout layer '{name}' is {type(layer).__name__}, which has no fixed masks; use "
                "Dropout, Dropout1d, Dropout2d or Dropout3d, or an ensemble (trainer.num_members)"
            )
        twin = FixedDropout(name, layer.p, isinstance(layer, _BY_CHANNEL), keys)
        module.set_submodule(name, twin)
        fixed.append(twin)
    if not fixed:
        raise NeedsError(
            f"predictor.num_draws asks for dropout draws, but {type(module).__name__} has no "
            "dropout layer with a share above 0; give the module dropout, or train an ensemble "
            "(trainer.num_members) and set predictor.num_draws=0"
        )
    return fixed
