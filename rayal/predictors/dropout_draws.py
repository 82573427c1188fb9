"""Dropout with fixed masks, so that a draw is one function of the whole pool.

Reference: Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016; with one mask for all
rows of a draw, as Kirsch et al., BatchBALD, NeurIPS 2019, need it for joint predictions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from rayal.errors import NeedsError
from rayal.keys import Keys

_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_BY_FUNCTION = (nn.MultiheadAttention, nn.RNNBase)  # their own `dropout` argument is no layer


class FixedDropout(nn.Module):
    """Drops the same features of every row, by a mask that (keys, layer, draw, use) alone decide.

    `draw` None passes everything. A feature is one value of a row, or a channel, as it was before.
    A layer that a forward uses several times has a mask for each use.
    """

    def __init__(self, layer: str, share: float, by_channel: bool, keys: Keys) -> None:
        super().__init__()
        self.layer, self.share, self.by_channel, self.keys = layer, share, by_channel, keys
        self.draw: int | None = None
        self.num_uses = 0  # in this draw, so far
        self._masks: dict[tuple[int, int, tuple[int, ...]], torch.Tensor] = {}

    def begin(self, draw: int | None) -> None:
        """Starts a forward pass with the masks of this draw; None: without any."""
        self.draw, self.num_uses = draw, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Gives the inputs with the draw's features set to zero, the others scaled up."""
        if self.draw is None:
            return inputs
        shape = tuple(inputs.shape[1:])
        if self.by_channel:
            shape = (shape[0], *(1 for _ in shape[1:]))
        name = (self.draw, self.num_uses, shape)
        self.num_uses += 1
        mask = self._masks.get(name)
        if mask is None:
            mask = self._masks[name] = self._mask(*name).to(inputs.device)
        return inputs * mask.to(inputs.dtype)

    def _mask(self, draw: int, use: int, shape: tuple[int, ...]) -> torch.Tensor:
        name = f"dropout/{self.layer}/{draw}" + (f"/use/{use}" if use else "")
        uniforms = self.keys.stream(name).uniform(np.arange(math.prod(shape), dtype=np.int64))
        scale = 1.0 / (1.0 - self.share) if self.share < 1.0 else 0.0
        return torch.from_numpy(((uniforms >= self.share) * scale).astype(np.float32)).reshape(
            shape
        )


def fix_dropout(module: nn.Module, keys: Keys) -> list[FixedDropout]:
    """Puts a FixedDropout in the place of every dropout layer and gives them, in order of name.

    One layer that stands in several places gets one in each: it may see another width there.

    Raises:
        NeedsError: the module has no dropout layer that drops anything; or one whose noise is not
            a mask of features.
    """
    places = [
        (f"{path}.{name}" if path else name, parent, name, layer)
        for path, parent in module.named_modules()  # each parent once, by its first name
        for name, layer in parent._modules.items()
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0.0
    ]
    fixed = []
    for full_name, parent, name, layer in sorted(places, key=lambda place: place[0]):
        if not isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            raise NeedsError(
                f"dropout layer '{full_name}' is {type(layer).__name__}, which has no fixed masks; "
                "use Dropout, Dropout1d, Dropout2d or Dropout3d, or an ensemble "
                "(trainer.num_members)"
            )
        twin = FixedDropout(full_name, layer.p, isinstance(layer, _BY_CHANNEL), keys)
        setattr(parent, name, twin)
        fixed.append(twin)
    if not fixed:
        raise NeedsError(
            f"predictor.num_draws asks for dropout draws, but {type(module).__name__} has no "
            f"dropout layer with a share above 0{_by_function(module)}; give the module dropout, "
            "or train an ensemble (trainer.num_members) and set predictor.num_draws=0"
        )
    return fixed


def _by_function(module: nn.Module) -> str:
    for name, layer in module.named_modules():
        if isinstance(layer, _BY_FUNCTION) and layer.dropout > 0.0:
            return f" (that of '{name}', {type(layer).__name__}, is no layer and draws no masks)"
    return ""


@contextlib.contextmanager
def by_submodules() -> Iterator[None]:
    """Makes torch's transformer layers call their submodules, dropouts among them: in eval mode
    they go a fused way past them. The switch is the whole process's, so it is put back."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
