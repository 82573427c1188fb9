"""Sketched gradients: what a network's output would change by, if its weights did.

For one row and one linear layer the gradient of the output by the weights is an outer product of
what comes back to the layer and what went in, (out, in + 1) with the bias. All layers' gradients
side by side are the features whose inner products are the gradient (neural tangent) kernel: too
wide to keep. A random projection of an outer product is the product of two projections, of its two
factors; that of layers side by side is the sum of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from rayal.errors import NeedsError
from rayal.keys import Keys
from rayal.predictors.dropout_draws import by_submodules

_CHUNK = 1 << 24  # numbers that a projected layer may take at a time: 64 MiB


class _Call(NamedTuple):
    """One use of a linear layer in a forward pass."""

    layer: str
    inputs: torch.Tensor
    outputs: torch.Tensor


class GradientSketch:
    """Gives (N, P) sketched gradients of a module's output by the weights of its linear layers.

    Inner products are those of the gradients in expectation; their error is up to sqrt(8 / P) of
    the product of norms, 12 % with 512. One forward and one backward pass a batch, then
    O(N P (in + out)) a layer and use; gradients of single rows are never made. Layers count that
    are an nn.Linear, are called as one, and have a weight that requires a gradient; a layer that
    sees several places of a row (N, ..., in) has the sum over them. Convolutions, embeddings and
    what nn.MultiheadAttention does inside are left out.

    Projections are signs, drawn from `keys` by the layer's name: the same for all rows and workers.

    Departures: signs in place of Gaussians (the same expectation, less variance, the same bits
    everywhere); PyTorch's plain weights, without the scale factors of the neural tangent
    parametrisation.

    Raises:
        NeedsError: the module has no such layer, its forward calls none, or calls one with another
            first dimension than rows.

    Reference: Holzmueller, Zaverkin, Kaestner & Steinwart, A Framework and Benchmark for Deep Batch
    Active Learning for Regression, JMLR 24, 2023, arXiv:2203.09410 (sections 4.1 and 4.3).
    """

    def __init__(self, module: nn.Module, width: int, keys: Keys) -> None:
        self.module, self.width, self.keys = module, width, keys
        self.layers = {
            name: layer
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear) and layer.weight.requires_grad
        }
        if not self.layers:
            raise _cannot(f"{type(module).__name__} has no nn.Linear whose weight learns")
        self._signs: dict[tuple[str, str], torch.Tensor] = {}

    def of(self, forward: Callable[[], torch.Tensor], num_rows: int) -> torch.Tensor:
        """Gives the sketch for a forward pass, which gives (N, T) outputs; these are added up."""
        calls: list[_Call] = []
        handles = [
            layer.register_forward_hook(_noting(name, calls), with_kwargs=True)
            for name, layer in self.layers.items()
        ]
        try:
            with torch.inference_mode(False), torch.enable_grad(), by_submodules():
                total = forward().float().sum()
        finally:
            for handle in handles:
                handle.remove()
        if not calls or not total.requires_grad:
            raise _cannot(
                f"the forward of {type(self.module).__name__} calls none of its {len(self.layers)} "
                "linear layers"
            )
        # Asked of the layers' outputs and not of weights: no parameter gets a gradient.
        backs = torch.autograd.grad(total, [call.outputs for call in calls], allow_unused=True)
        sketch_NP = torch.zeros(num_rows, self.width, device=total.device)
        for call, back in zip(calls, backs, strict=True):
            if call.inputs.ndim < 2 or len(call.inputs) != num_rows:
                raise _cannot(
                    f"its linear layer '{call.layer}' was given {tuple(call.inputs.shape)} for "
                    f"{num_rows} rows, expected rows in the first dimension"
                )
            if back is not None:
                self._add(sketch_NP, call, back)
        return sketch_NP.div_(math.sqrt(self.width))

    def _add(self, sketch_NP: torch.Tensor, call: _Call, back: torch.Tensor) -> None:
        inputs, back = (
            one.detach().float().flatten(1, -2) if one.ndim > 2 else one.detach().float()[:, None]
            for one in (call.inputs, back)
        )  # (N, places, in) and (N, places, out)
        layer = self.layers[call.layer]
        into = self._matrix(call.layer, "inputs", inputs.shape[-1] + 1, inputs.device)
        out_of = self._matrix(call.layer, "outputs", back.shape[-1], back.device)
        has_bias = layer.bias is not None and layer.bias.requires_grad
        rows = max(1, _CHUNK // max(1, inputs.shape[1] * self.width))
        for lo in range(0, len(inputs), rows):
            projected = inputs[lo : lo + rows] @ into[:-1]
            if has_bias:
                projected += into[-1]
            projected *= back[lo : lo + rows] @ out_of
            sketch_NP[lo : lo + rows] += projected.sum(dim=1)

    def _matrix(self, layer: str, side: str, num_rows: int, device: torch.device) -> torch.Tensor:
        name = (layer, side)
        if name not in self._signs:
            stream = self.keys.stream(f"grads/{layer}/{side}")
            uniforms = stream.uniform(np.arange(num_rows * self.width, dtype=np.int64))
            signs = np.where(uniforms < 0.5, np.float32(-1.0), np.float32(1.0))
            self._signs[name] = torch.from_numpy(signs.reshape(num_rows, -1)).to(device)
        return self._signs[name]


def _noting(name: str, calls: list[_Call]) -> Callable[..., torch.Tensor]:
    def note(module: nn.Module, args: Any, kwargs: Any, outputs: torch.Tensor) -> torch.Tensor:
        if not outputs.requires_grad:  # the forward has turned gradients off around it
            return outputs
        calls.append(_Call(name, args[0] if args else kwargs["input"], outputs))
        return outputs.clone()  # what is done to it in place must not change what was noted

    return note


def _cannot(why: str) -> NeedsError:
    return NeedsError(f"output 'grads' was asked for; the model cannot give it: {why}")
