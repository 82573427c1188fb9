"""A network and what it reads: shared by predictor and trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.models.explain import explained
from rayal.models.transform import Transform
from rayal.types import Kind, Vocabulary


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

    def check(self, vocabulary: Vocabulary) -> None:
        """Refuses labels of another kind.

        Raises:
            ConfigError: they are.
        """
        if vocabulary.kind != self.kind:
            raise ConfigError(
                f"model.kind is '{self.kind}', but the labels are of kind '{vocabulary.kind}'; "
                "set model.kind to that, or ingest with --kind class where numbers name classes"
            )

    def build(self, num_outputs: int, num_inputs: int, seed: int = 0) -> nn.Module:
        """Gives a network on the CPU whose first parameters are a function of the seed alone.

        Raises:
            ConfigError: the module refuses its arguments, or is none that can be trained.
        """
        sizes = f"num_outputs={num_outputs} and num_inputs={num_inputs}"
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            with explained(
                f"model.module cannot be built for {sizes}", "correct its arguments in model.module"
            ):
                built = call_with(self.module, num_outputs=num_outputs, num_inputs=num_inputs)
        if not isinstance(built, nn.Module):
            raise ConfigError(
                f"model.module gave a {type(built).__name__}, expected a torch.nn.Module; "
                "let its _target_ name a module class"
            )
        lazy = [name for name, tensor in built.named_parameters() if nn.parameter.is_lazy(tensor)]
        if lazy:
            raise ConfigError(
                f"model.module has a lazy layer ('{lazy[0]}' has no shape yet), expected one that "
                f"is whole once it is built; let its constructor take num_inputs (here {sizes})"
            )
        return built

    def build_member(
        self, vocabulary: Vocabulary, num_inputs: int, member: int, keys: Keys
    ) -> nn.Module:
        """Gives the untrained network that this member of an ensemble starts as."""
        seed = keys.stream(f"train/init/{member}").seed()
        return self.build(vocabulary.num_outputs, num_inputs, seed)


def split_outputs(
    found: Any, num_rows: int, num_outputs: int, classes: Sequence[str | int] = ()
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gives (logits, embeds or None) of what a module's forward gave for so many rows.

    Raises:
        ConfigError: it is neither logits (N, num_outputs) nor a pair (logits, embeds).
    """
    logits, embeds = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    for name, tensor in (("logits", logits), ("embeds", embeds)):
        if name == "embeds" and tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or len(tensor) != num_rows:
            shape = f" {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else ""
            raise ConfigError(
                f"the module's forward gave {name} as {type(tensor).__name__}{shape} for "
                f"{num_rows} rows, expected a ({num_rows}, {num_outputs}) tensor of logits, or a "
                f"pair of it and a ({num_rows}, D) tensor of embeds; correct its forward"
            )
    if logits.shape[1] != num_outputs:
        what = f"one a class ({listed(classes)})" if classes else "one a number to predict"
        raise ConfigError(
            f"the module gives {logits.shape[1]} outputs a row, expected {num_outputs}, {what}; "
            "let its constructor take num_outputs and give its last layer that width"
        )
    return logits, embeds


def listed(names: Sequence[str | int]) -> str:
    """Gives the first names of a list, quoted."""
    return ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
