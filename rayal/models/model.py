"""A network and what it reads: shared by predictor and trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rayal.errors import ConfigError
from rayal.models.transform import Transform
from rayal.types import Kind


def call_with(function: Callable[..., Any], *args: Any, **offers: Any) -> Any:
    """Gives function(*args, ...) with those of the offers that it names and that are not bound yet.

    A `functools.partial` keeps what it binds; offers are not poured into a `**kwargs`.
    """
    bound = getattr(function, "keywords", {})
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return function(*args)
    return function(*args, **{k: v for k, v in offers.items() if k in names and k not in bound})


@dataclass(frozen=True)
class Model:
    """Gives networks of one architecture, the transform of their inputs, and the kind of answer.

    `module` is a class of torch.nn.Module, or a partial of one; its constructor is given
    `num_outputs` and `num_inputs` where it names them. Its forward takes the transform's tensors
    and gives logits, or (logits, embeds). `kind` is that of the pool's vocabulary.
    """

    module: Callable[..., nn.Module]
    transform: Transform
    kind: Kind = "class"

    def __post_init__(self) -> None:
        if self.kind not in ("class", "multilabel", "number"):
            raise ConfigError(
                f"model.kind is '{self.kind}', expected 'class', 'multilabel' or 'number'"
            )

    def build(self, num_outputs: int, num_inputs: int, seed: int = 0) -> nn.Module:
        """Gives a network on the CPU whose first parameters are a function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            built = call_with(self.module, num_outputs=num_outputs, num_inputs=num_inputs)
        if not isinstance(built, nn.Module):
            raise ConfigError(
                f"model.module gave a {type(built).__name__}, expected a torch.nn.Module; "
                "let its _target_ name a module class"
            )
        return built


def split_outputs(found: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gives (logits, embeds or None) of what a module's forward gave.

    Raises:
        ConfigError: it is neither logits (N, C) nor a pair (logits, embeds).
    """
    logits, embeds = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    for name, tensor in (("logits", logits), ("embeds", embeds)):
        if name == "embeds" and tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
            shape = f" {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else ""
            raise ConfigError(
                f"the module's forward gave {name} as {type(tensor).__name__}{shape}, expected a "
                "(N, C) tensor of logits, or a pair of it and a (N, D) tensor of embeds"
            )
    return logits, embeds
